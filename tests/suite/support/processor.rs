//! What a process has used of the processors.

use std::time::Duration;

/// For how long the threads of a process have been on a processor (`/proc/PID/task/TID/schedstat`, first field).
pub(crate) fn used(pid: u32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let threads = tasks.map(|task| {
        let text = std::fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
        let nanoseconds = text.split_whitespace().next().unwrap();
        Duration::from_nanos(nanoseconds.parse().unwrap())
    });
    threads.sum()
}
