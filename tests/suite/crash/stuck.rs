//! Processes that the kernel does not let go, mounts that take long to go, terminals that hang up.

use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use nix::mount::MntFlags;
use nix::mount::MsFlags;
use rustix::fs::Mode;
use rustix::fs::OFlags;

use super::ended;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::home::eventually;
use crate::support::residue;
use crate::support::residue::marked;
use crate::support::residue::quiet;

/// How long a command may wait for what does not come; the rest is for a busy host.
const LONGEST: Duration = Duration::from_secs(10);

/// The requests of `fuse(4)` that are answered or told apart here.
const LOOKUP: u32 = 1;
const GETATTR: u32 = 3;
const INIT: u32 = 26;

/// A file system that says what its root is, and never answers when somebody looks for a file in it.
struct Hanging {
    place: PathBuf,
    asked: Arc<Mutex<bool>>,
    server: Option<JoinHandle<()>>,
}

impl Hanging {
    #[expect(clippy::disallowed_methods, reason = "a directory of the test's own")]
    fn new(place: PathBuf) -> Self {
        std::fs::create_dir_all(&place).unwrap();
        let device =
            rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,allow_other",
            device.as_raw_fd()
        );
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        nix::mount::mount(
            Some("hanging"),
            &place,
            Some("fuse"),
            flags,
            Some(&*options),
        )
        .unwrap();
        let asked = Arc::new(Mutex::new(false));
        let note = Arc::clone(&asked);
        Self {
            place,
            asked,
            server: Some(std::thread::spawn(move || serve(&device, &note))),
        }
    }

    /// Whether somebody waits for an answer.
    fn asked(&self) -> bool {
        *self.asked.lock().unwrap()
    }

    /// Lets everybody go who waits: the connection ends, whoever else has it mounted.
    fn give_up(&mut self) {
        nix::mount::umount2(&self.place, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH)
            .unwrap_or_default();
        if let Some(server) = self.server.take() {
            server.join().unwrap();
        }
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        self.give_up();
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Answers what has to be answered; ends when the connection does.
fn serve(device: &OwnedFd, asked: &Mutex<bool>) {
    let mut request = vec![0; 1 << 17];
    while let Ok(length) = rustix::io::read(device, &mut request) {
        if length < 40 {
            return;
        }
        let unique = &request[8..16];
        let answer = match word(&request, 4) {
            INIT => initial(),
            GETATTR => attributes(),
            LOOKUP => {
                *asked.lock().unwrap() = true;
                continue;
            }
            _ => {
                let refused = [
                    &16u32.to_ne_bytes()[..],
                    &(-libc::ENOSYS).to_ne_bytes(),
                    unique,
                ]
                .concat();
                rustix::io::write(device, &refused).unwrap_or_default();
                continue;
            }
        };
        let whole = u32::try_from(16 + answer.len()).unwrap();
        let reply = [
            &whole.to_ne_bytes()[..],
            &0i32.to_ne_bytes(),
            unique,
            &answer,
        ]
        .concat();
        rustix::io::write(device, &reply).unwrap_or_default();
    }
}

/// `struct fuse_init_out`.
fn initial() -> Vec<u8> {
    let mut answer = vec![0; 64];
    answer[0..4].copy_from_slice(&7u32.to_ne_bytes());
    answer[4..8].copy_from_slice(&31u32.to_ne_bytes());
    answer[20..24].copy_from_slice(&4096u32.to_ne_bytes());
    answer
}

/// `struct fuse_attr_out` of a directory that everybody may enter.
fn attributes() -> Vec<u8> {
    let mut answer = vec![0; 104];
    answer[0..8].copy_from_slice(&3600u64.to_ne_bytes());
    answer[16..24].copy_from_slice(&1u64.to_ne_bytes());
    answer[76..80].copy_from_slice(&0o40755u32.to_ne_bytes());
    answer[80..84].copy_from_slice(&2u32.to_ne_bytes());
    answer
}

/// Runs a command that must fail in time, and gives what it said.
#[track_caller]
fn refused_in_time(home: &Home, words: &[&str]) -> String {
    let begun = Instant::now();
    let said = home.bulkhead(words).failed();
    assert!(
        begun.elapsed() < LONGEST,
        "{words:?} took {:?}: {said}",
        begun.elapsed()
    );
    said
}

#[test]
fn a_process_that_the_kernel_does_not_let_go_is_told_of_in_time_and_removed_when_it_can_be() {
    need!(root, cgroup2, fuse);
    let home = Home::new();
    let id = home.id();
    let mut hanging = Hanging::new(home.beside("hanging"));
    let bundle = residue::sleeper(&id).with(|config| {
        let mount = serde_json::json!({
            "destination": "/hanging", "source": hanging.place.to_str().unwrap(), "options": ["bind"],
        });
        config["mounts"].as_array_mut().unwrap().push(mount);
    });
    home.start(&bundle, &id);
    let mut reads = quiet(&home, &id, ["exec", &id, "cat", "/hanging/file"])
        .spawn()
        .unwrap();
    eventually("the question", || hanging.asked());
    let paused = refused_in_time(&home, &["pause", &id]);
    assert!(paused.contains("frozen"), "{paused}");
    assert_eq!(home.status(&id), "running");
    let deleted = refused_in_time(&home, &["delete", "--force", &id]);
    assert!(
        deleted.contains("empty") && deleted.contains(&id),
        "{deleted}"
    );
    hanging.give_up();
    ended(&mut reads);
    residue::remove(&home, &id);
}

#[test]
fn an_unmount_that_takes_long_is_waited_for_and_leaves_nothing() {
    need!(root, cgroup2, strace);
    let home = Home::new();
    let id = home.id();
    let bundle = residue::sleeper(&id);
    let plain = home.command();
    let mut create = marked(Command::new("strace"), &id);
    create.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=umount2"]);
    create.args(["-e", "inject=umount2:delay_enter=2000000"]);
    create.arg(plain.get_program()).args(plain.get_args());
    create.args(["run", "-b", bundle.path().to_str().unwrap(), &id]);
    create.stdin(Stdio::null()).stdout(Stdio::null());
    let mut create = create.stderr(Stdio::null()).spawn().unwrap();
    eventually("its program", || {
        let said = home.bulkhead(["state", &id]);
        said.out.contains("\"status\": \"running\"")
    });
    home.bulkhead(["kill", &id, "KILL"]).ok();
    ended(&mut create);
    residue::remove(&home, &id);
}

#[test]
fn a_terminal_that_hangs_up_ends_who_was_in_front_of_it() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = home.id();
    let script = "trap 'exit 3' HUP; while :; do sleep 1; done";
    let bundle = residue::mark(Bundle::shell(script), &id);
    let bundle = bundle.with(|config| config["process"]["terminal"] = true.into());
    let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
    let master = rustix::pty::openpt(flags | rustix::pty::OpenptFlags::CLOEXEC).unwrap();
    rustix::pty::grantpt(&master).unwrap();
    rustix::pty::unlockpt(&master).unwrap();
    let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
    let plain = home.command();
    let mut run = marked(Command::new("setsid"), &id);
    run.args(["--ctty", "--wait"])
        .arg(plain.get_program())
        .args(plain.get_args());
    run.args(["run", "-b", bundle.path().to_str().unwrap(), &id]);
    let open = || {
        std::fs::File::options()
            .read(true)
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap()
    };
    run.stdin(open()).stdout(open()).stderr(open());
    let mut run = run.spawn().unwrap();
    eventually("its program", || {
        residue::processes(&id)
            .iter()
            .any(|line| line.contains("sleep 1 "))
    });
    drop(master);
    ended(&mut run);
    residue::remove(&home, &id);
}
