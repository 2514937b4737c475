//! One client of a guest's port: its socket, and the stream that it leads to.
//!
//! A client says `CONNECT PORT`, ends the line, and hears `OK N` when the guest has granted the stream; N is the port of
//! the host's end. From then on its socket is the stream. One that is refused is closed without a word.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use rustix::net::RecvFlags;
use rustix::net::SendFlags;
use rustix::net::Shutdown;
use vm_memory::VolatileSlice;

use crate::backend::microvm::vmm::virtio::vsock::link::Link;
use crate::backend::microvm::vmm::virtio::vsock::spill::Spill;
use crate::sys::Errno;
use crate::sys::stream;

/// The longest request: `CONNECT 4294967295` and the end of the line.
const LONGEST_REQUEST: usize = 19;

/// How far a client has come.
#[derive(Debug)]
pub(super) enum Stage {
    /// It has not said yet where to.
    Greeting,
    /// The guest is not ready yet.
    Waiting,
    /// It has a stream, or asks for one.
    Linked(Box<Link>),
}

/// What a client has asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// It is still at it.
    Incomplete,
    /// This port of the guest's.
    Port(u32),
    /// Nothing that there is.
    Wrong,
}

/// What came from a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filled {
    /// So many bytes.
    Bytes(u32),
    /// Nothing, for now or for good.
    Nothing,
}

/// One client.
#[derive(Debug)]
pub(super) struct Channel {
    /// The guest's port.
    pub(super) guest_port: u32,
    /// How far it has come.
    pub(super) stage: Stage,
    /// It stands in the row of those that have something for the guest.
    pub(super) queued: bool,
    /// How many of the guest's buffers it is offered at once.
    pub(super) appetite: usize,
    socket: Option<OwnedFd>,
    /// It is told when the stream is granted.
    greeted: bool,
    spill: Spill,
    readable: bool,
    writable: bool,
    /// The socket was shut down for writing, for reading.
    ends: (bool, bool),
}

impl Channel {
    /// A client that has just connected.
    #[must_use]
    pub(super) fn greeting(socket: OwnedFd) -> Self {
        Self::new(Some(socket), Stage::Greeting, 0, true)
    }

    /// A client within this process, for the guest's `port`: it is told nothing.
    #[must_use]
    pub(super) fn inside(socket: OwnedFd, port: u32) -> Self {
        Self::new(Some(socket), Stage::Waiting, port, false)
    }

    /// A stream without a client, from the guest's `port`: what the guest sends goes nowhere.
    #[must_use]
    pub(super) fn nobody(port: u32, link: Link) -> Self {
        Self::new(None, Stage::Linked(Box::new(link)), port, false)
    }

    fn new(socket: Option<OwnedFd>, stage: Stage, guest_port: u32, greeted: bool) -> Self {
        Self {
            guest_port,
            stage,
            queued: false,
            appetite: 1,
            socket,
            greeted,
            spill: Spill::default(),
            readable: true,
            writable: true,
            ends: (false, false),
        }
    }

    /// The stream, if it has come so far.
    #[must_use]
    pub(super) fn link(&self) -> Option<&Link> {
        match &self.stage {
            Stage::Linked(link) => Some(link),
            Stage::Greeting | Stage::Waiting => None,
        }
    }

    /// As [`Channel::link`].
    pub(super) fn link_mut(&mut self) -> Option<&mut Link> {
        match &mut self.stage {
            Stage::Linked(link) => Some(link),
            Stage::Greeting | Stage::Waiting => None,
        }
    }

    /// Its socket may have bytes, may have room, was left by the client.
    pub(super) fn woken(&mut self, readable: bool, writable: bool, left: bool) {
        self.readable |= readable || left;
        self.writable |= writable || left;
        if left {
            self.left();
        }
        if self.writable {
            self.flush();
        }
    }

    /// Reads what the client asks for, and not a byte more.
    pub(super) fn request(&mut self) -> Request {
        let Some(socket) = self.socket.as_ref().map(OwnedFd::as_fd) else {
            return Request::Wrong;
        };
        let mut bytes = [0; LONGEST_REQUEST];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let seen = match rustix::net::recv(socket, &mut bytes, flags) {
            Ok((seen, _)) => bytes.get(..seen).unwrap_or_default(),
            Err(Errno::AGAIN | Errno::INTR) => return Request::Incomplete,
            Err(_) => return Request::Wrong,
        };
        let Some(end) = seen.iter().position(|byte| *byte == b'\n') else {
            let may_come = !seen.is_empty() && seen.len() < LONGEST_REQUEST;
            return if may_come {
                Request::Incomplete
            } else {
                Request::Wrong
            };
        };
        let port = seen.get(..end).and_then(port);
        let mut line = [0; LONGEST_REQUEST];
        let line = line.get_mut(..=end).unwrap_or_default();
        let read = rustix::net::recv(socket, line, RecvFlags::DONTWAIT);
        match (port, read) {
            (Some(port), Ok((count, _))) if count == end + 1 => Request::Port(port),
            _ => Request::Wrong,
        }
    }

    /// The guest has granted the stream: the client hears so, by the number of its end.
    pub(super) fn granted(&mut self, host_port: u32) {
        if !self.greeted {
            return;
        }
        let answer = format!("OK {host_port}\n");
        let sent = self.send(answer.as_bytes());
        // It is the first that this socket ever carries, so there is room for it, or nobody to read it.
        if sent != Ok(answer.len()) {
            self.left();
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let socket = self.socket.as_ref().ok_or(Errno::PIPE)?;
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        rustix::io::retry_on_intr(|| rustix::net::send(socket, bytes, flags))
    }

    /// Gives the client bytes of the guest's, `length` in all: at once, or when it is ready for them.
    pub(super) fn deliver(&mut self, slices: &[VolatileSlice<'_>], length: u32) {
        let done = match &self.socket {
            None => length,
            Some(_) if !self.spill.is_empty() || !self.writable => 0,
            Some(socket) => match stream::send(socket.as_fd(), slices) {
                Ok(sent) => u32::try_from(sent).unwrap_or(length).min(length),
                Err(Errno::AGAIN) => 0,
                Err(_) => {
                    self.left();
                    length
                }
            },
        };
        if done < length {
            self.writable = false;
            self.spill.add(slices, done as usize);
        }
        self.forwarded(done);
    }

    /// Gives the client what waits for it, as far as it is ready.
    fn flush(&mut self) {
        while !self.spill.is_empty() {
            match self.send(self.spill.bytes()) {
                Ok(sent) => {
                    self.spill.take(sent);
                    self.forwarded(u32::try_from(sent).unwrap_or(u32::MAX));
                }
                Err(Errno::AGAIN) => {
                    self.writable = false;
                    return;
                }
                Err(_) => return self.left(),
            }
        }
    }

    fn forwarded(&mut self, count: u32) {
        if let Some(link) = self.link_mut() {
            link.forwarded(count);
        }
    }

    /// The client takes no more: what waits for it is for nobody.
    fn left(&mut self) {
        let lost = u32::try_from(self.spill.clear()).unwrap_or(u32::MAX);
        self.forwarded(lost);
        if let Some(link) = self.link_mut() {
            link.host_left();
        }
    }

    /// Takes bytes of the client's into `slices`, no more than there is room for.
    pub(super) fn fill(&mut self, slices: &[VolatileSlice<'_>]) -> Filled {
        let socket = self.socket.as_ref().map(OwnedFd::as_fd);
        let received = socket.map_or(Ok(0), |socket| stream::receive(socket, slices));
        match received {
            Ok(count) if count > 0 => Filled::Bytes(u32::try_from(count).unwrap_or(u32::MAX)),
            Err(Errno::AGAIN) => {
                self.readable = false;
                Filled::Nothing
            }
            ended => {
                self.readable = false;
                if let Some(link) = self.link_mut() {
                    link.host_ended();
                }
                if ended.is_err() {
                    self.left();
                }
                Filled::Nothing
            }
        }
    }

    /// Whether there is something for the guest: a packet, or bytes that it takes.
    #[must_use]
    pub(super) fn has_something(&self) -> bool {
        self.link().is_some_and(Link::is_due) || self.pourable() > 0
    }

    /// How many bytes the guest may be sent, if the client may have some.
    #[must_use]
    pub(super) fn pourable(&self) -> u32 {
        if self.socket.is_none() || !self.readable {
            return 0;
        }
        self.link().map_or(0, Link::credit)
    }

    /// After anything has happened: tells the client of what has ended, and the guest that the client waits for room.
    pub(super) fn settle(&mut self) {
        let flushed = self.spill.is_empty();
        let waits = self.readable && self.socket.is_some();
        let Some(link) = self.link_mut() else {
            return;
        };
        if waits && link.credit() == 0 {
            link.starve();
        }
        let ends = (!link.guest_sends() && flushed, !link.guest_receives());
        let Some(socket) = self.socket.as_ref().map(OwnedFd::as_fd) else {
            return;
        };
        if ends.0 && !self.ends.0 {
            shut(socket, Shutdown::Write);
        }
        if ends.1 && !self.ends.1 {
            shut(socket, Shutdown::Read);
        }
        self.ends = ends;
    }

    /// Whether it is over on both sides.
    #[must_use]
    pub(super) fn is_done(&self) -> bool {
        let over = |link: &Link| link.is_closed() && !link.is_due();
        self.link().is_some_and(over) && self.spill.is_empty()
    }

    /// The guest is gone: what it has sent is given, as far as the client is ready for it now.
    pub(super) fn abandon(mut self) {
        if let Some(link) = self.link_mut() {
            link.reset();
        }
        self.flush();
        self.close();
    }

    /// Closes the socket so that the client reads an end, and not an error.
    ///
    /// A unix socket that is closed with bytes in it tells its peer of a reset. What is in it nobody will read, and after
    /// it was shut down there will be no more.
    pub(super) fn close(self) {
        let Some(socket) = self.socket else {
            return;
        };
        shut(socket.as_fd(), Shutdown::Both);
        let mut scrap = [0; 4096];
        while matches!(
            rustix::net::recv(&socket, &mut scrap, RecvFlags::DONTWAIT),
            Ok((1.., _))
        ) {}
    }
}

/// A socket whose peer is gone needs no shutting down.
fn shut(socket: BorrowedFd<'_>, how: Shutdown) {
    rustix::net::shutdown(socket, how).ok();
}

/// The port in `CONNECT PORT`.
fn port(line: &[u8]) -> Option<u32> {
    let number = line.strip_prefix(b"CONNECT ")?;
    let number = std::str::from_utf8(number).ok()?;
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| number.parse().ok()).flatten()
}
