//! Waiting for what happens to a workspace as a whole: memory runs out, or nobody is left.

use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;

use crate::enclosure::Enclosure;
use crate::enclosure::EnclosureError;
use crate::enclosure::Result;
use crate::enclosure::counters::oom_kills;
use crate::enclosure::group::State;
use crate::enclosure::group::read_again;
use crate::sys::Errno;

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// So many have been killed because memory was out, since the last time of asking.
    OutOfMemory {
        /// How many.
        kills: u64,
    },
    /// Nobody is in the cgroup or below it any more, or it is gone.
    Empty,
}

/// Watches one cgroup.
#[derive(Debug)]
pub struct Watch {
    group: OwnedFd,
    memory: Option<OwnedFd>,
    kills: u64,
}

impl Enclosure {
    /// Begins to watch: what was before does not count.
    ///
    /// # Errors
    ///
    /// If there is no cgroup, or it cannot be read.
    pub fn watch(&self) -> Result<Watch> {
        let group = self
            .group
            .as_ref()
            .ok_or(EnclosureError::NoCgroup { action: "watch" })?;
        let failed = |source| self.failed("watch", source);
        let memory = match group.open("memory.events") {
            Err(Errno::NOENT) => None,
            other => Some(other.map_err(failed)?),
        };
        Ok(Watch {
            group: group.open("cgroup.events").map_err(failed)?,
            kills: self.oom_kills()?,
            memory,
        })
    }
}

/// Waits for the first event of any of several cgroups, and says of which; none if the deadline comes first.
///
/// # Errors
///
/// As `poll(2)`. A cgroup that is gone is [`Event::Empty`].
pub fn first(
    watches: &mut [Watch],
    deadline: Option<Instant>,
) -> crate::sys::Result<Option<(usize, Event)>> {
    loop {
        for (index, watch) in watches.iter_mut().enumerate() {
            if let Some(event) = watch.look()? {
                return Ok(Some((index, event)));
            }
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(None);
        }
        let left = left
            .map(Timespec::try_from)
            .transpose()
            .map_err(|_| Errno::INVAL)?;
        let files = watches
            .iter()
            .flat_map(|watch| std::iter::once(&watch.group).chain(&watch.memory));
        let mut files: Vec<PollFd<'_>> = files
            .map(|file| PollFd::new(file, PollFlags::PRI))
            .collect();
        match rustix::event::poll(&mut files, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

impl Watch {
    /// Reads both files, which also arms their next events. Kills are told before the end they may have led to: what
    /// was counted before a group became empty can be read once it is.
    fn look(&mut self) -> crate::sys::Result<Option<Event>> {
        if let Some(kills) = self.new_kills()? {
            return Ok(Some(Event::OutOfMemory { kills }));
        }
        let populated = match read_again(&self.group) {
            Err(Errno::NODEV) => false,
            other => State::parse(&other?).populated,
        };
        if populated {
            return Ok(None);
        }
        let kills = self.new_kills()?;
        Ok(Some(kills.map_or(Event::Empty, |kills| {
            Event::OutOfMemory { kills }
        })))
    }

    fn new_kills(&mut self) -> crate::sys::Result<Option<u64>> {
        let all = match self.memory.as_ref().map(read_again) {
            Some(Err(Errno::NODEV)) | None => return Ok(None),
            Some(read) => oom_kills(&read?),
        };
        let new = all.saturating_sub(self.kills);
        self.kills = all;
        Ok((new > 0).then_some(new))
    }
}
