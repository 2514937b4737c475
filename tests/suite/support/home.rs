//! A state root of a test's own, the binary that is tested, and the end of everything that was made with it.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use super::bundle::Bundle;
use super::wall;

/// A state root; workspaces that a test leaves in it are removed with it.
#[derive(Debug)]
pub(crate) struct Home {
    directory: tempfile::TempDir,
}

/// What a command said, and its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    /// Its exit status, or 128 + the signal that ended it.
    pub(crate) status: i32,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

impl Said {
    /// Its standard output, when it succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.status, 0, "{}", self.err);
        self.out
    }

    /// Its standard error, when it failed.
    #[track_caller]
    pub(crate) fn failed(self) -> String {
        assert_ne!(self.status, 0, "it succeeded: {}", self.out);
        self.err
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let signal = output.status.signal().map(|signal| 128 + signal);
        Self {
            status: output.status.code().or(signal).unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Home {
    /// An empty state root.
    pub(crate) fn new() -> Self {
        let home = Self {
            directory: tempfile::Builder::new()
                .prefix("bulkhead-test-")
                .tempdir()
                .unwrap(),
        };
        if wall::is_microvm() {
            wall::with_guests(&home.root());
        }
        home
    }

    /// A path below a directory that goes with this value, beside the state root.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The state root.
    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// A name that no other test has: cgroups are named after it.
    pub(crate) fn id(&self) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        format!(
            "test-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        )
    }

    /// The binary with this state root, to be given more.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(wall::program());
        command.arg("--root").arg(self.root()).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn bulkhead<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Said {
        self.command().args(args).output().unwrap().into()
    }

    /// Runs a command with text on its standard input.
    pub(crate) fn bulkhead_reading(&self, args: &[&str], input: &str) -> Said {
        let mut command = self.command();
        command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let written = child.stdin.take().unwrap().write_all(input.as_bytes());
        let said: Said = child.wait_with_output().unwrap().into();
        // One that does not read says why.
        assert!(written.is_ok(), "{written:?}: {said:?}");
        said
    }

    /// Makes a workspace, with standard streams that lead nowhere, as a caller that goes on would.
    #[track_caller]
    pub(crate) fn create(&self, bundle: &Bundle, id: &str) {
        let mut command = self.command();
        command
            .arg("create")
            .arg("--bundle")
            .arg(bundle.path())
            .arg(id);
        let errors = self.beside(&format!("{id}.err"));
        command
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&errors).unwrap());
        let status = command.status().unwrap();
        assert!(
            status.success(),
            "{}",
            std::fs::read_to_string(errors).unwrap()
        );
    }

    /// Makes a workspace and starts its program.
    #[track_caller]
    pub(crate) fn start(&self, bundle: &Bundle, id: &str) {
        self.create(bundle, id);
        self.bulkhead(["start", id]).ok();
    }

    /// Runs a bundle to its end.
    pub(crate) fn run(&self, bundle: &Bundle) -> Said {
        let id = self.id();
        self.bulkhead([
            OsStr::new("run"),
            OsStr::new("-b"),
            bundle.path().as_os_str(),
            OsStr::new(&id),
        ])
    }

    /// The state of a workspace.
    #[track_caller]
    pub(crate) fn state(&self, id: &str) -> serde_json::Value {
        serde_json::from_str(&self.bulkhead(["state", id]).ok()).unwrap()
    }

    /// The status in it.
    #[track_caller]
    pub(crate) fn status(&self, id: &str) -> String {
        self.state(id)["status"].as_str().unwrap().to_owned()
    }

    /// The number of its first process.
    #[track_caller]
    pub(crate) fn pid(&self, id: &str) -> i32 {
        i32::try_from(self.state(id)["pid"].as_i64().unwrap()).unwrap()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.root())
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"@"))
        {
            let removed = self.bulkhead([
                OsStr::new("delete"),
                OsStr::new("--force"),
                &entry.file_name(),
            ]);
            assert!(
                removed.status == 0 || std::thread::panicking(),
                "left behind: {}",
                removed.err
            );
        }
    }
}

/// How long something may take on a machine of software that others use too; far more than it does take.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(90);

/// Waits until `done` holds, by looking again and again: for what gives no event to wait for.
#[track_caller]
pub(crate) fn eventually(what: &str, done: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !done() {
        assert!(
            std::time::Instant::now() < deadline,
            "{what} did not happen"
        );
        std::thread::park_timeout(std::time::Duration::from_millis(2));
    }
}

/// Whether a process of this number is there and not only waiting to be collected.
pub(crate) fn lives(pid: i32) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"))
        .unwrap_or_default();
    let state = stat
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}
