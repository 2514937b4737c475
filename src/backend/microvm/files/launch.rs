//! Starts a file server beside the machine that it serves.

use std::ffi::CStr;
use std::ffi::CString;
use std::fs::File;
use std::io::Seek;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use rustix::fs::AtFlags;
use rustix::fs::MemfdFlags;
use rustix::fs::Mode;
use rustix::fs::OFlags;

use super::Settings;
use super::WORD;
use crate::backend::BackendError;
use crate::backend::microvm::users;
use crate::plan::namespaces;
use crate::plan::namespaces::Mapping;
use crate::plan::share::Share;
use crate::sys::Errno;
use crate::sys::Result;
use crate::sys::clone;
use crate::sys::clone::Birth;
use crate::sys::inherited;
use crate::sys::process;
use crate::sys::socket;

/// The name of its socket, for the moment between `bind(2)` and `connect(2)`.
const SOCKET: &str = "files.sock";
/// The file of the program that runs.
pub const OWN: &CStr = c"/proc/self/exe";
/// What it is called in messages.
const PROGRAM: &str = "the file server";

/// What a file server is wanted for.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// What is run: this program, [`OWN`].
    pub program: &'a CStr,
    /// What it serves.
    pub shares: &'a [Share],
    /// Where it is born, and what it does not take along.
    pub birth: Birth<'a>,
    /// The numbers of a user namespace that it lives in, where the caller has no power over files of others.
    pub users: Option<&'a Mapping>,
    /// A directory that nobody else may enter.
    pub directory: BorrowedFd<'a>,
}

/// A file server that has been started. It ends with its connection.
#[derive(Debug)]
pub struct Server {
    /// Its number.
    pub pid: i32,
    /// The process.
    pub process: OwnedFd,
    /// The connection, for the VMM that introduces the guest. Whoever holds it keeps the server alive.
    pub socket: OwnedFd,
    report: OwnedFd,
}

impl Server {
    /// Waits until it serves.
    ///
    /// # Errors
    ///
    /// Its own words when it cannot.
    pub fn ready(&self) -> std::result::Result<(), BackendError> {
        let mut text = [0u8; 4096];
        let heard = socket::receive(self.report.as_fd(), &mut text)
            .map_err(BackendError::kernel("hear from the file server"))?;
        let said: Option<std::result::Result<(), String>> =
            serde_json::from_slice(text.get(..heard).unwrap_or_default()).ok();
        let words = match said {
            Some(Ok(())) => return Ok(()),
            Some(Err(words)) => words,
            None => "it ended without a word".to_owned(),
        };
        Err(BackendError::Helper {
            program: PROGRAM,
            words,
        })
    }
}

/// Starts a file server; it is not waited for. The caller must have one thread only.
///
/// # Errors
///
/// [`BackendError`]; nothing of it is left then.
pub fn launch(order: &Order<'_>) -> std::result::Result<Server, BackendError> {
    let doing = |what: &str| BackendError::kernel(format!("{what} for the file server"));
    let (listener, socket) = sockets(order.directory).map_err(doing("make a socket"))?;
    let (report, theirs) = socket::pair().map_err(doing("make a channel"))?;
    let settings = Settings {
        shares: order.shares.to_vec(),
        listener: listener.as_raw_fd(),
        report: Some(theirs.as_raw_fd()),
    };
    let settings = written(&settings).map_err(doing("write the settings"))?;
    // host path: the host's null device.
    let nothing = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(doing("open /dev/null"))?;
    let words = [
        "bulkhead",
        WORD,
        "--config-fd",
        &settings.as_raw_fd().to_string(),
    ];
    let words: Result<Vec<CString>> = words
        .iter()
        .map(|word| CString::new(*word).map_err(|_| Errno::INVAL))
        .collect();
    let words = words.map_err(doing("make the arguments"))?;
    let own = order.users.map_or(0, |_| namespaces::USER);
    let birth = Birth {
        namespaces: order.birth.namespaces | namespaces::PID | own,
        ..order.birth
    };
    let born = clone::spawn(birth, || {
        let handed = [listener.as_fd(), theirs.as_fd(), settings.as_fd()];
        let waits = order.users.map(|_| theirs.as_fd());
        let prepared = waits
            .map_or(Ok(()), users::enter)
            .and_then(|()| hand_on(nothing.as_fd(), &handed));
        if prepared.is_ok() {
            process::execute(order.program, &words, &[]);
        }
        crate::init::FAILED
    })
    .map_err(doing("make a process"))?;
    if let Some(wanted) = order.users
        && let Err(error) = users::admit(&born, wanted, report.as_fd())
    {
        process::end(born.pidfd.as_fd());
        return Err(error);
    }
    Ok(Server {
        pid: born.pid,
        process: born.pidfd,
        socket,
        report,
    })
}

/// A listening socket and a connection that waits in it. Its name is gone when this returns.
fn sockets(directory: BorrowedFd<'_>) -> Result<(OwnedFd, OwnedFd)> {
    let listener = socket::listen_stream(directory, SOCKET)?;
    let connected = socket::connect_stream_in(directory, SOCKET);
    rustix::fs::unlinkat(directory, SOCKET, AtFlags::empty())?;
    Ok((listener, connected?))
}

/// The settings in a file that nobody else sees, at its begin.
fn written(settings: &Settings) -> Result<OwnedFd> {
    let text = serde_json::to_vec(settings).map_err(|_| Errno::INVAL)?;
    let mut file = File::from(rustix::fs::memfd_create("files", MemfdFlags::CLOEXEC)?);
    let done = file.write_all(&text).and_then(|()| file.rewind());
    done.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(file.into())
}

/// In the new process: lets go of what is not its own.
fn hand_on(nothing: BorrowedFd<'_>, handed: &[BorrowedFd<'_>]) -> Result<()> {
    rustix::stdio::dup2_stdin(nothing)?;
    rustix::stdio::dup2_stdout(nothing)?;
    rustix::stdio::dup2_stderr(nothing)?;
    process::close_on_exec_from(3)?;
    handed.iter().try_for_each(|fd| inherited::hand_on(*fd))
}
