//! That the rules which keep attacks out are themselves in force: the check of paths, the list of defences, the binary.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use bulkhead::defence::Defence;

/// Whether `.ci/paths` has nothing to say about a file with this text.
fn passes(text: &str) -> bool {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file.rs");
    fs::write(&file, text).unwrap();
    let check = Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/paths");
    let said = Command::new(check).arg(&file).output().unwrap();
    let words = String::from_utf8(said.stderr).unwrap();
    assert_eq!(said.status.success(), words.is_empty(), "{words}");
    said.status.success()
}

#[test]
fn a_file_below_a_root_cannot_be_named_by_its_path() {
    for call in [
        "std::fs::write(path, text)",
        "std::fs::create_dir_all(path)",
        "std::fs::remove_dir_all(path)",
        "std::fs::canonicalize(path)",
        "std::fs::set_permissions(path, mode)",
        "File::create(path)",
        "rustix::fs::open(path, flags, mode)",
        "rustix::fs::mknodat(CWD, path, kind, mode, device)",
        "rustix::mount::mount_bind(from, to)",
        "mount::copy_tree_at(path, true, true)",
        "rustix::process::chdir(path)",
    ] {
        let line = format!("fn a() {{\n    {call};\n}}\n");
        assert!(!passes(&line), "{call}");
        let unsaid = format!("fn a() {{\n    // host path:\n    {call};\n}}\n");
        assert!(!passes(&unsaid), "{call}");
        let said = format!("fn a() {{\n    // host path: the caller named it.\n    {call};\n}}\n");
        assert!(passes(&said), "{call}");
        assert!(passes(&format!(
            "#[cfg(test)]\nmod tests {{\n    {call};\n}}\n"
        )));
    }
    assert!(passes(
        "fn a() {\n    path::open_in(root, path, flags)?;\n    rustix::fs::mkdirat(&here, part, mode)\n}\n"
    ));
}

#[test]
fn every_defence_has_a_test_that_needs_it_and_stands_in_the_document() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let list = fs::read_to_string(home.join("tests/mutations")).unwrap();
    let listed: BTreeSet<&str> = list
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(' ').next())
        .collect();
    let known: BTreeSet<&str> = Defence::ALL.iter().map(|defence| defence.name()).collect();
    assert_eq!(listed, known);
    let document = fs::read_to_string(home.join("docs/security.md")).unwrap();
    for defence in Defence::ALL {
        let row = format!("| `{}` | {}", defence.name(), defence.words().trim());
        assert!(document.contains(&row), "docs/security.md lacks: {row}");
    }
}

/// Only in a build that can take defences out is there anything that does.
#[test]
#[cfg(not(feature = "mutations"))]
fn nothing_in_the_binary_takes_a_defence_out() {
    let text = fs::read(env!("CARGO_BIN_EXE_bulkhead")).unwrap();
    let text = String::from_utf8_lossy(&text);
    assert!(!text.contains("BULKHEAD_WITHOUT"));
}

/// A segment of a program's file, as readelf(1) tells of it: its kind, and what may be done with its pages.
fn segments(program: &str) -> Vec<(String, String)> {
    let said = Command::new("readelf")
        .args(["--segments", "--wide", program])
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    let text = String::from_utf8(said.stdout).unwrap();
    let lines = text.lines().skip_while(|line| !line.contains("PhysAddr"));
    let lines = lines.skip(1).take_while(|line| !line.is_empty());
    lines
        .map(|line| {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            // Kind, offset, two addresses, two sizes, flags (a space where one is missing), alignment.
            let flags = words[6..words.len() - 1].concat();
            (words[0].to_owned(), flags)
        })
        .collect()
}

#[test]
fn no_page_of_the_binary_is_written_and_executed_and_nothing_is_loaded_into_it() {
    let program = env!("CARGO_BIN_EXE_bulkhead");
    let segments = segments(program);
    let of = |kind: &str| segments.iter().find(|(found, _)| found == kind);
    assert!(of("LOAD").is_some(), "{segments:?}");
    for (kind, flags) in &segments {
        assert!(!(flags.contains('W') && flags.contains('E')), "{kind}");
    }
    assert_eq!(of("GNU_STACK").unwrap().1, "RW");
    assert_eq!(of("GNU_RELRO").unwrap().1, "R");
    assert_eq!(of("INTERP"), None);
    assert_eq!(of("DYNAMIC"), None);
}
