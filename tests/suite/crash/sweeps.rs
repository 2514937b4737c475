//! The runtime is killed at a random time, again and again.

use std::time::Duration;
use std::time::Instant;

use super::Dice;
use super::ended;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::residue;
use crate::support::residue::quiet;
use crate::support::scale;

/// How long all the attempts of one sweep may take.
const BUDGET: Duration = Duration::from_secs(4);
/// The fewest attempts that say anything, however slow the machine is.
const FEWEST: u32 = 8;
/// As many in a long run.
const LONG: u32 = 3_000;

/// One command, and what has to be there before it.
struct Sweep {
    prepare: fn(&Home, &Bundle, &str),
    words: fn(&Bundle, &str) -> Vec<String>,
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

fn created(home: &Home, bundle: &Bundle, id: &str) {
    let made = quiet(
        home,
        id,
        ["create", "-b", bundle.path().to_str().unwrap(), id],
    )
    .status();
    assert!(made.unwrap().success());
}

fn started(home: &Home, bundle: &Bundle, id: &str) {
    created(home, bundle, id);
    home.bulkhead(["start", id]).ok();
}

fn nothing(_home: &Home, _bundle: &Bundle, _id: &str) {}

/// Kills the command at random times of its life until the budget is used, and looks for what is left each time.
#[expect(
    clippy::print_stdout,
    reason = "how many kills there were tells what a pass is worth"
)]
fn sweep(sweep: &Sweep) {
    let home = Home::new();
    let id = home.id();
    let bundle = residue::sleeper(&id);
    (sweep.prepare)(&home, &bundle, &id);
    let begun = Instant::now();
    let mut whole = quiet(&home, &id, (sweep.words)(&bundle, &id))
        .spawn()
        .unwrap();
    ended(&mut whole);
    let length = u64::try_from(begun.elapsed().as_micros()).unwrap();
    residue::remove(&home, &id);
    let mut dice = Dice(length);
    let mut attempts = 0;
    let deadline = Instant::now() + BUDGET;
    let fewest = scale::times(FEWEST, LONG);
    while attempts < fewest || Instant::now() < deadline {
        attempts += 1;
        scale::progress("killed at a random time", attempts, fewest);
        (sweep.prepare)(&home, &bundle, &id);
        let mut child = quiet(&home, &id, (sweep.words)(&bundle, &id))
            .spawn()
            .unwrap();
        std::thread::park_timeout(Duration::from_micros(dice.below(length * 6 / 5)));
        child.kill().unwrap();
        ended(&mut child);
        residue::remove(&home, &id);
    }
    println!("{attempts} attempts within {length} us each");
    started(&home, &bundle, &id);
    residue::remove(&home, &id);
}

#[test]
fn a_create_that_is_killed_leaves_what_delete_removes() {
    need!(root, cgroup2);
    sweep(&Sweep {
        prepare: nothing,
        words: |bundle, id| words(&["create", "-b", bundle.path().to_str().unwrap(), id]),
    });
}

#[test]
fn a_detached_run_that_is_killed_leaves_what_delete_removes() {
    need!(root, cgroup2);
    sweep(&Sweep {
        prepare: nothing,
        words: |bundle, id| words(&["run", "-d", "-b", bundle.path().to_str().unwrap(), id]),
    });
}

#[test]
fn a_start_that_is_killed_leaves_what_delete_removes() {
    need!(root, cgroup2);
    sweep(&Sweep {
        prepare: created,
        words: |_, id| words(&["start", id]),
    });
}

#[test]
fn an_exec_that_is_killed_leaves_what_delete_removes() {
    need!(root, cgroup2);
    sweep(&Sweep {
        prepare: started,
        words: |_, id| words(&["exec", "-d", id, "sleep", "999"]),
    });
}

#[test]
fn a_kill_that_is_killed_leaves_what_delete_removes() {
    need!(root, cgroup2);
    sweep(&Sweep {
        prepare: started,
        words: |_, id| words(&["kill", id, "KILL"]),
    });
}

#[test]
fn a_delete_that_is_killed_can_be_repeated() {
    need!(root, cgroup2);
    sweep(&Sweep {
        prepare: started,
        words: |_, id| words(&["delete", "--force", id]),
    });
}
