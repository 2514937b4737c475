//! What holds a machine's process in holds: a system call that is not on the list of a thread ends all of it.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::time::Duration;
use std::time::Instant;

use serde_json::json;

use super::Machine;
use super::guest::Guest;
use super::jail::standing;
use crate::need;

/// How long the end of a process may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The thread of a process that has this name.
fn thread(pid: u32, name: &str) -> String {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let paths: Vec<PathBuf> = threads.map(|thread| thread.unwrap().path()).collect();
    let has = |path: &&PathBuf| std::fs::read_to_string(path.join("comm")).unwrap().trim() == name;
    let found = paths.iter().find(has);
    let found = found.unwrap_or_else(|| panic!("no thread {name}: {paths:?}"));
    found.file_name().unwrap().to_string_lossy().into_owned()
}

/// Waits for the end of a process, and no longer than it may take.
fn ended(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        let late = Instant::now() > deadline;
        if late {
            child.kill().unwrap();
        }
        assert!(!late, "the process goes on");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Each system call of the thread is made another one, which no list has: it is as if somebody else had got hold of it.
#[test]
fn a_call_that_a_thread_may_not_make_ends_the_process_whichever_thread_it_is() {
    need!(kvm, root, strace);
    for name in ["bulkhead", "vcpu0", "vcpu1"] {
        let guest = Guest::new().stands();
        let machine = Machine::of(&guest.pvh()).with("vcpus", json!(2));
        let mut child = standing(&machine);
        let thread = thread(child.id(), name);
        let mut hand = Command::new("strace")
            .args([
                "-qq",
                "-o",
                "/dev/null",
                "-e",
                "inject=all:error=EPERM",
                "-p",
            ])
            .arg(thread)
            .spawn()
            .unwrap();
        let status = ended(&mut child);
        assert_eq!(status.signal(), Some(libc::SIGSYS), "{name}: {status}");
        hand.wait().unwrap();
    }
}
