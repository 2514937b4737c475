//! Drives those who call an OCI runtime, with ours in runc's place, and looks at what they report.
//!
//! podman, containerd and Docker are Debian's own, in the test machine; the image is busybox, made
//! on the spot. `BULKHEAD_STAND_IN` names another runtime to test with, which tells whether a
//! failure is ours: each of these tests has passed with runc.

mod containerd;
mod docker;
mod podman;
mod rootless;

use std::env;
use std::fmt;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;
use std::time::Instant;

use crate::support::wall;

/// Where everything that these tests store is; the machine's disk is thrown away with it.
const HOME: &str = "/var/tmp/callers";

/// What the image is called in every store it is put in.
const IMAGE: &str = "bb:1";

/// The runtime under test.
fn runtime() -> String {
    static GUESTS: OnceLock<()> = OnceLock::new();
    if wall::is_microvm() {
        GUESTS.get_or_init(wall::with_guests_of_the_system);
    }
    let ours = || wall::program().display().to_string();
    env::var("BULKHEAD_STAND_IN").unwrap_or_else(|_| ours())
}

/// How a command ended and what it said.
#[derive(Debug)]
struct Said {
    status: Option<i32>,
    out: String,
    err: String,
}

impl fmt::Display for Said {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "status {:?}\n{}\n{}", self.status, self.out, self.err)
    }
}

impl Said {
    /// What was printed, once the command is seen to have succeeded.
    #[track_caller]
    fn fine(self) -> String {
        assert_eq!(self.status, Some(0), "{self}");
        self.out.trim_end().to_owned()
    }
}

/// Runs a command to its end, with nothing to read.
fn ask(command: &mut Command) -> Said {
    let output = command.stdin(Stdio::null()).output().unwrap();
    Said {
        status: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Looks every now and then whether something has come true, for what no event tells.
#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !is_so() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        ask(Command::new("sleep").arg("0.1"));
    }
}

/// A busybox root file system, made once.
fn rootfs() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let root = Path::new(HOME).join("rootfs");
        for dir in ["bin", "etc", "tmp", "proc", "sys", "dev", "root"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\n").unwrap();
        ask(Command::new("chroot")
            .arg(&root)
            .args(["/bin/busybox", "--install", "-s", "/bin"]))
        .fine();
        root
    })
}

/// The same as a tar archive, which is what the stores import.
fn archive() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let archive = Path::new(HOME).join("rootfs.tar");
        ask(Command::new("tar")
            .arg("-C")
            .arg(rootfs())
            .arg("-cf")
            .arg(&archive)
            .arg("."))
        .fine();
        archive
    })
}

/// Starts a daemon that ends with the machine, its output in a file of its own.
fn start_daemon(program: &[&str], log: &str) {
    let log = fs::File::create(Path::new(HOME).join(log)).unwrap();
    let copy = log.try_clone().unwrap();
    let mut command = Command::new("setsid");
    command.arg("--fork").args(program);
    command.stdin(Stdio::null()).stdout(log).stderr(copy);
    assert!(command.status().unwrap().success());
}
