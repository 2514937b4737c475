//! The part of the counters that is billed, read often: neither limits nor what takes long to look for.

use std::collections::BTreeMap;

use crate::enclosure::Enclosure;
use crate::enclosure::Result;
use crate::enclosure::counters::IoDevice;
use crate::enclosure::counters::Pressure;
use crate::enclosure::counters::number;
use crate::enclosure::counters::optional;
use crate::enclosure::counters::parse;
use crate::enclosure::counters::pressure;
use crate::enclosure::group::Group;

/// The kinds of memory that are billed, as `memory.stat` names them.
const KINDS: [&str; 6] = ["anon", "file", "shmem", "kernel", "slab", "sock"];

/// What a cgroup has spent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Spent {
    /// `cpu.stat`: times in microseconds under their names there; those of the limit only with a cpu controller.
    pub cpu: BTreeMap<String, u64>,
    /// Memory; none without a memory controller.
    pub memory: Option<SpentMemory>,
    /// Block devices; none without an io controller.
    pub io: Option<Vec<IoDevice>>,
    /// Tasks; none without a pids controller.
    pub pids: Option<u64>,
    /// Time that was waited for processors, memory and block devices.
    pub pressure: [Option<Pressure>; 3],
}

/// Memory and swap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpentMemory {
    /// In use.
    pub current_bytes: u64,
    /// The most that has been in use (Linux 5.19).
    pub peak_bytes: Option<u64>,
    /// Swap in use.
    pub swap_current_bytes: u64,
    /// The kinds that are billed, from `memory.stat`.
    pub kinds: BTreeMap<String, u64>,
    /// `memory.events`.
    pub events: BTreeMap<String, u64>,
}

impl Enclosure {
    /// Reads what the cgroup has spent.
    ///
    /// # Errors
    ///
    /// If there is no cgroup, or it cannot be read.
    pub fn spent(&self) -> Result<Spent> {
        let group = self.group.as_ref().ok_or_else(|| self.missing("count"))?;
        read(group).map_err(|source| self.failed("read the counters of", source))
    }
}

fn read(group: &Group) -> crate::sys::Result<Spent> {
    let io = optional(group, "io.stat")?;
    Ok(Spent {
        cpu: parse::pairs(&group.read("cpu.stat")?),
        memory: memory(group)?,
        io: io.map(|stat| stat.lines().filter_map(parse::io_device).collect()),
        pids: number(group, "pids.current")?,
        pressure: [
            pressure(group, "cpu.pressure")?,
            pressure(group, "memory.pressure")?,
            pressure(group, "io.pressure")?,
        ],
    })
}

fn memory(group: &Group) -> crate::sys::Result<Option<SpentMemory>> {
    let Some(current_bytes) = number(group, "memory.current")? else {
        return Ok(None);
    };
    let stat = optional(group, "memory.stat")?.unwrap_or_default();
    let billed = stat.lines().filter(|line| {
        let name = line.split(' ').next().unwrap_or_default();
        KINDS.contains(&name)
    });
    let kinds = billed.flat_map(parse::pairs).collect();
    let events = optional(group, "memory.events")?.unwrap_or_default();
    Ok(Some(SpentMemory {
        current_bytes,
        peak_bytes: number(group, "memory.peak")?,
        swap_current_bytes: number(group, "memory.swap.current")?.unwrap_or_default(),
        kinds,
        events: parse::pairs(&events),
    }))
}
