//! What each part of a machine's cgroup has used, and what the machine in it has cost besides.

use std::path::Path;

use crate::enclosure::Enclosure;
use crate::enclosure::Result;
use crate::enclosure::counters::machine::MachineCounters;
use crate::enclosure::counters::parse;
use crate::enclosure::counters::pressure;
use crate::enclosure::group::Group;
use crate::enclosure::threads;
use crate::sys::Errno;

/// What the parts of a machine have used; what they do not hold is the processes that stand for the programs inside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpentParts {
    /// The processors of the guest.
    pub processors: SpentPart,
    /// The VMM's other threads.
    pub devices: SpentPart,
    /// The file server.
    pub files: SpentPart,
    /// The kernel's threads for its devices; none where it has none.
    pub kernel: Option<SpentPart>,
}

/// What one part has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpentPart {
    /// Microseconds of processor time.
    pub total_us: u64,
    /// Microseconds for which a limit of its own kept it from running; none without one.
    pub throttled_us: Option<u64>,
    /// Microseconds in which one of its threads waited for a processor; none where the kernel does not tell.
    pub waited_us: Option<u64>,
}

impl Enclosure {
    /// What the parts of a machine have used; none when it could not be divided into any, or they are gone.
    ///
    /// # Errors
    ///
    /// If there is no cgroup, or it cannot be read.
    pub fn spent_in_parts(&self) -> Result<Option<SpentParts>> {
        let group = self.group.as_ref().ok_or_else(|| self.missing("count"))?;
        read(group).map_err(|source| self.failed("read the parts of", source))
    }

    /// What the machine that runs in it has cost; none when there is none, or it may not be looked into.
    #[must_use]
    pub fn machine(&self) -> Option<MachineCounters> {
        let part = self.group.as_ref()?.below(Path::new(threads::VCPU)).ok()?;
        let threads = part.read("cgroup.threads").ok()?;
        let processor = threads.lines().next()?;
        let status = std::fs::read_to_string(format!("/proc/{processor}/status")).ok()?;
        let process = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
        MachineCounters::of(process.trim().parse().ok()?).ok()
    }
}

fn read(group: &Group) -> crate::sys::Result<Option<SpentParts>> {
    let Some(processors) = part(group, threads::VCPU)? else {
        return Ok(None);
    };
    Ok(Some(SpentParts {
        processors,
        devices: part(group, threads::VMM)?.unwrap_or_default(),
        files: part(group, threads::FILES)?.unwrap_or_default(),
        kernel: part(group, threads::VHOST)?,
    }))
}

fn part(whole: &Group, name: &str) -> crate::sys::Result<Option<SpentPart>> {
    let part = match whole.below(Path::new(name)) {
        Ok(part) => part,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let cpu = parse::pairs(&part.read("cpu.stat")?);
    let waited = pressure(&part, "cpu.pressure")?;
    Ok(Some(SpentPart {
        total_us: cpu.get("usage_usec").copied().unwrap_or_default(),
        throttled_us: cpu.get("throttled_usec").copied(),
        waited_us: waited.map(|waited| waited.some.total_us),
    }))
}
