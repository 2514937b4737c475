//! Behind which wall tests put their workspaces: that of the container, or with `BULKHEAD_WALL=microvm` each in a machine.
//!
//! So every test of the container's behaviour is one of the machine's too: `make test-walls` runs them all again, and what
//! is different stands in [`crate::both::different`].

use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;

/// The name under which the program puts everything into machines.
const NAME: &str = "bulkhead-microvm";

/// Whether workspaces are put into machines.
pub(crate) fn is_microvm() -> bool {
    std::env::var_os("BULKHEAD_WALL").is_some_and(|wall| wall == "microvm")
}

/// The program, under the name that means the wall.
pub(crate) fn program() -> PathBuf {
    match is_microvm() {
        true => machines(),
        false => built(),
    }
}

/// The program as it was built: for the tests, or as `BULKHEAD_PROGRAM` says, which `.ci/test` has linked as the product is.
pub(crate) fn built() -> PathBuf {
    let given = std::env::var_os("BULKHEAD_PROGRAM");
    given.map_or_else(|| env!("CARGO_BIN_EXE_bulkhead").into(), PathBuf::from)
}

/// The program under the name by which it puts everything into machines.
pub(crate) fn machines() -> PathBuf {
    let own = built();
    let link = own.with_file_name(NAME);
    // Another test may have made it meanwhile.
    symlink(&own, &link).unwrap_or_default();
    link
}

/// Lets a state root find the guests of the test machine.
pub(crate) fn with_guests(root: &Path) {
    offer_guests(&root.join("@data"));
}

/// Lets the program find them when it is given no state root, as callers do.
pub(crate) fn with_guests_of_the_system() {
    let data = Path::new("/var/lib/bulkhead");
    if !data.join("guests").exists() {
        offer_guests(data);
    }
}

fn offer_guests(data: &Path) {
    std::fs::create_dir_all(data).unwrap();
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/guest/@data/guests");
    symlink(guests, data.join("guests")).unwrap();
}

/// Why the running test says nothing about a machine, when workspaces are put into machines and it does not.
pub(crate) fn excused() -> Option<&'static str> {
    let thread = std::thread::current();
    let test = thread.name().filter(|_| is_microvm())?;
    crate::both::different::reason(test)
}

/// Says that the running test is left out, and why.
#[expect(
    clippy::print_stdout,
    reason = "what is left out nobody should have to guess"
)]
pub(crate) fn passed_over(why: &str) {
    let thread = std::thread::current();
    println!("DIFFERENT {}: {why}", thread.name().unwrap_or("a test"));
}
