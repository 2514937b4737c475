//! Many lives in a row: every counter of the host stands afterwards where it stood before.

mod counters;

use std::io::BufRead;
use std::io::BufReader;
use std::process::Command;
use std::process::Stdio;

use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::residue;
use crate::support::residue::quiet;
use crate::support::scale;
use crate::up::Document;
use counters::Counters;

/// The first cycles make what stays: cgroups of the program's own, caches of the kernel.
const WARM: u32 = 3;

/// Says that a test has a process, a network and mounts of its own.
const ALONE: &str = "BULKHEAD_TEST_ALONE";

/// Runs the test of this name in a process of its own, since counters count what other tests do too; in that process
/// gives true, and the test goes on.
#[expect(clippy::print_stdout, reason = "what the other process has printed")]
#[track_caller]
fn alone(test: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--propagation", "private"]);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/.ci/alone"));
    command.arg(std::env::current_exe().unwrap());
    command.args(["--exact", "--nocapture", &format!("soak::{test}")]);
    let mut child = command
        .env(ALONE, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(child.stdout.take().unwrap());
    said.lines()
        .for_each(|line| println!("  {}", line.unwrap()));
    assert!(child.wait().unwrap().success());
    false
}

/// Lives `cycles` lives and compares the counters before and after.
fn lives(name: &str, home: &Home, cycles: u32, life: impl Fn()) {
    (0..WARM).for_each(|_| life());
    let before = Counters::settled(home);
    for done in 1..=cycles {
        life();
        scale::progress(name, done, cycles);
    }
    before.stand_again(name, home, cycles);
}

#[test]
fn after_many_lives_every_counter_stands_where_it_stood() {
    need!(root, cgroup2);
    if !alone("after_many_lives_every_counter_stands_where_it_stood") {
        return;
    }
    let home = Home::new();
    let id = home.id();
    let bundle = residue::sleeper(&id);
    let path = bundle.path().to_str().unwrap();
    lives(
        "create, start, delete",
        &home,
        scale::times(40, 10_000),
        || {
            let made = quiet(&home, &id, ["create", "-b", path, &id]).status();
            assert!(made.unwrap().success());
            home.bulkhead(["start", &id]).ok();
            home.bulkhead(["delete", "--force", &id]).ok();
        },
    );
}

#[test]
fn after_many_workspaces_with_a_network_every_counter_stands_where_it_stood() {
    need!(root, cgroup2);
    if !alone("after_many_workspaces_with_a_network_every_counter_stands_where_it_stood") {
        return;
    }
    let home = Home::new();
    let document = Document::sleeper(&home, "[network]\nbridge = \"net\"\n");
    lives("up, down", &home, scale::times(8, 1_000), || {
        document.up(&home);
        document.down(&home);
    });
}

#[test]
fn whatever_a_short_program_says_arrives_and_so_does_its_status() {
    need!(root, cgroup2);
    let home = Home::new();
    let text = "x".repeat(3000);
    let bundle = Bundle::shell(&format!("echo {text}; echo {text} >&2; exit 7"));
    let tries = scale::times(20, 10_000);
    for done in 1..=tries {
        let said = home.run(&bundle);
        assert_eq!(
            (said.status, said.out.trim(), said.err.trim()),
            (7, &*text, &*text)
        );
        scale::progress("short programs", done, tries);
    }
}

#[test]
fn whatever_a_short_program_that_joins_says_arrives_and_so_does_its_status() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = home.id();
    let bundle = residue::sleeper(&id);
    home.start(&bundle, &id);
    let tries = scale::times(20, 10_000);
    for done in 1..=tries {
        let said = home.bulkhead(["exec", &id, "sh", "-c", "echo here; echo there >&2; exit 7"]);
        assert_eq!(
            (said.status, &*said.out, &*said.err),
            (7, "here\n", "there\n")
        );
        scale::progress("short programs that join", done, tries);
    }
    residue::remove(&home, &id);
}
