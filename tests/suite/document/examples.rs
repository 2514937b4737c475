//! The documents beside the specification: what is right is accepted, what is not is refused with the words beside it.

use std::fs;
use std::path::Path;

use bulkhead::spec::workspace::Document;
use bulkhead::spec::workspace::DocumentError;
use bulkhead::spec::workspace::Format;

use super::documents;
use super::right_documents;
use super::surroundings;

fn read(path: &Path) -> Result<Document, DocumentError> {
    let name = path.file_name().unwrap().to_str().unwrap();
    Document::read(&fs::read_to_string(path).unwrap(), Format::Toml, name)
}

/// Why a document is no use, as one line.
fn refusal(path: &Path) -> Option<String> {
    let compiled = read(path).and_then(|document| document.compile(&surroundings()));
    compiled.err().map(|error| format!("{error}\n"))
}

#[test]
fn right_documents_compile_to_configurations_that_are_right() {
    let right = right_documents();
    assert!(right.len() > 5);
    for path in right {
        let spec = read(&path).unwrap().compile(&surroundings()).unwrap();
        let warnings = spec.validate().unwrap().into_iter();
        let warned: Vec<String> = warnings.map(|warning| warning.path).collect();
        assert_eq!(warned, Vec::<String>::new(), "{}", path.display());
    }
}

#[test]
fn wrong_documents_are_refused_with_the_message_beside_them() {
    let wrong = documents("runtime-spec/examples/invalid");
    assert!(wrong.len() > 60);
    for path in wrong {
        let beside = path.with_extension("txt");
        if std::env::var_os("BULKHEAD_BLESS").is_some() {
            fs::write(&beside, refusal(&path).unwrap()).unwrap();
        }
        let expected = fs::read_to_string(beside).unwrap();
        assert_eq!(refusal(&path), Some(expected), "{}", path.display());
    }
}

#[test]
fn the_same_document_in_json_says_the_same() {
    for path in right_documents() {
        let value: toml::Value = toml::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let json = serde_json::to_string_pretty(&value).unwrap();
        assert_eq!(Format::of(&json), Format::Json);
        let twin = Document::read(&json, Format::Json, "twin.json").unwrap();
        assert_eq!(twin, read(&path).unwrap(), "{}", path.display());
    }
}

#[test]
fn a_wrong_value_in_json_has_its_line_too() {
    let refused = |text: &str| {
        let read = Document::read(text, Format::Json, "web.json");
        read.unwrap_err().to_string()
    };
    let start = "{\n \"name\": \"web\", \"rootfs\": \".\",\n";
    let table = [
        (
            "\"cpu\": {\n\"limit\": \"x\"}}",
            "web.json:4: cpu.limit: expected a number of CPUs with at most three decimals, such as 0.25, found \"x\"",
        ),
        (
            "\"cpu\": {\n\"limt\"\n:\n 1}}",
            "web.json:4: cpu.limt: unknown key; did you mean limit?",
        ),
        (
            "\"pids\": 1,\n\"pids\": 2}",
            "web.json:4: pids: stands there twice",
        ),
        (
            "\"command\": [\"a\", null]}",
            "web.json:3: command[1]: expected text in quotation marks, found null",
        ),
        (
            "\"env\": {\"A\": \"b\\u0000\"}}",
            "web.json:3: env.A: expected text without a NUL character, found \"b\\0\"",
        ),
        (
            "\"pids\": 1e400}",
            "web.json:3: pids: expected a number from -2^63 to 2^63-1, found 1e400",
        ),
        ("\"pids\" 1}", "web.json:3: is no JSON: expected `:`"),
    ];
    for (rest, expected) in table {
        assert_eq!(refused(&format!("{start}{rest}")), expected);
    }
}

#[test]
fn values_too_deep_for_any_document_are_refused_and_not_followed() {
    let deep = format!("{{\"env\": {}{}}}", "[".repeat(100), "]".repeat(100));
    let refused = Document::read(&deep, Format::Json, "deep.json").unwrap_err();
    assert!(refused.to_string().ends_with("levels deep"), "{refused}");
    let deep = format!("env = {}{}", "[".repeat(50), "]".repeat(50));
    let refused = Document::read(&deep, Format::Toml, "deep.toml").unwrap_err();
    assert!(refused.to_string().ends_with("levels deep"), "{refused}");
}

#[test]
fn a_key_is_told_without_what_it_would_do_to_a_terminal() {
    let refused = Document::read("\"\\u001b[2J\" = 1", Format::Toml, "odd.toml").unwrap_err();
    let said = refused.to_string();
    assert!(
        said.starts_with("odd.toml:1: \\u{1b}[2J: unknown key; "),
        "{said}"
    );
}

#[test]
fn a_long_document_is_read_in_time() {
    let lines = (0..20_000).map(|number| format!("K{number} = \"v\"\n"));
    let text = format!(
        "name = \"n\"\nrootfs = \"r\"\n[env]\n{}",
        lines.collect::<String>()
    );
    let read = Document::read(&text, Format::Toml, "long.toml").unwrap();
    assert_eq!(read.place("env.K19999"), "long.toml:20003");
}
