//! Talks with a process that does its steps, from the side of the one who made it.

use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::process::PidfdGetfdFlags;

use crate::backend::Attendant;
use crate::backend::BackendError;
use crate::backend::StepError;
use crate::backend::Waiting;
use crate::init::report::Message;
use crate::init::report::Trouble;
use crate::plan::step::Barrier;
use crate::plan::step::Step;
use crate::sys::Errno;
use crate::sys::process;

/// The index of a failure that belongs to no step: it happened on the way to the first.
pub(super) const BEFORE_STEPS: usize = u32::MAX as usize;

/// One process and the channel to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dialogue<'a> {
    /// What it does.
    pub(super) steps: &'a [Step],
    /// Where it reports.
    pub(super) channel: BorrowedFd<'a>,
    /// The process.
    pub(super) process: BorrowedFd<'a>,
    /// Its number on the host, for those who attend to it.
    pub(super) pid: i32,
}

/// What a process says that its maker has to act on.
#[derive(Debug)]
pub(super) enum Turn {
    /// It waits at this barrier.
    At(Barrier),
    /// It has become its program, or has ended.
    Gone,
}

impl<'a> Dialogue<'a> {
    /// One with a process that waits for its start.
    pub(super) fn with(waiting: &Waiting<'a>, steps: &'a [Step]) -> Self {
        Self {
            steps,
            channel: waiting.channel,
            process: waiting.process,
            pid: waiting.handle.pid,
        }
    }

    /// Listens until the process waits or is gone; a filter's agent is seen to on the way.
    pub(super) fn next(&self, attendant: &mut dyn Attendant) -> Result<Turn, BackendError> {
        loop {
            let message = Message::receive(self.channel)
                .map_err(BackendError::kernel("hear from the process"))?;
            match message {
                None => return Ok(Turn::Gone),
                Some(Message::Reached(barrier)) => return Ok(Turn::At(barrier)),
                Some(Message::Failed { index, trouble }) => return Err(self.failed(index, trouble)),
                Some(Message::Listener(number)) => {
                    let listener = self.take(number)?;
                    attendant
                        .notify(self.pid, listener)
                        .map_err(BackendError::Attendant)?;
                    release(self.channel)?;
                }
                Some(Message::Born(_)) => {
                    return Err(BackendError::OutOfTurn);
                }
            }
        }
    }

    /// Whether the process says something, or goes, within a time.
    fn is_heard_within(&self, time: &Timespec) -> Result<bool, Errno> {
        let mut heard = [PollFd::from_borrowed_fd(self.channel, PollFlags::IN)];
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut heard, Some(time)))
            .map(|ready| ready > 0)
    }

    /// Why something that somebody was to do to the process has failed: what the process has said of its own failure by now,
    /// when that came first, or else `otherwise`.
    pub(super) fn reason(&self, otherwise: BackendError) -> BackendError {
        loop {
            if self.is_heard_within(&Timespec::default()) != Ok(true) {
                return otherwise;
            }
            match Message::receive(self.channel) {
                Ok(Some(Message::Failed { index, trouble })) => return self.failed(index, trouble),
                Ok(Some(_)) => {}
                Ok(None) => {
                    return process::wait(self.process).map_or(otherwise, BackendError::Died);
                }
                Err(_) => return otherwise,
            }
        }
    }

    /// Listens until the program runs: the channel closes with `execve(2)`.
    pub(super) fn until_program(&self, attendant: &mut dyn Attendant) -> Result<(), BackendError> {
        match self.next(attendant)? {
            Turn::Gone => Ok(()),
            Turn::At(_) => Err(BackendError::OutOfTurn),
        }
    }

    /// Takes a descriptor out of the process (`pidfd_getfd(2)`, Linux 5.6).
    fn take(&self, number: i32) -> Result<OwnedFd, BackendError> {
        rustix::process::pidfd_getfd(self.process, number, PidfdGetfdFlags::empty()).map_err(
            BackendError::kernel("take the filter's listener from the process"),
        )
    }

    fn failed(&self, index: usize, trouble: Trouble) -> BackendError {
        StepError {
            index,
            total: self.steps.len(),
            step: self.steps.get(index).cloned(),
            trouble,
        }
        .into()
    }
}

/// Lets a waiting process go on.
pub(super) fn release(channel: BorrowedFd<'_>) -> Result<(), BackendError> {
    loop {
        match rustix::io::write(channel, &[1]) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            // It has ended; the next thing heard from it says so better.
            Err(Errno::PIPE) => return Ok(()),
            Err(errno) => return Err(BackendError::kernel("answer the process")(errno)),
        }
    }
}
