//! What a workspace may leave on the host, and where a test looks for it.
//!
//! Everything that is made for a workspace carries its id: the names of directories, cgroups and sockets, and here the
//! environment of every process, the runtime's own included.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use super::bundle::Bundle;
use super::home::Home;

/// The variable by which a test's processes are known.
pub(crate) const MARK: &str = "BULKHEAD_TEST_WORKSPACE";

/// Where cgroup2 may be mounted.
const CGROUPS: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

/// Marks what a command and its workspace run as belonging to `id`.
pub(crate) fn marked(mut command: Command, id: &str) -> Command {
    command.env(MARK, id);
    command
}

/// A bundle whose program sleeps and carries the mark of `id`.
pub(crate) fn sleeper(id: &str) -> Bundle {
    mark(Bundle::new(&["sleep", "1000"]), id)
}

/// A bundle whose processes carry the mark of `id`.
pub(crate) fn mark(bundle: Bundle, id: &str) -> Bundle {
    bundle.with(|config| {
        let env = config["process"]["env"].as_array_mut().unwrap();
        env.push(format!("{MARK}={id}").into());
    })
}

/// Everything of workspace `id` that is still there, a line each.
pub(crate) fn of(home: &Home, id: &str) -> Vec<String> {
    let mut left = Vec::new();
    let state = home.root().join(id);
    if state.exists() {
        left.push(format!("directory {}", state.display()));
    }
    left.extend(processes(id));
    for mount in CGROUPS {
        groups(Path::new(mount), id, &mut left);
    }
    let here = home.root().display().to_string();
    for table in ["/proc/self/mountinfo", "/proc/net/unix"] {
        let lines = std::fs::read_to_string(table).unwrap();
        // The state root itself may be a file system of the test's own.
        let root = |line: &str| line.split(' ').nth(4) == Some(&here);
        let ours = |line: &&str| (line.contains(id) || line.contains(&here)) && !root(line);
        left.extend(
            lines
                .lines()
                .filter(ours)
                .map(|line| format!("{table}: {line}")),
        );
    }
    left
}

/// Removes a workspace twice by force; both must succeed, and nothing may be left.
#[track_caller]
pub(crate) fn remove(home: &Home, id: &str) {
    for _ in 0..2 {
        home.bulkhead(["delete", "--force", id]).ok();
    }
    assert_eq!(of(home, id), Vec::<String>::new());
}

/// Processes that carry the mark; one that has ended has no environment any more.
pub(crate) fn processes(id: &str) -> Vec<String> {
    let wanted = format!("{MARK}={id}");
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment
            .split(|byte| *byte == 0)
            .any(|pair| pair == wanted.as_bytes())
        {
            let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words).replace('\0', " ");
            found.push(format!("process {}: {words}", entry.path().display()));
        }
    }
    found
}

/// Whether a cgroup2 file system is mounted at a place.
fn is_cgroup2(mount: &Path) -> bool {
    mount.join("cgroup.controllers").exists()
}

/// The cgroups below a directory whose name has `id` in it.
pub(crate) fn groups(directory: &Path, id: &str, found: &mut Vec<String>) {
    if !is_cgroup2(directory) {
        return;
    }
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name().to_string_lossy().contains(id) {
            found.push(format!("cgroup {}", entry.path().display()));
        }
        groups(&entry.path(), id, found);
    }
}

/// A command with these words, marked, whose streams lead nowhere.
pub(crate) fn quiet<A: AsRef<OsStr>>(
    home: &Home,
    id: &str,
    words: impl IntoIterator<Item = A>,
) -> Command {
    let mut command = marked(home.command(), id);
    command
        .args(words)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    command
}
