//! What the caller hands over and is handed back: descriptors to keep, the pid file, the pidfd.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::OnceLock;

use crate::sys::Errno;
use crate::sys::process;
use crate::sys::socket;

/// The first descriptor that can be handed on: those before are the standard streams.
const FIRST: u32 = 3;

/// Something could not be handed over.
#[derive(Debug, thiserror::Error)]
pub enum HandingError {
    /// Fewer descriptors are open than are to be handed on.
    #[error("--preserve-fds: descriptor {fd} is not open")]
    NotOpen {
        /// The first that is not.
        fd: u32,
    },
    /// `$LISTEN_FDS` is no number.
    #[error("$LISTEN_FDS: {value:?} is no number of descriptors")]
    ListenFds {
        /// As it was found.
        value: String,
    },
    /// A descriptor that `$LISTEN_FDS` counts is not there.
    #[error("$LISTEN_FDS: descriptor {fd} is not open, though $LISTEN_PID names this process")]
    ListenFd {
        /// The first that is not.
        fd: u32,
    },
    /// The pid file could not be written.
    #[error("--pid-file: cannot write {path:?}")]
    PidFile {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The pidfd could not be sent.
    #[error("--pidfd-socket: cannot send to {path:?}")]
    PidfdSocket {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// The console socket does not take connections.
    #[error("--console-socket: cannot connect to {path:?}")]
    ConsoleSocket {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
}

/// The descriptors that a program is handed beside its standard streams.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Descriptors {
    /// How many, from 3 on.
    pub count: u32,
    /// What its environment says of them.
    pub environment: Vec<String>,
}

impl Descriptors {
    /// Those of `$LISTEN_FDS` where `$LISTEN_PID` says that they are for this process (`sd_listen_fds(3)`), and `more`
    /// after them; all must have been handed over.
    ///
    /// # Errors
    ///
    /// [`HandingError::ListenFds`] or [`HandingError::ListenFd`] when the service manager's are not what it says,
    /// [`HandingError::NotOpen`] names the first of the others that is not open.
    pub fn find(more: u32) -> Result<Self, HandingError> {
        let [pid, count] = ["LISTEN_PID", "LISTEN_FDS"].map(|name| std::env::var(name).ok());
        let listen = listening(pid.as_deref(), count.as_deref(), addressed())?;
        let first = FIRST.saturating_add(listen);
        if let Some(fd) = (FIRST..first).find(|fd| !process::is_handed_over(*fd)) {
            return Err(HandingError::ListenFd { fd });
        }
        Ok(Self {
            count: listen + preserved(first, more)?,
            environment: told(listen),
        })
    }

    /// `count` of the caller's, and none of a service manager's: a program that joins is not what it has started.
    ///
    /// # Errors
    ///
    /// [`HandingError::NotOpen`] names the first that is not open.
    pub fn preserved(count: u32) -> Result<Self, HandingError> {
        Ok(Self {
            count: preserved(FIRST, count)?,
            environment: Vec::new(),
        })
    }
}

/// All of `count` descriptors from `first` on, if the caller has handed over each.
fn preserved(first: u32, count: u32) -> Result<u32, HandingError> {
    let end = first
        .checked_add(count)
        .ok_or(HandingError::NotOpen { fd: first })?;
    match (first..end).find(|fd| !process::is_handed_over(*fd)) {
        Some(fd) => Err(HandingError::NotOpen { fd }),
        None => Ok(count),
    }
}

/// The number of the process that a service manager knows. A monitor is a copy of it, and is handed the same: the first
/// to ask is the process that was executed.
fn addressed() -> u32 {
    static NUMBER: OnceLock<u32> = OnceLock::new();
    *NUMBER.get_or_init(std::process::id)
}

/// How many descriptors a service manager hands to the process with the number `own`. What it said to another process,
/// such as the shell that has started this one, does not count.
fn listening(pid: Option<&str>, count: Option<&str>, own: u32) -> Result<u32, HandingError> {
    if pid.and_then(|pid| pid.parse().ok()) != Some(own) {
        return Ok(0);
    }
    match count {
        None | Some("") => Ok(0),
        Some(value) => value
            .parse::<u16>()
            .map(u32::from)
            .map_err(|_| HandingError::ListenFds {
                value: value.to_owned(),
            }),
    }
}

/// A program reads `LISTEN_FDS` only when `LISTEN_PID` is its own number, and the first in its pid namespace is 1.
fn told(count: u32) -> Vec<String> {
    if count == 0 {
        return Vec::new();
    }
    let mut environment = vec![format!("LISTEN_FDS={count}"), "LISTEN_PID=1".to_owned()];
    if let Ok(names) = std::env::var("LISTEN_FDNAMES") {
        environment.push(format!("LISTEN_FDNAMES={names}"));
    }
    environment
}

/// Writes a pid file: the number alone, without a newline, and never half.
///
/// # Errors
///
/// [`HandingError::PidFile`].
pub fn write_pid_file(path: &Path, pid: i32) -> Result<(), HandingError> {
    let failed = |source| HandingError::PidFile {
        path: path.to_owned(),
        source,
    };
    let name = path
        .file_name()
        .ok_or_else(|| failed(std::io::ErrorKind::InvalidInput.into()))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    let temporary = path.with_file_name(hidden);
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .open(&temporary)
        .and_then(|mut file| file.write_all(pid.to_string().as_bytes()))
        .and_then(|()| std::fs::rename(&temporary, path))
        .map_err(failed)
}

/// Sends a pidfd over the caller's socket.
///
/// # Errors
///
/// [`HandingError::PidfdSocket`].
pub fn send_pidfd(path: &Path, pidfd: BorrowedFd<'_>) -> Result<(), HandingError> {
    socket::connect_stream(path)
        .and_then(|socket| socket::send_with(socket.as_fd(), b"pidfd", &[pidfd]))
        .map_err(|source| HandingError::PidfdSocket {
            path: path.to_owned(),
            source,
        })
}

/// Connects to the socket that takes the master of a terminal.
///
/// # Errors
///
/// [`HandingError::ConsoleSocket`].
pub fn connect_console(path: &Path) -> Result<std::os::fd::OwnedFd, HandingError> {
    socket::connect_stream(path).map_err(|source| HandingError::ConsoleSocket {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_holds_the_number_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("pid");
        write_pid_file(&path, 4711).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"4711");
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1);
    }

    #[test]
    fn descriptors_that_are_not_open_are_refused() {
        let refusal = Descriptors::find(10_000).unwrap_err();
        assert!(
            refusal
                .to_string()
                .starts_with("--preserve-fds: descriptor ")
        );
    }

    #[test]
    fn a_program_is_told_of_its_sockets() {
        assert_eq!(told(0), Vec::<String>::new());
        assert_eq!(told(2)[..2], ["LISTEN_FDS=2", "LISTEN_PID=1"]);
    }

    #[test]
    fn what_a_service_manager_says_counts_for_the_process_that_it_names() {
        let count = |pid, count| listening(pid, count, 4711).ok();
        assert_eq!(count(Some("4711"), Some("2")), Some(2));
        assert_eq!(count(Some("4711"), Some("")), Some(0));
        assert_eq!(count(Some("4711"), None), Some(0));
        assert_eq!(count(Some("4711"), Some("two")), None);
        for other in [None, Some(""), Some("1"), Some("me")] {
            assert_eq!(count(other, Some("2")), Some(0), "{other:?}");
            assert_eq!(count(other, Some("two")), Some(0), "{other:?}");
        }
    }
}
