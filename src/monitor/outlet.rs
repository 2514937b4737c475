//! One stream of a program's output on its way: from a named pipe into the journal, and to who looks on.
//!
//! The program's end of the pipe is open for reading too (`O_RDWR`), so that it may go on when its monitor is killed:
//! nothing it writes is lost then, and when the pipe is full it waits for the next monitor.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::Mode;
use rustix::fs::OFlags;

use crate::monitor::journal::Journal;
use crate::monitor::line::CHUNK;
use crate::monitor::line::Line;
use crate::monitor::line::Stream;
use crate::monitor::line::Word;
use crate::sys::Errno;

/// One stream.
#[derive(Debug)]
pub(super) struct Outlet {
    stream: Stream,
    /// Our end of the pipe.
    pub(super) pipe: OwnedFd,
    /// Whether somebody may still write.
    pub(super) open: bool,
    /// What who looks on has no room for yet; nothing more is read meanwhile.
    pending: Option<Word>,
}

/// Our end of a pipe.
pub(super) fn far_end(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

/// The program's end of it.
pub(super) fn near_end(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

impl Outlet {
    pub(super) fn new(stream: Stream, pipe: OwnedFd) -> Self {
        Self {
            stream,
            pipe,
            open: true,
            pending: None,
        }
    }

    /// Whether more is to be read now.
    pub(super) fn wants(&self) -> bool {
        self.open && self.pending.is_none()
    }

    /// Whether it waits for room.
    pub(super) fn waits(&self) -> bool {
        self.pending.is_some()
    }

    /// Carries one chunk; gives whether there was any.
    pub(super) fn carry(&mut self, journal: Option<&mut Journal>, line: &mut Option<Line>) -> bool {
        if !self.wants() {
            return false;
        }
        let mut buffer = [0; CHUNK];
        match rustix::io::read(&self.pipe, &mut buffer) {
            Ok(length) if length > 0 => {
                if let Some(journal) = journal {
                    journal.enter(self.stream, &buffer[..length]);
                }
                if line.is_some() {
                    self.pending = Some(Word::Output(self.stream, buffer[..length].to_vec()));
                    self.offer(line);
                }
                true
            }
            Err(Errno::INTR | Errno::AGAIN) => false,
            Ok(_) | Err(_) => {
                self.open = false;
                false
            }
        }
    }

    /// Offers what waits for room; who has gone is given nothing more.
    pub(super) fn offer(&mut self, line: &mut Option<Line>) {
        let Some(word) = &self.pending else { return };
        match line.as_ref().map(|line| line.say(word)) {
            Some(Err(Errno::AGAIN)) => return,
            Some(Err(_)) => *line = None,
            Some(Ok(())) | None => {}
        }
        self.pending = None;
    }
}
