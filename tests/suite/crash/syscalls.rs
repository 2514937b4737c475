//! The runtime, or the process that it makes, is killed at a given system call.
//!
//! strace counts the calls of each process by itself: with `-f` whoever comes to the number first is killed, which is
//! at times the workspace's first process; without, only the runtime.

use std::process::Command;
use std::process::Stdio;

use super::ended;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::residue;
use crate::support::residue::marked;

/// How many of a command's system calls are tried.
const SAMPLES: usize = 16;

/// A command under strace.
fn traced(home: &Home, id: &str, strace: &[&str], words: &[&str]) -> Command {
    let plain = home.command();
    let mut command = marked(Command::new("strace"), id);
    command
        .args(strace)
        .arg(plain.get_program())
        .args(plain.get_args())
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// The number of system calls that a command's own process makes.
fn calls(home: &Home, id: &str, words: &[&str]) -> usize {
    let trace = home.beside("trace");
    let mut whole = traced(home, id, &["-qq", "-o", trace.to_str().unwrap()], words);
    assert!(ended(&mut whole.spawn().unwrap()).success());
    std::fs::read_to_string(trace).unwrap().lines().count()
}

/// Kills a command at calls spread over the whole of it; `prepare` makes what it works on.
fn sample(extra: &[&str], words: &[&str], home: &Home, id: &str, prepare: impl Fn()) {
    prepare();
    let calls = calls(home, id, words);
    residue::remove(home, id);
    for sample in 0..SAMPLES {
        let number = 2 + sample * calls / SAMPLES;
        let inject = format!("inject=all:signal=SIGKILL:when={number}");
        let strace: Vec<&str> = ["-qq", "-o", "/dev/null", "-e", &inject]
            .iter()
            .chain(extra)
            .copied()
            .collect();
        prepare();
        ended(&mut traced(home, id, &strace, words).spawn().unwrap());
        residue::remove(home, id);
    }
}

fn scene() -> (Home, String, Bundle) {
    let home = Home::new();
    let id = home.id();
    let bundle = residue::sleeper(&id);
    (home, id, bundle)
}

fn path(bundle: &Bundle) -> &str {
    bundle.path().to_str().unwrap()
}

#[test]
fn the_runtime_may_die_at_any_call_of_create() {
    need!(root, cgroup2, strace);
    let (home, id, bundle) = scene();
    sample(
        &[],
        &["create", "-b", path(&bundle), &id],
        &home,
        &id,
        || (),
    );
}

#[test]
fn the_runtime_or_its_child_may_die_at_any_call_of_run() {
    need!(root, cgroup2, strace);
    let home = Home::new();
    let id = home.id();
    let bundle = residue::mark(Bundle::new(&["true"]), &id);
    sample(
        &["-f"],
        &["run", "-b", path(&bundle), &id],
        &home,
        &id,
        || (),
    );
}

#[test]
fn the_runtime_may_die_at_any_call_of_delete() {
    need!(root, cgroup2, strace);
    let (home, id, bundle) = scene();
    sample(&[], &["delete", "--force", &id], &home, &id, || {
        home.create(&bundle, &id);
    });
}

#[test]
fn the_runtime_may_die_at_any_call_of_start() {
    need!(root, cgroup2, strace);
    let (home, id, bundle) = scene();
    sample(&[], &["start", &id], &home, &id, || {
        home.create(&bundle, &id)
    });
}
