//! Whether a limit of memory was met: of itself the kernel says only that a process was killed, or that something could
//! not be had.

use std::fmt;

use crate::enclosure::Enclosure;

/// How a limit of memory was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    /// The limit, in bytes.
    pub limit: u64,
    /// What was in use when it was looked at, in bytes.
    pub current: u64,
    /// The most that was in use, in bytes; the kernel tells since Linux 5.19.
    pub peak: Option<u64>,
    /// How many processes were killed for it.
    pub kills: u64,
}

impl Enclosure {
    /// How its limit of memory was met; nothing when it was not, when there is none, or when nobody counts.
    #[must_use]
    pub fn shortage(&self) -> Option<Shortage> {
        let memory = self.counters().ok()?.memory?;
        let event = |name: &str| memory.events.get(name).copied().unwrap_or_default();
        let met = event("max") + event("oom") + event("oom_kill") > 0;
        Some(Shortage {
            limit: memory.max_bytes.filter(|_| met)?,
            current: memory.current_bytes,
            peak: memory.peak_bytes,
            kills: event("oom_kill"),
        })
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit, current, .. } = self;
        write!(f, "the limit is {limit} bytes, {current} in use")?;
        match self.peak {
            Some(peak) => write!(f, ", {peak} at most"),
            None => Ok(()),
        }
    }
}
