//! The file server of a machine, spoken to as a guest's kernel would, over the real device and the real process.
//!
//! There is no guest here: a test drives the registers of the device, puts requests into rings in shared memory, and
//! compares what comes back with the directory that is served.

mod client;
mod driver;
mod ends;
mod exercise;
mod guest;
mod hostile;
mod jail;
mod place;
mod serving;

use std::path::PathBuf;

use crate::need;

/// Where the exerciser works when it runs inside; see [`exercise`].
const DIRECTORY: &str = "BULKHEAD_EXERCISE";

#[test]
fn the_exerciser_agrees_with_this_kernel() {
    need!(root);
    let directory = tempfile::tempdir().unwrap();
    let found = exercise::facts(directory.path());
    assert_eq!(found["hard links"], "true 2 2");
    assert_eq!(found["shared mapping"], "true true");
    exercise::at_random(directory.path(), 7);
}

/// Not a test of its own: another one runs this binary in a guest with the directory in its environment.
#[test]
#[ignore = "runs in a guest, by another test"]
fn inside() {
    let directory = PathBuf::from(std::env::var_os(DIRECTORY).unwrap());
    let found = exercise::facts(&directory);
    exercise::at_random(&directory, 7);
    let text = serde_json::to_vec(&found).unwrap();
    std::fs::write(directory.with_extension("found"), text).unwrap();
}
