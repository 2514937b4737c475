//! Hooks that hang, streams that are closed or full, a root directory that cannot be written.

use std::os::fd::AsFd;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use rustix::fs::OFlags;

use super::ended;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::home::eventually;
use crate::support::residue;
use crate::support::residue::MARK;
use crate::support::residue::marked;
use crate::support::residue::quiet;
use crate::support::wall;

/// A bundle with a hook that sleeps, on the host's side.
fn hanging(id: &str, kind: &str, timeout: Option<u32>) -> Bundle {
    residue::sleeper(id).with(|config| {
        config["hooks"][kind] = serde_json::json!([{
            "path": "/bin/sleep", "args": ["sleep", "500"], "env": [format!("{MARK}={id}")], "timeout": timeout,
        }]);
    })
}

#[test]
fn a_hook_that_hangs_is_killed_after_its_timeout_and_nothing_is_left() {
    need!(root, cgroup2);
    let home = Home::new();
    for kind in ["prestart", "createRuntime", "poststart"] {
        let id = home.id();
        let bundle = hanging(&id, kind, Some(1));
        let begun = Instant::now();
        let refused = home
            .bulkhead(["run", "-b", bundle.path().to_str().unwrap(), &id])
            .failed();
        assert!(
            refused.contains("longer than its timeout of 1 s"),
            "{kind}: {refused}"
        );
        assert!(begun.elapsed() < Duration::from_secs(90), "{kind}");
        residue::remove(&home, &id);
    }
}

#[test]
fn a_hook_that_hangs_for_good_ends_with_the_deletion() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = home.id();
    let bundle = hanging(&id, "createRuntime", None);
    let words = ["create", "-b", bundle.path().to_str().unwrap(), &id];
    let mut create = quiet(&home, &id, words).spawn().unwrap();
    eventually("the hook's start", || {
        residue::processes(&id)
            .iter()
            .any(|line| line.contains("500"))
    });
    home.bulkhead(["delete", "--force", &id]).ok();
    ended(&mut create);
    residue::remove(&home, &id);
}

#[test]
fn a_hook_ends_with_the_runtime_that_was_killed() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = home.id();
    let bundle = hanging(&id, "createRuntime", None);
    let words = ["create", "-b", bundle.path().to_str().unwrap(), &id];
    let mut create = quiet(&home, &id, words).spawn().unwrap();
    eventually("the hook's start", || {
        residue::processes(&id)
            .iter()
            .any(|line| line.contains("500"))
    });
    create.kill().unwrap();
    ended(&mut create);
    residue::remove(&home, &id);
}

#[test]
fn a_create_that_was_killed_keeps_nobody_waiting() {
    need!(root, cgroup2, strace);
    let home = Home::new();
    let id = home.id();
    let bundle = residue::sleeper(&id);
    let words = [
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "inject=flock:signal=SIGKILL:when=2",
    ];
    let plain = home.command();
    let mut create = marked(std::process::Command::new("strace"), &id);
    create
        .args(words)
        .arg(plain.get_program())
        .args(plain.get_args());
    create.args(["create", "-b", bundle.path().to_str().unwrap(), &id]);
    create
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    assert!(!ended(&mut create.spawn().unwrap()).success());
    assert_eq!(home.status(&id), "created");
    assert!(ended(&mut quiet(&home, &id, ["start", &id]).spawn().unwrap()).success());
    residue::remove(&home, &id);
}

#[test]
fn closed_standard_streams_are_no_hindrance() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = home.id();
    let bundle = residue::sleeper(&id);
    let plain = home.command();
    let mut shell = marked(std::process::Command::new("/bin/sh"), &id);
    shell
        .args(["-c", "exec \"$@\" <&- >&- 2>&-", "sh"])
        .arg(plain.get_program())
        .args(plain.get_args());
    shell.args(["create", "-b", bundle.path().to_str().unwrap(), &id]);
    assert!(ended(&mut shell.spawn().unwrap()).success());
    home.bulkhead(["start", &id]).ok();
    assert_eq!(home.bulkhead(["exec", &id, "echo", "here"]).ok(), "here\n");
    residue::remove(&home, &id);
}

#[test]
fn a_full_pipe_on_standard_error_keeps_nothing_from_being_removed() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = home.id();
    let (reads, writes) = std::io::pipe().unwrap();
    rustix::fs::fcntl_setfl(&writes, OFlags::NONBLOCK).unwrap();
    while rustix::io::write(writes.as_fd(), &[b'x'; 4096]).is_ok() {}
    rustix::fs::fcntl_setfl(&writes, OFlags::empty()).unwrap();
    let bundle = residue::mark(Bundle::new(&["/no/such/program"]), &id);
    let mut create = quiet(
        &home,
        &id,
        ["create", "-b", bundle.path().to_str().unwrap(), &id],
    );
    let mut create = create.stderr(writes).spawn().unwrap();
    eventually("the removal", || {
        residue::processes(&id).len() == 1 && !home.root().join(&id).exists()
    });
    drop(reads);
    ended(&mut create);
    residue::remove(&home, &id);
}

#[test]
fn a_state_root_that_cannot_be_written_is_named_and_nothing_is_made() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = home.id();
    let bundle = residue::sleeper(&id);
    let mut command = marked(std::process::Command::new(wall::built()), &id);
    command
        .args(["--root", "/proc/no-such-place", "run", "-b"])
        .arg(bundle.path())
        .arg(&id);
    let refused: crate::support::home::Said = command.output().unwrap().into();
    assert!(refused.failed().contains("/proc/no-such-place"));
    assert_eq!(residue::of(&home, &id), Vec::<String>::new());
}
