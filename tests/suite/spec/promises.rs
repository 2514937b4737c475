//! The promises of `runtime-spec/promises.md`: each is kept by tests that are really there.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

const PROMISES: &str = include_str!("../../../runtime-spec/promises.md");

/// The names of all functions below the folders.
fn functions() -> BTreeSet<String> {
    let home = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut open = vec![home.join("src"), home.join("tests/suite")];
    let mut found = BTreeSet::new();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let names = text
                    .lines()
                    .filter_map(|line| line.trim().strip_prefix("fn "));
                found.extend(names.filter_map(|name| Some(name.split_once('(')?.0.to_owned())));
            }
        }
    }
    found
}

#[test]
fn every_promise_about_behaviour_names_tests_that_are_there() {
    let section = PROMISES.split("## Behaviour").nth(1).unwrap();
    let section = section.split("## ").next().unwrap();
    let rows = section
        .lines()
        .filter(|line| line.starts_with("| "))
        .skip(1);
    let functions = functions();
    let mut broken = Vec::new();
    for row in rows {
        let tests = row.split(" | ").nth(1).unwrap_or_default();
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        if names.is_empty() || !names.iter().all(|name| functions.contains(*name)) {
            broken.push(row);
        }
    }
    assert_eq!(broken, Vec::<&str>::new());
}
