//! However a machine ends: soon afterwards its workspace is stopped, says why, and leaves nothing behind.

use std::os::fd::AsFd;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use bulkhead::sys::process;

use super::Walled;
use crate::need;

/// How long a workspace may take to be stopped once its machine has begun to end.
const SOON: Duration = Duration::from_secs(1);
/// How long a kernel takes for its last words where every byte of them is emulated; elsewhere it is milliseconds.
const LAST_WORDS: Duration = Duration::from_secs(4);

/// Has a machine begin to end this way, which tells when that was, and looks at what is told of it.
#[track_caller]
#[expect(clippy::print_stdout, reason = "how long it took is what was asked")]
fn ends(name: &str, how: impl FnOnce(&Walled) -> Instant, why: Option<&str>) {
    let walled = Walled::started(":", |_| {});
    let processes = walled.processes();
    let keeper = process::open(processes["@keeper"]).unwrap();
    let mounts = || std::fs::read_to_string("/proc/1/mountinfo").unwrap();
    let before = mounts();
    let begun = how(&walled);
    assert!(
        process::ended_within(keeper.as_fd(), Some(8 * SOON)).unwrap(),
        "{name}: it goes on"
    );
    let took = begun.elapsed();
    println!("{name}: stopped after {took:?}");
    let words = if name == "panic" {
        LAST_WORDS
    } else {
        Duration::ZERO
    };
    assert!(took < SOON + words, "{name}: {took:?}");
    let state = walled.home.state(&walled.id);
    assert_eq!(state["status"], "stopped", "{name}");
    let told = state["annotations"]["dev.bulkhead.machine.ended"].as_str();
    match why {
        Some(why) => assert!(
            told.is_some_and(|told| told.contains(why)),
            "{name}: {state}"
        ),
        None => assert_eq!(told, None, "{name}"),
    }
    walled.removed(&processes);
    assert_eq!(mounts(), before, "{name}");
}

fn kills(part: &'static str) -> impl FnOnce(&Walled) -> Instant {
    move |walled| {
        let process = process::open(walled.processes()[part]).unwrap();
        let begun = Instant::now();
        process::signal(process.as_fd(), libc::SIGKILL).unwrap();
        begun
    }
}

#[test]
fn a_guest_that_panics_is_stopped_and_its_last_words_are_told() {
    need!(machine, kvm);
    let panics = |walled: &Walled| walled.orders("echo c >/proc/sysrq-trigger");
    ends("panic", panics, Some("the guest's kernel stopped: "));
}

#[test]
fn a_guest_that_resets_its_machine_or_switches_it_off_is_stopped() {
    need!(machine, kvm);
    let resets = |walled: &Walled| walled.orders("echo b >/proc/sysrq-trigger");
    ends("reset", resets, Some("the guest reset its machine"));
    let off = |walled: &Walled| walled.orders("echo o >/proc/sysrq-trigger");
    ends("power-off", off, Some("the guest switched its machine off"));
}

#[test]
fn a_machine_whose_process_or_file_server_is_killed_is_stopped() {
    need!(machine, kvm);
    ends("VMM", kills("@vmm"), Some("the VMM was killed by signal 9"));
    let words = "the file server was killed by signal 9";
    ends("file server", kills("@files"), Some(words));
}

#[test]
fn a_machine_whose_keeper_is_killed_ends_with_it() {
    need!(machine, kvm);
    // Nobody is left to say why.
    ends("keeper", kills("@keeper"), None);
}

#[test]
fn a_machine_whose_process_does_what_it_may_not_is_stopped_for_that() {
    need!(machine, kvm, strace);
    let takes_over = |walled: &Walled| {
        let vmm = walled.processes()["@vmm"].to_string();
        let mut hand = Command::new("strace")
            .args([
                "-qq",
                "-o",
                "/dev/null",
                "-e",
                "inject=all:error=EPERM",
                "-p",
                &vmm,
            ])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The hand takes its time to be there, and goes with the process that it held.
        hand.wait().unwrap();
        Instant::now()
    };
    let words = "the VMM made a system call that it may not make";
    ends("filter", takes_over, Some(words));
}
