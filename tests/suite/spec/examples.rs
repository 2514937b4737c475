//! The examples beside the specification: what is valid is accepted, what is not is refused with the words kept beside.

use std::fs;
use std::path::PathBuf;

use bulkhead::spec::Spec;

fn examples(folder: &str) -> Vec<PathBuf> {
    let home = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let folder = home.join("runtime-spec/examples").join(folder);
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = entries
        .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
        .collect();
    found.sort();
    found
}

/// What is said of a document: its warnings, or why it is refused.
fn verdict(path: &PathBuf) -> Result<String, String> {
    let spec = Spec::parse(&fs::read(path).unwrap()).map_err(|error| error.to_string())?;
    let warnings = spec.validate().map_err(|error| error.to_string())?;
    let lines = warnings.iter().map(|warning| format!("{warning}\n"));
    Ok(lines.collect())
}

#[test]
fn valid_examples_are_accepted_with_the_warnings_beside_them() {
    let examples = examples("valid");
    assert!(examples.len() > 3);
    for path in examples {
        let beside = fs::read_to_string(path.with_extension("txt")).unwrap_or_default();
        assert_eq!(verdict(&path), Ok(beside), "{}", path.display());
    }
}

#[test]
fn invalid_examples_are_refused_with_the_message_beside_them() {
    let examples = examples("invalid");
    assert!(examples.len() > 40);
    for path in examples {
        let beside = fs::read_to_string(path.with_extension("txt")).unwrap_or_default();
        let refused = verdict(&path).map_err(|message| message + "\n");
        assert_eq!(refused, Err(beside), "{}", path.display());
    }
}
