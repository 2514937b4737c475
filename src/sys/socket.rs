//! Unix sockets: short messages between the runtime's own processes, and descriptors handed to callers.
//!
//! A socket's address holds 107 bytes, less than many state directories have, so sockets in a directory of ours are
//! addressed through `/proc/self/fd`.

use std::io::IoSlice;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::net::AddressFamily;
use rustix::net::RecvAncillaryBuffer;
use rustix::net::RecvAncillaryMessage;
use rustix::net::RecvFlags;
use rustix::net::SendAncillaryBuffer;
use rustix::net::SendAncillaryMessage;
use rustix::net::SendFlags;
use rustix::net::SocketAddrUnix;
use rustix::net::SocketFlags;
use rustix::net::SocketType;

use crate::sys::Errno;
use crate::sys::Result;

/// Most descriptors that one message carries here.
const MOST_FDS: usize = 4;

/// Makes two connected sockets that keep the bounds of messages (`SOCK_SEQPACKET`).
///
/// # Errors
///
/// Fails as `socketpair(2)` does.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
}

/// Makes a socket at `name` in `directory` that waits for [`connect`].
///
/// # Errors
///
/// `EADDRINUSE` when the name is taken; else as `bind(2)` and `listen(2)` do.
pub fn listen(directory: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    let socket = socket(SocketType::SEQPACKET)?;
    rustix::net::bind(&socket, &address_in(directory, name)?)?;
    rustix::net::listen(&socket, 4)?;
    Ok(socket)
}

/// Takes the next connection to a socket of [`listen`]; waits for it.
///
/// # Errors
///
/// Fails as `accept4(2)` does.
pub fn accept(listener: BorrowedFd<'_>) -> Result<OwnedFd> {
    again(|| rustix::net::accept_with(listener, SocketFlags::CLOEXEC))
}

/// Connects to the socket that [`listen`] made.
///
/// # Errors
///
/// `ENOENT` when there is none, `ECONNREFUSED` when nobody listens any more.
pub fn connect(directory: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    let socket = socket(SocketType::SEQPACKET)?;
    let address = address_in(directory, name)?;
    again(|| rustix::net::connect(&socket, &address))?;
    Ok(socket)
}

/// Whether somebody listens at `name`, without being seen there.
///
/// A datagram socket cannot connect to a listener of another type; the kernel looks for the listener first, so
/// `EPROTOTYPE` means that it lives.
///
/// # Errors
///
/// Fails as `connect(2)` does in ways that say nothing about the listener.
pub fn is_listening(directory: BorrowedFd<'_>, name: &str) -> Result<bool> {
    // Nearly always there is nothing of that name any more.
    let there = rustix::fs::statat(directory, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
    if matches!(there, Err(Errno::NOENT)) {
        return Ok(false);
    }
    let socket = socket(SocketType::DGRAM)?;
    match rustix::net::connect(&socket, &address_in(directory, name)?) {
        Err(Errno::PROTOTYPE) => Ok(true),
        Ok(()) | Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Connects to a caller's stream socket.
///
/// # Errors
///
/// Fails as `connect(2)` does.
pub fn connect_stream(path: &Path) -> Result<OwnedFd> {
    to_caller(path, SocketType::STREAM)
}

/// Connects to a caller's datagram socket; a path that begins with `@` is an abstract name.
///
/// # Errors
///
/// Fails as `connect(2)` does.
pub fn connect_datagram(path: &Path) -> Result<OwnedFd> {
    to_caller(path, SocketType::DGRAM)
}

fn to_caller(path: &Path, kind: SocketType) -> Result<OwnedFd> {
    let socket = socket(kind)?;
    let bytes = path.as_os_str().as_encoded_bytes();
    if let Some(name) = bytes.strip_prefix(b"@") {
        rustix::net::connect(&socket, &SocketAddrUnix::new_abstract_name(name)?)?;
        return Ok(socket);
    }
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(parent, flags, Mode::empty())?;
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or(Errno::INVAL)?;
    let address = address_in(directory.as_fd(), name)?;
    again(|| rustix::net::connect(&socket, &address))?;
    Ok(socket)
}

/// Makes a datagram socket at `name` in `directory`.
///
/// # Errors
///
/// Fails as `bind(2)` does.
pub fn bind_datagram(directory: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    let socket = socket(SocketType::DGRAM)?;
    rustix::net::bind(&socket, &address_in(directory, name)?)?;
    Ok(socket)
}

/// Makes a stream socket at `name` in `directory` that waits for connections.
///
/// # Errors
///
/// Fails as `bind(2)` and `listen(2)` do.
pub fn listen_stream(directory: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    let socket = socket(SocketType::STREAM)?;
    rustix::net::bind(&socket, &address_in(directory, name)?)?;
    rustix::net::listen(&socket, 4)?;
    Ok(socket)
}

/// Connects to the socket that [`listen_stream`] made.
///
/// # Errors
///
/// `ENOENT` when there is none, `ECONNREFUSED` when nobody listens any more.
pub fn connect_stream_in(directory: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    let socket = socket(SocketType::STREAM)?;
    let address = address_in(directory, name)?;
    again(|| rustix::net::connect(&socket, &address))?;
    Ok(socket)
}

/// Sends one message; a peer that is gone is an error, not a signal.
///
/// # Errors
///
/// `EPIPE` when the peer is gone; else as `sendmsg(2)` does.
pub fn send(socket: BorrowedFd<'_>, message: &[u8]) -> Result<()> {
    send_with(socket, message, &[])
}

/// Sends one message with descriptors (`SCM_RIGHTS`).
///
/// # Errors
///
/// As [`send`]; `ETOOMANYREFS` beyond four descriptors.
pub fn send_with(socket: BorrowedFd<'_>, message: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::TOOMANYREFS);
    }
    let parts = [IoSlice::new(message)];
    let sent = again(|| rustix::net::sendmsg(socket, &parts, &mut control, SendFlags::NOSIGNAL))?;
    if sent == message.len() {
        Ok(())
    } else {
        Err(Errno::IO)
    }
}

/// Receives one message into `buffer` and gives its length; 0 means that the peer is gone.
///
/// # Errors
///
/// `EMSGSIZE` when the message was longer than `buffer`; else as `recvmsg(2)` does.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize> {
    receive_with(socket, buffer).map(|(length, _)| length)
}

/// Receives one message and the descriptors that came with it.
///
/// # Errors
///
/// As [`receive`].
pub fn receive_with(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got = again(|| rustix::net::recvmsg(socket, &mut parts, &mut control, flags))?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if got.flags.contains(rustix::net::ReturnFlags::TRUNC) {
        return Err(Errno::MSGSIZE);
    }
    Ok((got.bytes, fds))
}

fn socket(kind: SocketType) -> Result<OwnedFd> {
    rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
}

fn address_in(directory: BorrowedFd<'_>, name: &str) -> Result<SocketAddrUnix> {
    let path: PathBuf = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()).into();
    SocketAddrUnix::new(&path)
}

/// Repeats a call that a signal interrupted.
fn again<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> (tempfile::TempDir, OwnedFd) {
        let home = tempfile::tempdir().unwrap();
        let deep = home.path().join("x".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let fd = rustix::fs::open(&deep, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        (home, fd)
    }

    #[test]
    fn messages_keep_their_bounds_below_a_long_path() {
        let (_home, at) = directory();
        let listener = listen(at.as_fd(), "s").unwrap();
        let client = connect(at.as_fd(), "s").unwrap();
        let server = accept(listener.as_fd()).unwrap();
        send(client.as_fd(), b"one").unwrap();
        send(client.as_fd(), b"three").unwrap();
        let mut buffer = [0; 8];
        assert_eq!(receive(server.as_fd(), &mut buffer).unwrap(), 3);
        assert_eq!(receive(server.as_fd(), &mut buffer).unwrap(), 5);
        drop(client);
        assert_eq!(receive(server.as_fd(), &mut buffer).unwrap(), 0);
    }

    #[test]
    fn a_probe_sees_the_listener_and_is_not_seen() {
        let (_home, at) = directory();
        assert!(!is_listening(at.as_fd(), "s").unwrap());
        let listener = listen(at.as_fd(), "s").unwrap();
        assert!(is_listening(at.as_fd(), "s").unwrap());
        drop(listener);
        assert!(!is_listening(at.as_fd(), "s").unwrap());
    }

    #[test]
    fn a_descriptor_arrives_with_its_message() {
        let (near, far) = pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        send_with(near.as_fd(), b"/dev/pts/0", &[file.as_fd()]).unwrap();
        let mut buffer = [0; 16];
        let (length, fds) = receive_with(far.as_fd(), &mut buffer).unwrap();
        assert_eq!((&buffer[..length], fds.len()), (&b"/dev/pts/0"[..], 1));
    }

    #[test]
    fn a_message_that_does_not_fit_is_an_error() {
        let (near, far) = pair().unwrap();
        send(near.as_fd(), b"too long").unwrap();
        assert_eq!(receive(far.as_fd(), &mut [0; 2]), Err(Errno::MSGSIZE));
    }
}
