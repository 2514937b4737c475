//! Tells the one who ordered a machine how it goes, in the words in which a container's first process does.

use std::os::fd::OwnedFd;

use crate::backend::BackendError;
use crate::backend::dialogue::BEFORE_STEPS;
use crate::init::report::Message;
use crate::init::report::Reason;
use crate::init::report::Trouble;
use crate::plan::step::Barrier;
use crate::sys::Errno;

/// The most words that are told of a failure, in bytes.
const MOST_WORDS: usize = 1500;

/// The way to the one who ordered it; closed when all that they wait for is there.
#[derive(Debug)]
pub(super) struct Reporter {
    channel: Option<OwnedFd>,
}

impl Reporter {
    pub(super) fn new(channel: OwnedFd) -> Self {
        Self {
            channel: Some(channel),
        }
    }

    /// Says that a point is reached.
    pub(super) fn reached(&self, barrier: Barrier) -> Result<(), BackendError> {
        let Some(channel) = &self.channel else {
            return Ok(());
        };
        Message::Reached(barrier)
            .send(channel)
            .map_err(BackendError::kernel("report to the runtime"))
    }

    /// Waits until what was waited for at a point is done.
    pub(super) fn wait(&self) -> Result<(), BackendError> {
        let Some(channel) = &self.channel else {
            return Ok(());
        };
        let mut byte = [0u8; 1];
        let read = rustix::io::retry_on_intr(|| rustix::io::read(channel, &mut byte))
            .map_err(BackendError::kernel("hear from the runtime"))?;
        if read == 1 {
            Ok(())
        } else {
            Err(BackendError::Machine("the runtime went away".to_owned()))
        }
    }

    /// Says why it failed; when nobody listens any more there is nobody to tell.
    pub(super) fn failed(&self, error: BackendError) {
        let (index, trouble) = match error {
            BackendError::Step(error) => (error.index, error.trouble),
            BackendError::Kernel { what, source } => {
                let trouble = Trouble {
                    errno: source,
                    reason: Reason::Plain,
                    detail: format!("cannot {what}"),
                };
                (BEFORE_STEPS, trouble)
            }
            other @ (BackendError::Died(_)
            | BackendError::Attendant(_)
            | BackendError::Helper { .. }
            | BackendError::Inside(_)
            | BackendError::Machine(_)
            | BackendError::Field { .. }
            | BackendError::OtherNamespace { .. }
            | BackendError::OutOfTurn) => (BEFORE_STEPS, in_words(&other)),
        };
        if let Some(channel) = &self.channel {
            Message::Failed { index, trouble }
                .send(channel)
                .unwrap_or_default();
        }
    }

    pub(super) fn close(&mut self) {
        self.channel = None;
    }

    /// Reports over another channel from now on.
    pub(super) fn over(&mut self, channel: OwnedFd) {
        self.channel = Some(channel);
    }
}

fn in_words(error: &BackendError) -> Trouble {
    let mut detail = error.to_string();
    let mut end = detail.len().min(MOST_WORDS);
    while !detail.is_char_boundary(end) {
        end -= 1;
    }
    detail.truncate(end);
    Trouble {
        errno: Errno::IO,
        reason: Reason::Words,
        detail,
    }
}
