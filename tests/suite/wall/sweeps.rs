//! A command is killed at a random time while it makes, starts, enters or removes a machine: what is left, `delete`
//! removes.
//!
//! A machine takes seconds to boot where these tests run, so there are few kills; `BULKHEAD_KILLS` says how many times as
//! many there are to be.

use std::time::Duration;
use std::time::Instant;

use super::Walled;
use super::bundle;
use crate::both;
use crate::crash::Dice;
use crate::crash::ended;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::residue;
use crate::support::residue::quiet;

fn kills(few: u32) -> u32 {
    let times = std::env::var("BULKHEAD_KILLS").ok();
    few * times.and_then(|times| times.parse().ok()).unwrap_or(1)
}

fn sleeper(id: &str) -> Bundle {
    residue::mark(bundle("while :; do sleep 1000; done"), id)
}

/// Runs a command to its end; gives how long that took, in microseconds.
fn whole(home: &Home, id: &str, words: &[&str]) -> u64 {
    let begun = Instant::now();
    let mut child = quiet(home, id, words).spawn().unwrap();
    assert!(ended(&mut child).success(), "{words:?}");
    u64::try_from(begun.elapsed().as_micros()).unwrap()
}

/// Begins a command and kills it within its usual time.
fn killed(home: &Home, id: &str, words: &[&str], dice: &mut Dice, length: u64) {
    let mut child = quiet(home, id, words).spawn().unwrap();
    std::thread::park_timeout(Duration::from_micros(dice.below(length * 6 / 5)));
    child.kill().unwrap();
    ended(&mut child);
}

#[test]
fn a_machine_whose_create_start_or_delete_is_killed_is_removed_whole() {
    need!(machine, kvm);
    let home = both::home();
    let id = home.id();
    let bundle = sleeper(&id);
    let create = ["create", "-b", bundle.path().to_str().unwrap(), &id];
    let (start, delete) = (["start", &id], ["delete", "--force", &id]);
    let lengths = [
        whole(&home, &id, &create),
        whole(&home, &id, &start),
        whole(&home, &id, &delete),
    ];
    residue::remove(&home, &id);
    let mut dice = Dice::new(lengths[0]);
    for _ in 0..kills(5) {
        killed(&home, &id, &create, &mut dice, lengths[0]);
        residue::remove(&home, &id);
    }
    for _ in 0..kills(2) {
        whole(&home, &id, &create);
        killed(&home, &id, &start, &mut dice, lengths[1]);
        killed(&home, &id, &delete, &mut dice, lengths[2]);
        residue::remove(&home, &id);
    }
}

#[test]
fn a_machine_whose_exec_is_killed_goes_on_and_is_removed_whole() {
    need!(machine, kvm);
    let walled = Walled::started(":", |_| {});
    let processes = walled.processes();
    let exec = ["exec", "-d", &walled.id, "sleep", "999"];
    let length = whole(&walled.home, &walled.id, &exec);
    let mut dice = Dice::new(length);
    for _ in 0..kills(8) {
        killed(&walled.home, &walled.id, &exec, &mut dice, length);
    }
    assert_eq!(walled.asks("echo still here"), "still here\n");
    walled.removed(&processes);
}
