//! The kernel refuses, or the runtime is killed, at each step: nothing is left.

use std::process::Command;
use std::process::Stdio;

use super::bridged;
use super::left;
use super::port;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::residue;

/// A workspace with everything: a port, rates, addresses of both kinds.
fn whole() -> Bundle {
    let publish = format!("{}:5000", port());
    bridged(
        "sleep 1000",
        "net",
        &[
            ("network.publish", &publish),
            ("network.in.limit", "10mbit"),
            ("network.out.limit", "10mbit"),
        ],
    )
}

/// A command under strace with these options; gives what strace wrote, and whether it succeeded.
fn traced(home: &Home, options: &[&str], words: &[&str]) -> (String, bool) {
    let trace = home.beside("trace");
    let plain = home.command();
    let mut command = Command::new("strace");
    command.args(["-qq", "-o"]).arg(&trace).args(options);
    command
        .arg(plain.get_program())
        .args(plain.get_args())
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let status = command.status().unwrap();
    let text = std::fs::read_to_string(trace).unwrap_or_default();
    (text, status.success())
}

/// Lets each call of a kind in turn do `fault`; a workspace that is not made leaves nothing, at once or after
/// `delete --force`.
fn each(call: &str, fault: &str, tidies_itself: bool) {
    let home = Home::new();
    let bundle = whole();
    let id = home.id();
    let filter = format!("trace={call}");
    let words = ["create", "-b", bundle.path().to_str().unwrap(), &id];
    let (text, made) = traced(&home, &["-e", &filter], &words);
    assert!(made);
    residue::remove(&home, &id);
    let calls = text.lines().filter(|line| line.contains(call)).count();
    assert!(calls > 0, "no {call} is made");
    let mut refused = 0;
    for number in 1..=calls {
        let inject = format!("inject={call}:{fault}:when={number}");
        let (_, made) = traced(&home, &["-e", &filter, "-e", &inject], &words);
        if !made && tidies_itself {
            assert_eq!(
                left(&home, &["net"], &[&id]),
                Vec::<String>::new(),
                "{call} {number}"
            );
        }
        refused += usize::from(!made);
        home.bulkhead(["delete", "--force", &id]).ok();
        assert_eq!(
            left(&home, &["net"], &[&id]),
            Vec::<String>::new(),
            "{call} {number}"
        );
    }
    assert!(refused > 0, "no {call} mattered");
}

#[test]
fn nothing_is_left_when_the_kernel_refuses_any_message() {
    need!(root, cgroup2, nft, strace);
    each("sendto", "error=ENOMEM", true);
}

#[test]
fn nothing_is_left_when_a_lease_cannot_be_written() {
    need!(root, cgroup2, nft, strace);
    each("rename", "error=ENOSPC", true);
}

/// Each thread counts its own calls, so the first ones are also those of the thread that goes inside.
fn inside(call: &str, fault: &str) {
    let home = Home::new();
    let id = home.id();
    let bundle = bridged("true", "net", &[]);
    let words = ["run", "-b", bundle.path().to_str().unwrap(), &id];
    for number in 1..=3 {
        let inject = format!("inject={call}:{fault}:when={number}");
        let filter = format!("trace={call}");
        traced(&home, &["-f", "-e", &filter, "-e", &inject], &words);
        home.bulkhead(["delete", "--force", &id]).ok();
        assert_eq!(
            left(&home, &["net"], &[&id]),
            Vec::<String>::new(),
            "{call} {number}"
        );
    }
}

#[test]
fn nothing_is_left_when_the_network_inside_cannot_be_entered_or_furnished() {
    need!(root, cgroup2, strace);
    inside("setns", "error=ENOMEM");
    inside("sendto", "error=ENOMEM");
    inside("sendto", "signal=SIGKILL");
}

#[test]
fn nothing_is_left_when_the_runtime_is_killed_at_any_message() {
    need!(root, cgroup2, nft, strace);
    each("sendto", "signal=SIGKILL", false);
}

#[test]
fn nothing_is_left_when_the_runtime_is_killed_at_any_lease() {
    need!(root, cgroup2, nft, strace);
    each("rename", "signal=SIGKILL", false);
}

#[test]
fn nothing_is_left_when_a_deletion_is_killed_at_any_message() {
    need!(root, cgroup2, nft, strace);
    let home = Home::new();
    let bundle = whole();
    let id = home.id();
    // Interfaces are removed by threads that send one message each.
    let threads = [("-f", 1), ("-f", 2)];
    for (more, number) in threads
        .into_iter()
        .chain((1..=12).map(|number| ("-qq", number)))
    {
        home.create(&bundle, &id);
        let inject = format!("inject=sendto:signal=SIGKILL:when={number}");
        let options = [more, "-e", "trace=sendto", "-e", &inject];
        traced(&home, &options, &["delete", "--force", &id]);
        home.bulkhead(["delete", "--force", &id]).ok();
        assert_eq!(
            left(&home, &["net"], &[&id]),
            Vec::<String>::new(),
            "{more} {number}"
        );
    }
}

#[test]
fn a_deletion_that_the_kernel_refuses_says_so_and_can_be_repeated() {
    need!(root, cgroup2, nft, strace);
    let home = Home::new();
    let bundle = whole();
    let id = home.id();
    home.create(&bundle, &id);
    let options = [
        "-f",
        "-e",
        "trace=sendto",
        "-e",
        "inject=sendto:error=ENOMEM:when=1",
    ];
    let (_, deleted) = traced(&home, &options, &["delete", "--force", &id]);
    assert!(!deleted);
    home.bulkhead(["delete", "--force", &id]).ok();
    assert_eq!(left(&home, &["net"], &[&id]), Vec::<String>::new());
}
