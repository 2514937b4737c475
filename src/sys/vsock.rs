//! Streams between a machine and its host (`vsock(7)`): what the guest's side needs of them.
//!
//! An address is a context id and a port; ids are numbers that the hypervisor gives, ports are 32 bits and, below
//! 1024, the superuser's. There is no name and no path, so whoever is in the guest can connect to a port: a listener
//! looks at the context id of whom it accepts.

use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use nix::sys::socket::AddressFamily;
use nix::sys::socket::Backlog;
use nix::sys::socket::SockFlag;
use nix::sys::socket::SockType;
use nix::sys::socket::VsockAddr;
use rustix::net::SocketFlags;

use crate::sys::Errno;
use crate::sys::Result;

/// The context id of the host, as a guest sees it (`VMADDR_CID_HOST`).
pub const HOST: u32 = libc::VMADDR_CID_HOST;

/// Any of this machine's own context ids (`VMADDR_CID_ANY`).
const ANY: u32 = libc::VMADDR_CID_ANY;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its machine.
    pub cid: u32,
    /// Its port.
    pub port: u32,
}

/// Listens on `port` of this machine; the socket is close-on-exec and blocks.
///
/// # Errors
///
/// `EAFNOSUPPORT` when the kernel has no vsock, `EADDRINUSE` when the port is taken; else as `bind(2)` does.
pub fn listen(port: u32) -> Result<OwnedFd> {
    let socket = socket()?;
    nix::sys::socket::bind(socket.as_raw_fd(), &VsockAddr::new(ANY, port)).map_err(errno)?;
    let backlog = Backlog::new(BACKLOG).map_err(errno)?;
    nix::sys::socket::listen(&socket, backlog).map_err(errno)?;
    Ok(socket)
}

/// Takes the next connection to a socket of [`listen`] and says who made it; waits for it.
///
/// The connection is close-on-exec and blocks.
///
/// # Errors
///
/// Fails as `accept4(2)` does.
pub fn accept(listener: BorrowedFd<'_>) -> Result<(OwnedFd, Peer)> {
    let connection = again(|| rustix::net::accept_with(listener, SocketFlags::CLOEXEC))?;
    let peer: VsockAddr = nix::sys::socket::getpeername(connection.as_raw_fd()).map_err(errno)?;
    let peer = Peer {
        cid: peer.cid(),
        port: peer.port(),
    };
    Ok((connection, peer))
}

/// Connects to `port` of the machine `cid`; waits until it is accepted or refused, two seconds at most.
///
/// The connection is close-on-exec and blocks.
///
/// # Errors
///
/// `ECONNRESET` when nobody listens there, `ENODEV` when no transport leads to `cid`, `ETIMEDOUT` when nobody answers;
/// else as `connect(2)` does.
pub fn connect(cid: u32, port: u32) -> Result<OwnedFd> {
    let socket = socket()?;
    let address = VsockAddr::new(cid, port);
    again(|| nix::sys::socket::connect(socket.as_fd().as_raw_fd(), &address).map_err(errno))?;
    Ok(socket)
}

fn socket() -> Result<OwnedFd> {
    nix::sys::socket::socket(
        AddressFamily::Vsock,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .map_err(errno)
}

fn errno(errno: nix::Error) -> Errno {
    Errno::from_raw_os_error(errno as i32)
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

    #[test]
    fn a_machine_that_is_not_there_is_an_error_and_not_a_wait() {
        // No hypervisor gives out this context id.
        let nobody = u32::MAX - 2;
        let refused = connect(nobody, 1).unwrap_err();
        let expected = [
            Errno::NODEV,
            Errno::AFNOSUPPORT,
            Errno::TIMEDOUT,
            Errno::NETUNREACH,
            Errno::CONNRESET,
        ];
        assert!(expected.contains(&refused), "{refused:?}");
    }
}
