//! The workspace document: its examples, its schema and its reference, what it compiles to, and that this runs anywhere.

mod bundles;
mod commands;
mod examples;
mod meaning;
mod reference;

use std::fs;
use std::path::PathBuf;

use bulkhead::spec::workspace::Surroundings;

/// A directory of the project.
fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The documents in a directory, in the order of their names.
fn documents(name: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder(name)).unwrap();
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "toml"))
        .collect();
    found.sort();
    found
}

/// All documents that are right.
fn right_documents() -> Vec<PathBuf> {
    let mut all = documents("runtime-spec/examples/valid");
    all.extend(documents("examples"));
    all
}

/// What a document of a test is surrounded by: a root on a disk.
fn surroundings() -> Surroundings {
    Surroundings {
        base: PathBuf::from("/srv"),
        rootfs: PathBuf::from("/srv/rootfs"),
        device: Some((8, 16)),
        ..Surroundings::default()
    }
}
