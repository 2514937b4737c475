//! Tells the service manager that a workspace is ready, when the workspace says so (`sd_notify(3)`).
//!
//! The manager's own socket is not handed in: what the program says there goes to a socket of ours, and only its
//! readiness is passed on, with the number that the manager can see.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::fs::Mode;
use rustix::fs::OFlags;

use crate::spec::Spec;
use crate::spec::mounts::Mount;
use crate::sys::Errno;
use crate::sys::socket;
use crate::workspace::store::Home;

/// The directory in the workspace's home that is mounted inside.
const DIRECTORY: &str = "notify";
/// The socket in it.
const SOCKET: &str = "notify.sock";
/// Where that directory is mounted.
const INSIDE: &str = "/run/notify";
/// Longest message that is read; the manager's own limit is as large.
const LONGEST: usize = 4096;

/// A socket on which a workspace says that it is ready.
#[derive(Debug)]
pub struct Notify {
    socket: OwnedFd,
    manager: PathBuf,
}

/// The service manager's socket, when there is a manager that waits.
#[must_use]
pub fn manager() -> Option<PathBuf> {
    let path: Option<OsString> = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty());
    path.map(PathBuf::from)
}

/// Completes the configuration of a workspace at `home`: where its socket will be, and where to find it inside.
pub fn prepare(spec: &mut Spec, home: &Path) {
    let options = ["bind", "nosuid", "noexec", "nodev", "ro"]
        .map(str::to_owned)
        .to_vec();
    spec.mounts.push(Mount {
        destination: INSIDE.into(),
        kind: "bind".to_owned(),
        source: home.join(DIRECTORY).display().to_string(),
        options,
        ..Mount::default()
    });
    spec.process
        .env
        .push(format!("NOTIFY_SOCKET={INSIDE}/{SOCKET}"));
}

/// Completes the configuration of a workspace that has been made, as it was completed when it was.
pub(super) fn prepare_again(spec: &mut Spec, home: &Home) {
    if home.path().join(DIRECTORY).is_dir() {
        prepare(spec, home.path());
    }
}

/// Makes the directory that [`prepare`] promised.
///
/// # Errors
///
/// Fails as `mkdirat(2)` does.
pub fn make(home: &Home) -> Result<(), Errno> {
    rustix::fs::mkdirat(home, DIRECTORY, Mode::from(0o755))
}

impl Notify {
    /// Makes the socket of a workspace that was [`prepare`]d so; nothing when it was not.
    ///
    /// # Errors
    ///
    /// Fails when the socket cannot be made.
    pub fn open(home: &Home, manager: PathBuf) -> Result<Option<Self>, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = match rustix::fs::openat(home, DIRECTORY, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            answer => answer?,
        };
        let socket = socket::bind_datagram(directory.as_fd(), SOCKET)?;
        // Whoever runs inside may speak; nobody else reaches the directory.
        rustix::fs::chmodat(
            &directory,
            SOCKET,
            Mode::from(0o777),
            rustix::fs::AtFlags::empty(),
        )?;
        Ok(Some(Self { socket, manager }))
    }

    /// Waits until the workspace is ready, or has ended.
    ///
    /// # Errors
    ///
    /// Fails as `poll(2)` does.
    pub fn wait(&self, init: BorrowedFd<'_>, pid: i32) -> Result<(), Errno> {
        loop {
            let mut watched = [
                PollFd::new(&self.socket, PollFlags::IN),
                PollFd::new(&init, PollFlags::IN),
            ];
            match rustix::event::poll(&mut watched, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
            let ended = !watched[1].revents().is_empty();
            let said = !watched[0].revents().is_empty();
            if (said && self.pass_on(pid)) || ended {
                return Ok(());
            }
        }
    }

    /// Reads one message; when it says that the workspace is ready, tells the manager so and gives `true`.
    ///
    /// A manager that has gone is not the workspace's failure.
    #[must_use]
    pub fn pass_on(&self, pid: i32) -> bool {
        let mut message = [0; LONGEST];
        let Ok(length) = socket::receive(self.socket.as_fd(), &mut message) else {
            return false;
        };
        let ready = message[..length]
            .split(|byte| *byte == b'\n')
            .any(|line| line == b"READY=1");
        if ready && let Ok(manager) = socket::connect_datagram(&self.manager) {
            let text = format!("READY=1\nMAINPID={pid}\n");
            socket::send(manager.as_fd(), text.as_bytes()).unwrap_or_default();
        }
        ready
    }
}

impl AsFd for Notify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
