//! Commands that work against each other at the same time: none hangs, and nothing is left.

use super::Dice;
use super::ended;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::residue;
use crate::support::residue::quiet;
use crate::support::scale;
use std::time::Duration;

/// How often a pair is tried.
const ROUNDS: u32 = 12;
/// The same in a long run.
const LONG: u32 = 500;

/// Starts both commands, the second a little later, and removes what is left.
fn against(home: &Home, id: &str, first: &[&str], second: &[&str], prepare: impl Fn()) {
    let mut dice = Dice(7);
    let rounds = scale::times(ROUNDS, LONG);
    for round in 1..=rounds {
        prepare();
        let mut one = quiet(home, id, first).spawn().unwrap();
        std::thread::park_timeout(Duration::from_micros(dice.below(30_000)));
        let mut other = quiet(home, id, second).spawn().unwrap();
        ended(&mut one);
        ended(&mut other);
        residue::remove(home, id);
        scale::progress(
            &format!("{} against {}", first[0], second[0]),
            round,
            rounds,
        );
    }
}

struct Scene {
    home: Home,
    id: String,
    bundle: Bundle,
}

fn scene() -> Scene {
    let home = Home::new();
    let id = home.id();
    let bundle = residue::sleeper(&id);
    Scene { home, id, bundle }
}

#[test]
fn one_of_sixteen_that_create_at_once_wins_and_the_others_leave_nothing() {
    need!(root, cgroup2);
    let Scene { home, id, bundle } = scene();
    for _ in 0..scale::times(3, LONG) {
        let words = ["create", "-b", bundle.path().to_str().unwrap(), &id];
        let mut attempts: Vec<_> = (0..16)
            .map(|_| quiet(&home, &id, words).spawn().unwrap())
            .collect();
        let won = attempts
            .iter_mut()
            .map(ended)
            .filter(|status| status.success())
            .count();
        assert_eq!(won, 1);
        assert_eq!(residue::processes(&id).len(), 1);
        home.bulkhead(["start", &id]).ok();
        residue::remove(&home, &id);
    }
}

#[test]
fn create_against_delete_leaves_nothing() {
    need!(root, cgroup2);
    let Scene { home, id, bundle } = scene();
    let create = ["create", "-b", bundle.path().to_str().unwrap(), &id];
    against(&home, &id, &create, &["delete", "--force", &id], || ());
}

#[test]
fn start_against_delete_leaves_nothing() {
    need!(root, cgroup2);
    let Scene { home, id, bundle } = scene();
    against(
        &home,
        &id,
        &["start", &id],
        &["delete", "--force", &id],
        || home.create(&bundle, &id),
    );
}

#[test]
fn exec_against_delete_leaves_nothing() {
    need!(root, cgroup2);
    let Scene { home, id, bundle } = scene();
    let exec = ["exec", &id, "sleep", "999"];
    against(&home, &id, &exec, &["delete", "--force", &id], || {
        home.start(&bundle, &id)
    });
}

#[test]
fn kill_against_exec_leaves_nothing() {
    need!(root, cgroup2);
    let Scene { home, id, bundle } = scene();
    against(
        &home,
        &id,
        &["kill", &id, "KILL"],
        &["exec", &id, "true"],
        || home.start(&bundle, &id),
    );
}

#[test]
fn pause_against_delete_leaves_nothing() {
    need!(root, cgroup2);
    let Scene { home, id, bundle } = scene();
    against(
        &home,
        &id,
        &["pause", &id],
        &["delete", "--force", &id],
        || home.start(&bundle, &id),
    );
}

#[test]
fn sixteen_execs_at_once_exit_each_with_its_own_status() {
    need!(root, cgroup2);
    let Scene { home, id, bundle } = scene();
    home.start(&bundle, &id);
    let program = |number| {
        let script = format!("exit {number}");
        let mut exec = quiet(&home, &id, ["exec", &id, "sh", "-c", &script]);
        exec.spawn().unwrap()
    };
    for _ in 0..scale::times(1, 60) {
        let mut programs: Vec<_> = (0..16).map(program).collect();
        let statuses: Vec<_> = programs
            .iter_mut()
            .map(|child| ended(child).code())
            .collect();
        assert_eq!(statuses, (0..16).map(Some).collect::<Vec<_>>());
    }
    residue::remove(&home, &id);
}
