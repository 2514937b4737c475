//! Waiting for what happens to a workspace as a whole: memory runs out, or nobody is left.

use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;

use crate::enclosure::Enclosure;
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
    /// Where somebody else tells of kills that this kernel does not see (`eventfd(2)`, without blocking).
    told: Option<OwnedFd>,
}

impl Enclosure {
    /// Begins to watch: what was before does not count.
    ///
    /// # Errors
    ///
    /// If there is no cgroup, or it cannot be read.
    pub fn watch(&self) -> Result<Watch> {
        let group = self.group.as_ref().ok_or_else(|| self.missing("watch"))?;
        let failed = |source| self.failed("watch", source);
        let memory = match group.open("memory.events") {
            Err(Errno::NOENT) => None,
            other => Some(other.map_err(failed)?),
        };
        Ok(Watch {
            group: group.open("cgroup.events").map_err(failed)?,
            kills: self.oom_kills()?,
            memory,
            told: None,
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
        let told = watches.iter().filter_map(|watch| watch.told.as_ref());
        let mut files: Vec<PollFd<'_>> = files
            .map(|file| PollFd::new(file, PollFlags::PRI))
            .chain(told.map(|file| PollFd::new(file, PollFlags::IN)))
            .collect();
        match rustix::event::poll(&mut files, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

impl Watch {
    /// Adds the kills that are counted up in `told`, an event counter that does not block.
    pub fn hear(&mut self, told: OwnedFd) {
        self.told = Some(told);
    }

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
        let seen = self.seen_kills()?.unwrap_or_default();
        let told = self.told_kills().unwrap_or_default();
        Ok((seen + told > 0).then_some(seen + told))
    }

    fn told_kills(&self) -> Option<u64> {
        let mut count = [0; 8];
        let read = rustix::io::read(self.told.as_ref()?, &mut count).ok()?;
        (read == count.len()).then(|| u64::from_ne_bytes(count))
    }

    fn seen_kills(&mut self) -> crate::sys::Result<Option<u64>> {
        let all = match self.memory.as_ref().map(read_again) {
            Some(Err(Errno::NODEV)) | None => return Ok(None),
            Some(read) => oom_kills(&read?),
        };
        let new = all.saturating_sub(self.kills);
        self.kills = all;
        Ok((new > 0).then_some(new))
    }
}

/// Watches for a workspace that needs more memory than it may have.
#[derive(Debug)]
pub struct OverLimit {
    events: OwnedFd,
    pressure: Option<OwnedFd>,
    kills: u64,
}

/// In 1.6 of 2 seconds all of the workspace stood still and waited for memory (`Documentation/accounting/psi.rst`).
const STALLED: &[u8] = b"full 1600000 2000000\0";

impl Enclosure {
    /// Begins to watch for a want of memory; of a `fresh` workspace all counts, of another not what was before. Without the memory controller, or without
    /// a cgroup, there is nothing to watch.
    ///
    /// # Errors
    ///
    /// If the files of the cgroup cannot be read.
    pub fn watch_memory(&self, fresh: bool) -> Result<Option<OverLimit>> {
        let failed = |source| self.failed("watch", source);
        let Some(group) = &self.group else {
            return Ok(None);
        };
        let events = match group.open("memory.events") {
            Err(Errno::NOENT | Errno::NODEV) => return Ok(None),
            other => other.map_err(failed)?,
        };
        // Kernels without pressure accounting tell of kills alone.
        let pressure = group
            .open_to_trigger("memory.pressure")
            .and_then(|file| rustix::io::write(&file, STALLED).map(|_| file))
            .ok();
        let before = oom_kills(&read_again(&events).map_err(failed)?);
        let kills = if fresh { 0 } else { before };
        Ok(Some(OverLimit {
            events,
            pressure,
            kills,
        }))
    }
}

impl OverLimit {
    /// The files that have something to tell when `poll(2)` gives [`PollFlags::PRI`] for them.
    pub fn files(&self) -> impl Iterator<Item = &OwnedFd> {
        std::iter::once(&self.events).chain(&self.pressure)
    }

    /// Whether any of its processes was killed for want of memory, or, where `stalled` says that the second of the
    /// files has something to tell, all of them stand still for it.
    pub fn happened(&mut self, stalled: bool) -> bool {
        let kills = read_again(&self.events).map_or(self.kills, |text| oom_kills(&text));
        let killed = kills > self.kills;
        self.kills = kills;
        killed || stalled
    }
}
