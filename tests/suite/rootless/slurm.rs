//! The calls of Slurm's `oci.conf`, word for word: by the job's user, and by root for the cleaning up.

use std::process::Command;
use std::process::Stdio;

use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Said;
use crate::support::home::eventually;
use crate::support::somebody::Somebody;
use crate::support::somebody::UID;
use crate::support::somebody::alone;

/// The patterns of a job's step, with everything filled in.
struct Patterns {
    runtime: String,
    id: String,
}

impl Patterns {
    fn new(user: &Somebody, task: &str) -> Self {
        let root = user.root().parent().unwrap().join("slurm");
        let runtime = format!(
            "{} --rootless=true --root={}",
            user.binary().display(),
            root.display()
        );
        Self {
            runtime,
            id: format!("node1.griduser.18.0.{task}"),
        }
    }

    fn run(&self, bundle: &str) -> String {
        format!("exec {} run {} -b {bundle}", self.runtime, self.id)
    }

    fn query(&self) -> String {
        format!("{} state {}", self.runtime, self.id)
    }

    fn kill(&self) -> String {
        format!("{} kill -a {}", self.runtime, self.id)
    }

    fn delete(&self) -> String {
        format!("{} delete --force {}", self.runtime, self.id)
    }
}

/// Root's call, with both streams in one, as Slurm reads them.
fn by_root(pattern: &str) -> Said {
    Command::new("/bin/sh")
        .args(["-c", &format!("{pattern} 2>&1")])
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .unwrap()
        .into()
}

fn by_user(user: &Somebody, pattern: &str) -> Command {
    let mut command = user.program("/bin/sh");
    command.args(["-c", pattern]);
    command
}

const WAITS: &str = "trap 'echo got; exit 3' TERM; echo ready; while :; do sleep 0.02; done";

#[test]
fn a_step_runs_is_queried_by_root_without_its_bundle_and_is_terminated() {
    need!(root);
    let user = Somebody::new();
    let patterns = Patterns::new(&user, "0");
    let bundle = alone(Bundle::shell(WAITS));
    let path = format!("{}/", bundle.path().display());
    let mut step = by_user(&user, &patterns.run(&path));
    let step = step
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("the step's start", || {
        by_root(&patterns.query()).out.contains("\"running\"")
    });
    std::fs::remove_file(bundle.path().join("config.json")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&by_root(&patterns.query()).ok()).unwrap();
    assert_eq!(state["status"], "running");
    // The trap may not be set yet when the step is running.
    std::thread::park_timeout(std::time::Duration::from_millis(200));
    let killed: Said = by_user(&user, &patterns.kill()).output().unwrap().into();
    killed.ok();
    let said: Said = step.wait_with_output().unwrap().into();
    assert_eq!(
        (said.status, said.out.as_str(), said.err.as_str()),
        (3, "ready\ngot\n", "")
    );
    by_root(&patterns.query()).failed();
    by_root(&patterns.delete()).ok();
}

#[test]
fn root_deletes_the_step_of_a_user_whose_runtime_was_killed() {
    need!(root);
    let user = Somebody::new();
    let patterns = Patterns::new(&user, "-1");
    let bundle = alone(Bundle::shell(WAITS));
    let mut step = by_user(&user, &patterns.run(bundle.path().to_str().unwrap()));
    let mut step = step
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the step's start", || {
        by_root(&patterns.query()).out.contains("\"running\"")
    });
    step.kill().unwrap();
    step.wait().unwrap();
    drop(bundle);
    let state: serde_json::Value = serde_json::from_str(&by_root(&patterns.query()).ok()).unwrap();
    assert_eq!(state["id"], "node1.griduser.18.0.-1");
    let pid = i32::try_from(state["pid"].as_i64().unwrap()).unwrap();
    by_root(&patterns.delete()).ok();
    by_root(&patterns.delete()).ok();
    assert!(!crate::support::home::lives(pid));
}

#[test]
fn root_itself_may_be_said_to_be_rootless() {
    need!(root, cgroup2);
    let user = Somebody::new();
    let patterns = Patterns::new(&user, "4294967291");
    let bundle = alone(Bundle::shell("id -u; cat /proc/self/uid_map; exit 4"));
    let said: Said = Command::new("/bin/sh")
        .args(["-c", &patterns.run(bundle.path().to_str().unwrap())])
        .stdin(Stdio::null())
        .output()
        .unwrap()
        .into();
    let words: Vec<&str> = said.out.split_whitespace().collect();
    assert_eq!(words, ["0", "0", &UID.to_string(), "1"], "{}", said.err);
    assert_eq!(said.status, 4);
    by_root(&patterns.delete()).ok();
}
