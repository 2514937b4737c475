//! What a monitor and the `up` that started it say to each other, one message of a socket each.
//!
//! A message is one letter and what belongs to it. The socket keeps the bounds of messages, and tells each side when
//! the other has gone: a monitor goes on then, and an `up` knows that its monitor was killed.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use rustix::fs::OFlags;

use crate::sys::Errno;
use crate::sys::process::Exit;
use crate::sys::socket;

/// Most bytes of output in one message.
pub(super) const CHUNK: usize = 16 << 10;
/// Room for any message.
const LONGEST: usize = 64 << 10;

/// Where a program writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// What a monitor says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    /// Something was ignored or survived.
    Warning(String),
    /// The workspace stands, and its program waits.
    Raised,
    /// The program runs.
    Running,
    /// It does not come to run, and nothing is left of it.
    Failed(String),
    /// What it wrote.
    Output(Stream, Vec<u8>),
    /// The program has ended so; nothing is known of one that was not this monitor's child.
    Ended(Option<Exit>),
}

/// What an `up` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Let the program go.
    Go,
    /// Undo everything.
    Undo,
    /// Send the program this signal.
    Signal(i32),
}

/// One end of the socket.
#[derive(Debug)]
pub(super) struct Line {
    socket: OwnedFd,
}

impl Line {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// From now on nothing said or heard here waits for the other side.
    pub(super) fn do_not_wait(&self) -> Result<(), Errno> {
        rustix::fs::fcntl_setfl(&self.socket, OFlags::NONBLOCK)
    }

    /// Says something; `EAGAIN` when there is no room, `EPIPE` when nobody listens any more.
    pub(super) fn say(&self, word: &Word) -> Result<(), Errno> {
        let text = |letter: u8, text: &str| {
            let end = text.floor_char_boundary(CHUNK);
            [&[letter], &text.as_bytes()[..end]].concat()
        };
        let message = match word {
            Word::Warning(warning) => text(b'w', warning),
            Word::Raised => b"r".to_vec(),
            Word::Running => b"g".to_vec(),
            Word::Failed(why) => text(b'f', why),
            Word::Output(Stream::Out, bytes) => [b"1", bytes.as_slice()].concat(),
            Word::Output(Stream::Err, bytes) => [b"2", bytes.as_slice()].concat(),
            Word::Ended(exit) => {
                let exit = serde_json::to_vec(exit).unwrap_or_default();
                [b"x", exit.as_slice()].concat()
            }
        };
        socket::send(self.as_fd(), &message)
    }

    /// The next word; nothing when the monitor has gone.
    pub(super) fn hear(&self) -> Result<Option<Word>, Errno> {
        let mut buffer = vec![0; LONGEST];
        let length = match socket::receive(self.as_fd(), &mut buffer) {
            Ok(0) | Err(Errno::CONNRESET) => return Ok(None),
            answer => answer?,
        };
        let (letter, rest) = (buffer[0], &buffer[1..length]);
        let text = || String::from_utf8_lossy(rest).into_owned();
        Ok(Some(match letter {
            b'w' => Word::Warning(text()),
            b'r' => Word::Raised,
            b'g' => Word::Running,
            b'f' => Word::Failed(text()),
            b'1' => Word::Output(Stream::Out, rest.to_vec()),
            b'2' => Word::Output(Stream::Err, rest.to_vec()),
            b'x' => Word::Ended(serde_json::from_slice(rest).map_err(|_| Errno::BADMSG)?),
            _ => return Err(Errno::BADMSG),
        }))
    }

    /// Gives an order.
    pub(super) fn order(&self, order: Order) -> Result<(), Errno> {
        let message = match order {
            Order::Go => b"g".to_vec(),
            Order::Undo => b"u".to_vec(),
            Order::Signal(number) => [b"s", number.to_ne_bytes().as_slice()].concat(),
        };
        socket::send(self.as_fd(), &message)
    }

    /// The next order; nothing when the `up` has gone.
    pub(super) fn ordered(&self) -> Result<Option<Order>, Errno> {
        let mut buffer = [0; 16];
        let length = match socket::receive(self.as_fd(), &mut buffer) {
            Ok(0) | Err(Errno::CONNRESET) => return Ok(None),
            answer => answer?,
        };
        let number: Option<[u8; 4]> = buffer[1..length].try_into().ok();
        match (buffer[0], number) {
            (b'g', _) => Ok(Some(Order::Go)),
            (b'u', _) => Ok(Some(Order::Undo)),
            (b's', Some(number)) => Ok(Some(Order::Signal(i32::from_ne_bytes(number)))),
            _ => Err(Errno::BADMSG),
        }
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_and_order_is_heard_as_it_was_said() {
        let (near, far) = socket::pair().unwrap();
        let (monitor, up) = (Line::new(near), Line::new(far));
        for word in [
            Word::Warning("ignoring".to_owned()),
            Word::Raised,
            Word::Running,
            Word::Failed("no".to_owned()),
            Word::Output(Stream::Out, b"\0\n\xff".to_vec()),
            Word::Output(Stream::Err, Vec::new()),
            Word::Ended(Some(Exit::Signal(9))),
            Word::Ended(None),
        ] {
            monitor.say(&word).unwrap();
            assert_eq!(up.hear().unwrap(), Some(word));
        }
        for order in [Order::Go, Order::Undo, Order::Signal(15)] {
            up.order(order).unwrap();
            assert_eq!(monitor.ordered().unwrap(), Some(order));
        }
        drop(up);
        assert_eq!(monitor.ordered().unwrap(), None);
        assert_eq!(monitor.say(&Word::Raised), Err(Errno::PIPE));
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_and_not_refused() {
        let (near, far) = socket::pair().unwrap();
        let (monitor, up) = (Line::new(near), Line::new(far));
        monitor.say(&Word::Failed("ü".repeat(CHUNK))).unwrap();
        let Some(Word::Failed(text)) = up.hear().unwrap() else {
            panic!("something else was heard");
        };
        assert_eq!(text.len(), CHUNK);
    }
}
