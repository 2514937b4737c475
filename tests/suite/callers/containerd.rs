//! containerd and its shim: `ctr run --runc-binary` through a container's whole life.

use std::process::Command;
use std::sync::OnceLock;

use super::Said;
use super::ask;
use super::rootfs;
use super::runtime;
use super::start_daemon;
use super::until;
use crate::need;

/// Starts the machine's one containerd, unless it is there.
pub(super) fn containerd() {
    static STARTED: OnceLock<()> = OnceLock::new();
    STARTED.get_or_init(|| {
        rootfs();
        start_daemon(&["containerd", "--log-level", "warn"], "containerd.log");
        until("containerd answers", || {
            ask(Command::new("ctr").arg("version")).status == Some(0)
        });
    });
}

fn ctr(args: &[&str]) -> Said {
    containerd();
    ask(Command::new("ctr").args(args))
}

/// `ctr run` of our root file system with our runtime.
fn run(options: &[&str], id: &str, program: &[&str]) -> Said {
    let root = rootfs().to_string_lossy();
    let runtime = runtime();
    let start = [
        "run",
        "--rootfs",
        "--runc-binary",
        &runtime,
        "--env",
        "PATH=/bin",
    ];
    ctr(&[&start, options, &[&root, id], program].concat())
}

/// A container that runs until it is removed with this value.
///
/// It sleeps in short pieces: a checkpoint interrupts busybox's `sleep`, which then ends.
struct Sleeper(&'static str);

impl Sleeper {
    #[track_caller]
    fn new(id: &'static str) -> Self {
        let program = ["sh", "-c", "while :; do sleep 1; done"];
        run(&["--detach"], id, &program).fine();
        Self(id)
    }

    fn state(&self) -> String {
        let tasks = ctr(&["tasks", "ls"]).fine();
        let line = tasks
            .lines()
            .find(|line| line.split_whitespace().next() == Some(self.0));
        line.and_then(|line| line.split_whitespace().nth(2))
            .unwrap_or("none")
            .to_owned()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        ctr(&["tasks", "rm", "--force", self.0]);
        ctr(&["containers", "rm", self.0]);
    }
}

#[test]
fn containerd_gets_the_output_and_the_status_of_a_container() {
    need!(machine);
    let said = run(&["--rm"], "said", &["sh", "-c", "echo out; exit 7"]);
    assert_eq!(
        (said.out.as_str(), said.status),
        ("out\n", Some(7)),
        "{said}"
    );
}

#[test]
fn containerd_tells_why_a_container_was_not_made() {
    need!(machine);
    let said = run(&["--rm"], "untold", &["/nonexistent"]);
    assert_ne!(said.status, Some(0), "{said}");
    assert!(said.err.contains("no such file or directory"), "{said}");
}

#[test]
fn containerd_execs_in_a_running_container() {
    need!(machine);
    let sleeper = Sleeper::new("execd");
    let said = ctr(&[
        "tasks",
        "exec",
        "--exec-id",
        "e1",
        sleeper.0,
        "sh",
        "-c",
        "echo inside; exit 5",
    ]);
    assert_eq!(
        (said.out.as_str(), said.status),
        ("inside\n", Some(5)),
        "{said}"
    );
    let missing = ctr(&[
        "tasks",
        "exec",
        "--exec-id",
        "e2",
        sleeper.0,
        "/nonexistent",
    ]);
    assert!(
        missing.err.contains("no such file or directory"),
        "{missing}"
    );
}

#[test]
fn containerd_pauses_and_resumes() {
    need!(machine);
    let sleeper = Sleeper::new("paused");
    ctr(&["tasks", "pause", sleeper.0]).fine();
    assert_eq!(sleeper.state(), "PAUSED");
    ctr(&["tasks", "resume", sleeper.0]).fine();
    assert_eq!(sleeper.state(), "RUNNING");
}

#[test]
fn containerd_kills_and_then_deletes() {
    need!(machine);
    let sleeper = Sleeper::new("killed");
    ctr(&["tasks", "kill", "--signal", "KILL", sleeper.0]).fine();
    until("the task has stopped", || sleeper.state() == "STOPPED");
    let deleted = ctr(&["tasks", "rm", sleeper.0]);
    assert!(deleted.err.contains("exit code 137"), "{deleted}");
    assert_eq!(sleeper.state(), "none");
}

#[test]
fn containerd_kills_every_process_of_a_container() {
    need!(machine);
    let sleeper = Sleeper::new("all");
    ctr(&[
        "tasks",
        "exec",
        "--detach",
        "--exec-id",
        "more",
        sleeper.0,
        "sleep",
        "1000",
    ]);
    ctr(&["tasks", "kill", "--all", "--signal", "KILL", sleeper.0]).fine();
    until("the task has stopped", || sleeper.state() == "STOPPED");
}

#[test]
fn containerd_deletes_a_running_container_by_force() {
    need!(machine);
    let sleeper = Sleeper::new("forced");
    ctr(&["tasks", "rm", "--force", sleeper.0]).fine();
    assert_eq!(sleeper.state(), "none");
}

#[test]
fn containerd_lists_and_counts() {
    need!(machine);
    let sleeper = Sleeper::new("counted");
    assert_eq!(ctr(&["tasks", "ps", sleeper.0]).fine().lines().count(), 3);
    assert!(
        ctr(&["tasks", "metrics", sleeper.0])
            .fine()
            .contains("memory.usage")
    );
}

#[test]
fn containerd_checkpoints_a_task_between_pause_and_resume() {
    need!(machine);
    let sleeper = Sleeper::new("dumped");
    ctr(&[
        "tasks",
        "checkpoint",
        "--image-path",
        "/var/tmp/callers/dumped",
        sleeper.0,
    ])
    .fine();
    assert_eq!(sleeper.state(), "RUNNING");
}
