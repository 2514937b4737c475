//! The examples that are programs run to their end, with the binary that is tested.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::need;
use crate::support::home::Said;
use crate::support::need::kvm;
use crate::support::need::machine;

/// Runs an example; what it makes is in namespaces and a directory of its own.
fn example(name: &str) -> Said {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples")
        .join(name);
    let mut command = Command::new(path);
    command.env("BULKHEAD", env!("CARGO_BIN_EXE_bulkhead"));
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/guest/@data/guests");
    command.env("BULKHEAD_GUESTS", guests);
    command.output().unwrap().into()
}

#[test]
fn workspaces_come_up_are_reached_billed_and_leave_nothing() {
    need!(root, cgroup2);
    if machine().is_ok() {
        kvm().unwrap();
    }
    let said = example("demo").ok();
    assert!(said.contains("written inside"), "{said}");
    assert!(said.contains("no state, no cgroup, no link"), "{said}");
    let pages = said.lines();
    let pages = pages.filter(|line| line.starts_with("served by Linux"));
    // Where there can be no microVM, one sentence says why.
    let walls = if machine().is_ok() { 2 } else { 1 };
    assert_eq!(pages.collect::<BTreeSet<&str>>().len(), walls, "{said}");
}

#[test]
fn a_containers_whole_life_leaves_nothing() {
    need!(root, cgroup2);
    let said = example("life").ok();
    assert!(said.contains("no state, no cgroup"), "{said}");
}
