//! The file server of a machine, spoken to as a guest's kernel would, over the real device and the real process.
//!
//! There is no guest here: a test drives the registers of the device, puts requests into rings in shared memory, and
//! compares what comes back with the directory that is served.

mod client;
mod driver;
mod ends;
pub(crate) mod exercise;
pub(crate) mod guest;
mod hostile;
mod jail;
mod place;
mod serving;

use std::path::PathBuf;

use crate::need;

/// Where the exerciser works when it runs inside; see [`exercise`].
pub(crate) const DIRECTORY: &str = "BULKHEAD_EXERCISE";

/// Here in a directory of its own. Another test runs this one again in a guest, with the directory in its environment, and
/// compares what is found in both.
#[test]
fn the_exerciser_agrees_with_this_kernel() {
    need!(root);
    let given = std::env::var_os(DIRECTORY).map(PathBuf::from);
    let own = given.is_none().then(|| tempfile::tempdir().unwrap());
    let directory = given.or_else(|| own.as_ref().map(|own| own.path().join("own")));
    let directory = directory.unwrap();
    std::fs::create_dir_all(&directory).unwrap();
    let found = exercise::facts(&directory);
    assert_eq!(found["hard links"], "true 2 2");
    assert_eq!(found["shared mapping"], "true true");
    exercise::at_random(&directory, 7);
    let text = serde_json::to_vec(&found).unwrap();
    std::fs::write(directory.with_extension("found"), text).unwrap();
}
