//! What the caller hands over and is handed back: descriptors to keep, the pid file, the pidfd.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

use crate::sys::Errno;
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
    /// Those of `$LISTEN_FDS` (`sd_listen_fds(3)`), and `more` after them; all must be open.
    ///
    /// # Errors
    ///
    /// [`HandingError::NotOpen`] names the first that is not.
    pub fn find(more: u32) -> Result<Self, HandingError> {
        let listen = match std::env::var("LISTEN_FDS") {
            Ok(value) if !value.is_empty() => value
                .parse::<u16>()
                .map_err(|_| HandingError::ListenFds { value })?
                .into(),
            _ => 0,
        };
        let count = more.saturating_add(listen);
        for fd in FIRST..FIRST.saturating_add(count) {
            if std::fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_err() {
                return Err(HandingError::NotOpen { fd });
            }
        }
        Ok(Self {
            count,
            environment: listening(listen),
        })
    }
}

/// A program reads `LISTEN_FDS` only when `LISTEN_PID` is its own number, and the first in its pid namespace is 1.
fn listening(count: u32) -> Vec<String> {
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
        assert_eq!(listening(0), Vec::<String>::new());
        assert_eq!(listening(2)[..2], ["LISTEN_FDS=2", "LISTEN_PID=1"]);
    }
}
