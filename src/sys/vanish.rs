//! Takes an interface away, and goes on as soon as nobody can find it any more.
//!
//! The kernel answers `RTM_DELLINK` when the last who may still look at the interface has turned away, which takes it
//! tens of milliseconds; its name is free, and its end announced, long before. So a thread gives the order and waits for
//! the answer, and who wants it gone listens for the announcement.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use netlink_packet_core::NLMSG_ERROR;
use netlink_packet_core::NetlinkBuffer;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_sys::Socket;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::pipe::PipeFlags;

use crate::sys::Errno;
use crate::sys::Result;
use crate::sys::processor::KeptOff;
use crate::sys::route;
use crate::sys::route::Route;

/// `RTNLGRP_LINK`: what becomes of interfaces.
const LINKS: u32 = 1;
/// `RTM_DELLINK`.
const GONE: u16 = 17;
/// `AF_UNSPEC`: the interface itself; a bridge tells under its own family that it has lost a port.
const ITSELF: u8 = 0;

/// Interfaces that nobody finds any more, and that the kernel has not taken apart yet. Dropping this waits for it, so
/// that this process has one thread again.
#[derive(Debug, Default)]
pub struct Remains(Vec<JoinHandle<Result<()>>>);

impl Drop for Remains {
    fn drop(&mut self) {
        for thread in self.0.drain(..) {
            // Its answer is of no interest any more.
            drop(thread.join());
        }
    }
}

/// An interface on its way out. Dropping this waits until the kernel has done with it.
#[derive(Debug)]
pub struct Leaving {
    index: u32,
    socket: Arc<Socket>,
    /// Closed when the kernel has answered.
    answered: OwnedFd,
    thread: Remains,
}

/// An interface that goes when [`Parting::go`] says so. Dropping this leaves it where it is, and does what was to be done
/// first all the same.
#[derive(Debug)]
pub struct Parting {
    word: OwnedFd,
    /// Who waits for it.
    listener: KeptOff,
    leaving: Leaving,
}

/// Begins to take away the interface of this name, in this process's network: by its number, which nobody else will ever
/// have; the name may be given again meanwhile.
///
/// # Errors
///
/// `ENODEV` when there is none; else the kernel's reason for not being asked.
pub fn begin(name: &str) -> Result<Leaving> {
    let mut parting = prepare(name, || {})?;
    parting.begin();
    Ok(parting.go())
}

/// Prepares for that: a thread that waits, in a process that had one. It does what comes `first` when it is told to begin.
///
/// # Errors
///
/// As [`begin`].
pub fn prepare(name: &str, first: impl FnOnce() + Send + 'static) -> Result<Parting> {
    let socket = Arc::new(route::connected()?);
    let index = rustix::net::netdevice::name_to_index(&*socket, name)?;
    let (answered, end) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let (heard, word) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let sender = Arc::clone(&socket);
    let bytes = route::bytes_of(order(index));
    let told = move || rustix::io::retry_on_intr(|| rustix::io::read(&heard, &mut [0; 1]));
    let (say, number) = mpsc::channel();
    let work = move || {
        // Who started it waits to hear this.
        say.send(rustix::thread::gettid()).unwrap_or_default();
        told()?;
        first();
        if told()? == 0 {
            return Ok(());
        }
        let sent = sender.send(&bytes, 0);
        drop(end);
        sent.map(drop).map_err(|error| route::errno_of(&error))
    };
    let thread = std::thread::Builder::new().spawn(work);
    let thread = thread.map_err(|error| route::errno_of(&error))?;
    // One that has not run yet when it is told something would wait behind this one.
    let listener = KeptOff::new(number.recv().map_err(|_| Errno::SRCH)?);
    let leaving = Leaving {
        index,
        socket,
        answered,
        thread: Remains(vec![thread]),
    };
    Ok(Parting {
        word,
        listener,
        leaving,
    })
}

impl Parting {
    /// Lets the thread do what comes first.
    pub fn begin(&mut self) {
        self.tell();
    }

    /// Lets the interface go, when the thread has [begun](Parting::begin).
    #[must_use]
    pub fn go(mut self) -> Leaving {
        // Who hears no announcement hears the answer, later.
        let socket = &self.leaving.socket;
        socket.add_membership(LINKS).unwrap_or_default();
        self.tell();
        self.leaving
    }

    fn tell(&mut self) {
        self.listener.follow();
        // The thread listens until it has been told twice.
        rustix::io::write(&self.word, b"w")
            .map(drop)
            .unwrap_or_default();
    }
}

impl Leaving {
    /// Waits until nobody finds the interface any more.
    ///
    /// # Errors
    ///
    /// `ENODEV` when there was none; else the kernel's reason.
    pub fn finish(mut self, remains: &mut Remains) -> Result<()> {
        if let Some(outcome) = hear(&self.socket, &self.answered, self.index) {
            remains.0.append(&mut self.thread.0);
            return outcome;
        }
        for thread in self.thread.0.drain(..) {
            thread.join().unwrap_or(Err(Errno::IO))?;
        }
        // The kernel has done it, or said why not, and that was lost.
        match Route::open()?.link_at(self.index) {
            Err(Errno::NODEV) => Ok(()),
            answer => answer.and(Err(Errno::NOBUFS)),
        }
    }
}

fn order(index: u32) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    RouteNetlinkMessage::DelLink(message)
}

/// Listens until the interface is gone or the kernel has refused; nothing when the order was given and neither was heard.
fn hear(socket: &Socket, answered: &OwnedFd, index: u32) -> Option<Result<()>> {
    let mut bytes = Vec::with_capacity(route::ROOM);
    loop {
        let mut watched = [
            PollFd::new(socket, PollFlags::IN),
            PollFd::new(answered, PollFlags::IN),
        ];
        match rustix::event::poll(&mut watched, None) {
            Err(Errno::INTR) => continue,
            Err(_) => return None,
            Ok(_) => {}
        }
        let [said, over] = watched.map(|file| !file.revents().is_empty());
        if said {
            // What does not fit the socket is lost, and the rest goes on.
            let heard = route::receive(socket, &mut bytes).ok();
            let outcome = heard.and_then(|()| outcome(&bytes, index));
            if outcome.is_some() {
                return outcome;
            }
        } else if over {
            return None;
        }
    }
}

/// What the messages of one datagram say about the interface's end.
fn outcome(bytes: &[u8], index: u32) -> Option<Result<()>> {
    let mut rest = bytes;
    while let Ok(message) = NetlinkBuffer::new_checked(rest) {
        let payload = message.payload();
        match message.message_type() {
            NLMSG_ERROR => {
                let code = i32::from_ne_bytes(*payload.first_chunk()?);
                return Some(match code {
                    0 => Ok(()),
                    code => Err(Errno::from_raw_os_error(code.saturating_abs())),
                });
            }
            GONE if payload.first() == Some(&ITSELF) => {
                let number = payload.get(4..)?.first_chunk()?;
                if u32::from_ne_bytes(*number) == index {
                    return Some(Ok(()));
                }
            }
            _ => {}
        }
        let length = usize::try_from(message.length()).ok()?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of the kernel.
    fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(16 + payload.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(payload);
        bytes
    }

    fn gone(family: u8, index: u32) -> Vec<u8> {
        let mut payload = vec![family, 0, 0, 0];
        payload.extend(index.to_ne_bytes());
        payload.extend([0; 8]);
        message(GONE, &payload)
    }

    #[test]
    fn an_interface_is_gone_when_its_own_end_is_announced() {
        assert_eq!(outcome(&gone(ITSELF, 7), 7), Some(Ok(())));
        assert_eq!(outcome(&gone(ITSELF, 8), 7), None);
        let both = [gone(ITSELF, 8), gone(ITSELF, 7)].concat();
        assert_eq!(outcome(&both, 7), Some(Ok(())));
    }

    #[test]
    fn a_bridge_that_loses_a_port_says_nothing_about_the_interface() {
        let bridge = u8::try_from(libc::AF_BRIDGE).unwrap();
        assert_eq!(outcome(&gone(bridge, 7), 7), None);
    }

    #[test]
    fn the_kernels_answer_is_heard_too() {
        let answer = |code: i32| message(NLMSG_ERROR, &code.to_ne_bytes());
        assert_eq!(outcome(&answer(0), 7), Some(Ok(())));
        assert_eq!(outcome(&answer(-libc::ENODEV), 7), Some(Err(Errno::NODEV)));
    }

    #[test]
    fn what_is_cut_short_says_nothing() {
        let whole = gone(ITSELF, 7);
        for length in 0..24 {
            assert_eq!(outcome(&whole[..length], 7), None, "{length}");
        }
    }
}
