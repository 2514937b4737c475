//! `run` and `wait`: staying with a workspace, and how its end is reported.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::process::Stdio;

use serde_json::json;

use bulkhead::sys::clone;
use bulkhead::sys::clone::Birth;
use bulkhead::sys::ending::Obituaries;
use bulkhead::sys::process;
use bulkhead::sys::process::Exit;

use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::home::eventually;

fn sleeper() -> Bundle {
    Bundle::new(&["sleep", "1000"])
}

#[test]
fn run_exits_as_its_program_does() {
    need!(root, cgroup2);
    let home = Home::new();
    let said = home.run(&Bundle::shell("echo out; echo err >&2; exit 7"));
    assert_eq!(
        (said.status, said.out.as_str(), said.err.as_str()),
        (7, "out\n", "err\n")
    );
    assert_eq!(
        home.run(&Bundle::shell("kill -9 $$; sleep 1")).status,
        0,
        "the first process is immune to itself"
    );
    assert_eq!(home.bulkhead(["list", "-q"]).ok(), "");
}

#[test]
fn run_reports_a_signal_as_a_shell_does() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), sleeper());
    let id = home.id();
    let mut command = home.command();
    let child = command
        .args(["run", "-b"])
        .arg(bundle.path())
        .arg(&id)
        .stdout(Stdio::null())
        .spawn();
    eventually("the start", || {
        home.bulkhead(["ps", &id]).out.contains("sleep 1000")
    });
    home.bulkhead(["kill", &id, "9"]).ok();
    assert_eq!(child.unwrap().wait().unwrap().code(), Some(137));
}

#[test]
fn run_passes_signals_on() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle =
        Bundle::shell("trap 'echo got; exit 9' TERM; echo ready; while true; do sleep 0.01; done");
    let mut command = home.command();
    command
        .args(["run", "-b"])
        .arg(bundle.path())
        .arg(home.id())
        .stdout(Stdio::piped());
    let child = command.spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let mut child = child;
    let mut reader = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut reader, &mut line).unwrap();
    assert_eq!(line, "ready\n");
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    std::io::Read::read_to_string(&mut reader, &mut line).unwrap();
    assert_eq!(line, "ready\ngot\n");
    assert_eq!(child.wait().unwrap().code(), Some(9));
}

#[test]
fn run_takes_options_after_the_id_and_a_config_elsewhere() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::shell("exit 1");
    let other = home.beside("other.json");
    let mut config = bundle.config.clone();
    config["process"]["args"] = json!(["sh", "-c", "exit 5"]);
    std::fs::write(&other, config.to_string()).unwrap();
    let id = home.id();
    let args: [&OsStr; 6] = [
        "run".as_ref(),
        id.as_ref(),
        "-b".as_ref(),
        bundle.path().as_ref(),
        "--config".as_ref(),
        other.as_ref(),
    ];
    assert_eq!(home.bulkhead(args).status, 5);
}

#[test]
fn run_keeps_a_workspace_that_is_to_be_kept() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::shell("exit 4");
    let id = home.id();
    let args: [&OsStr; 5] = [
        "run".as_ref(),
        "--keep".as_ref(),
        "-b".as_ref(),
        bundle.path().as_ref(),
        id.as_ref(),
    ];
    assert_eq!(home.bulkhead(args).status, 4);
    assert_eq!(home.status(&id), "stopped");
    assert_eq!(home.state(&id)["pid"], 0);
    assert_eq!(home.bulkhead(["wait", &id]).status, 4);
}

/// Whether a process holds a handle to another.
fn watches_a_process(pid: u32) -> bool {
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    let mut links = fds.filter_map(|fd| std::fs::read_link(fd.path()).ok());
    links.any(|link| link.to_string_lossy().contains("pidfd"))
}

#[test]
fn wait_exits_as_the_program_did() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::shell("while [ ! -e /go ]; do sleep 0.01; done; exit 6");
    let id = home.id();
    home.start(&bundle, &id);
    let mut waiting = home.command().args(["wait", &id]).spawn().unwrap();
    eventually("the wait", || watches_a_process(waiting.id()));
    std::fs::write(bundle.rootfs("/go"), "").unwrap();
    assert_eq!(waiting.wait().unwrap().code(), Some(6));
}

#[test]
fn the_end_of_a_process_that_is_nobodys_child_here_is_heard_of() {
    need!(root, first_network);
    let obituaries = Obituaries::begin().unwrap();
    let child = clone::spawn(Birth::default(), || 7).unwrap();
    process::ended_within(&child.pidfd, None).unwrap();
    process::wait(child.pidfd.as_fd()).unwrap();
    let heard = std::cell::Cell::new(None);
    eventually("the news", || {
        heard.set(heard.get().or(obituaries.of(child.pid)));
        heard.get().is_some()
    });
    assert_eq!(heard.get(), Some(Exit::Status(7)));
}
