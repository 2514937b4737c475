//! What a workspace has used, as the kernel counted it, with units in the names.
//!
//! A controller that is not enabled counts nothing: its part is then none, which is not the same as zero. The
//! processor's time is counted for every cgroup.

pub mod machine;
mod parse;
mod parts;
mod spent;

use std::collections::BTreeMap;

use serde::Serialize;

pub use parts::SpentPart;
pub use parts::SpentParts;
pub use spent::Spent;
pub use spent::SpentMemory;

use crate::enclosure::Enclosure;
use crate::enclosure::Result;
use crate::enclosure::group::Group;
use crate::sys::Errno;

/// Everything that a cgroup counts.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Counters {
    /// Processor time.
    pub cpu: Cpu,
    /// Where the workspace may run.
    pub cpuset: Option<Cpuset>,
    /// Memory and swap.
    pub memory: Option<Memory>,
    /// Tasks.
    pub pids: Option<Pids>,
    /// Block devices.
    pub io: Option<Io>,
    /// Huge pages, by page size as the kernel names it (`2MB`).
    pub hugetlb: BTreeMap<String, Hugetlb>,
    /// RDMA devices.
    pub rdma: Vec<Rdma>,
}

/// Processor time (`cpu.stat`, `cpu.pressure`).
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// All of it.
    pub usage_us: u64,
    /// Outside of the kernel.
    pub user_us: u64,
    /// In the kernel.
    pub system_us: u64,
    /// Periods of the limit that have passed.
    pub periods: u64,
    /// Those in which the limit was met.
    pub throttled_periods: u64,
    /// Time that was waited because of the limit.
    pub throttled_us: u64,
    /// Periods in which saved time was used.
    pub bursts: u64,
    /// Saved time that was used.
    pub burst_us: u64,
    /// Time that was waited for a processor.
    pub pressure: Option<Pressure>,
}

/// Where the workspace may run, after all of its ancestors have had their say.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Cpuset {
    /// Processors, like `0-3`.
    pub cpus: String,
    /// Memory nodes, like `0`.
    pub mems: String,
}

/// Memory and swap (`memory.*`).
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Memory {
    /// In use.
    pub current_bytes: u64,
    /// The most that has been in use (Linux 5.19).
    pub peak_bytes: Option<u64>,
    /// The limit; none is without limit.
    pub max_bytes: Option<u64>,
    /// Swap in use.
    pub swap_current_bytes: u64,
    /// The most swap that has been in use (Linux 6.5).
    pub swap_peak_bytes: Option<u64>,
    /// The limit of swap alone; none is without limit.
    pub swap_max_bytes: Option<u64>,
    /// `memory.stat`: what it is used for; bytes, except for the counts of events at the end.
    pub stat: BTreeMap<String, u64>,
    /// `memory.events`: how often a limit was met, here and below.
    pub events: BTreeMap<String, u64>,
    /// Time that was waited for memory.
    pub pressure: Option<Pressure>,
}

/// Tasks (`pids.*`).
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Pids {
    /// How many there are.
    pub current: u64,
    /// How many there may be; none is without limit.
    pub max: Option<u64>,
}

/// Block devices (`io.stat`, `io.pressure`).
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Io {
    /// Device by device.
    pub devices: Vec<IoDevice>,
    /// Time that was waited for block devices.
    pub pressure: Option<Pressure>,
}

/// One block device.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct IoDevice {
    /// Its major number.
    pub major: u64,
    /// Its minor number.
    pub minor: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Bytes discarded.
    pub discarded_bytes: u64,
    /// How often was read.
    pub reads: u64,
    /// How often was written.
    pub writes: u64,
    /// How often was discarded.
    pub discards: u64,
}

/// Huge pages of one size (`hugetlb.SIZE.*`).
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Hugetlb {
    /// In use.
    pub current_bytes: u64,
    /// The limit; none is without limit.
    pub max_bytes: Option<u64>,
    /// Reserved.
    pub reserved_bytes: u64,
    /// How often the limit was met.
    pub failures: u64,
}

/// One RDMA device (`rdma.*`).
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Rdma {
    /// Its name.
    pub device: String,
    /// Handles in use.
    pub handles: u64,
    /// Objects in use.
    pub objects: u64,
}

/// Time that was waited for a resource (`*.pressure`).
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Pressure {
    /// Time in which somebody waited.
    pub some: Waited,
    /// Time in which everybody waited.
    pub full: Waited,
}

/// Shares of time waited, in percent of the last 10, 60 and 300 seconds, and all of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Waited {
    /// Percent of the last 10 s.
    pub avg10: f64,
    /// Percent of the last 60 s.
    pub avg60: f64,
    /// Percent of the last 300 s.
    pub avg300: f64,
    /// All of it, in microseconds.
    #[serde(rename = "total_us")]
    pub total_us: u64,
}

impl Enclosure {
    /// Reads everything that the cgroup has counted.
    ///
    /// # Errors
    ///
    /// If there is no cgroup, or it cannot be read.
    pub fn counters(&self) -> Result<Counters> {
        let group = self.group.as_ref().ok_or_else(|| self.missing("count"))?;
        read(group).map_err(|source| self.failed("read the counters of", source))
    }

    /// How often somebody of this cgroup or below it was killed because memory was out.
    ///
    /// # Errors
    ///
    /// If the file cannot be read. Without a memory controller nobody is killed for its limit.
    pub fn oom_kills(&self) -> Result<u64> {
        let events = match self
            .group
            .as_ref()
            .map(|group| optional(group, "memory.events"))
        {
            None => None,
            Some(read) => read.map_err(|source| self.failed("read the events of", source))?,
        };
        Ok(events.map(|lines| oom_kills(&lines)).unwrap_or_default())
    }
}

/// The number of kills in the lines of `memory.events`.
pub(super) fn oom_kills(lines: &str) -> u64 {
    parse::pairs(lines)
        .get("oom_kill")
        .copied()
        .unwrap_or_default()
}

fn read(group: &Group) -> crate::sys::Result<Counters> {
    let cpu = parse::pairs(&group.read("cpu.stat")?);
    let of = |name: &str| cpu.get(name).copied().unwrap_or_default();
    Ok(Counters {
        cpu: Cpu {
            usage_us: of("usage_usec"),
            user_us: of("user_usec"),
            system_us: of("system_usec"),
            periods: of("nr_periods"),
            throttled_periods: of("nr_throttled"),
            throttled_us: of("throttled_usec"),
            bursts: of("nr_bursts"),
            burst_us: of("burst_usec"),
            pressure: pressure(group, "cpu.pressure")?,
        },
        cpuset: cpuset(group)?,
        memory: memory(group)?,
        pids: pids(group)?,
        io: io(group)?,
        hugetlb: hugetlb(group)?,
        rdma: optional(group, "rdma.current")?
            .as_deref()
            .map(parse::rdma)
            .unwrap_or_default(),
    })
}

fn cpuset(group: &Group) -> crate::sys::Result<Option<Cpuset>> {
    let Some(cpus) = optional(group, "cpuset.cpus.effective")? else {
        return Ok(None);
    };
    let mems = optional(group, "cpuset.mems.effective")?.unwrap_or_default();
    Ok(Some(Cpuset {
        cpus: cpus.trim().to_owned(),
        mems: mems.trim().to_owned(),
    }))
}

fn memory(group: &Group) -> crate::sys::Result<Option<Memory>> {
    let Some(current_bytes) = number(group, "memory.current")? else {
        return Ok(None);
    };
    let pairs = |file| -> crate::sys::Result<BTreeMap<String, u64>> {
        Ok(optional(group, file)?
            .as_deref()
            .map(parse::pairs)
            .unwrap_or_default())
    };
    Ok(Some(Memory {
        current_bytes,
        peak_bytes: number(group, "memory.peak")?,
        max_bytes: number(group, "memory.max")?,
        swap_current_bytes: number(group, "memory.swap.current")?.unwrap_or_default(),
        swap_peak_bytes: number(group, "memory.swap.peak")?,
        swap_max_bytes: number(group, "memory.swap.max")?,
        stat: pairs("memory.stat")?,
        events: pairs("memory.events")?,
        pressure: pressure(group, "memory.pressure")?,
    }))
}

fn pids(group: &Group) -> crate::sys::Result<Option<Pids>> {
    let Some(current) = number(group, "pids.current")? else {
        return Ok(None);
    };
    Ok(Some(Pids {
        current,
        max: number(group, "pids.max")?,
    }))
}

fn io(group: &Group) -> crate::sys::Result<Option<Io>> {
    let Some(stat) = optional(group, "io.stat")? else {
        return Ok(None);
    };
    let devices = stat.lines().filter_map(parse::io_device).collect();
    Ok(Some(Io {
        devices,
        pressure: pressure(group, "io.pressure")?,
    }))
}

/// The sizes are those that the group has files for.
fn hugetlb(group: &Group) -> crate::sys::Result<BTreeMap<String, Hugetlb>> {
    let mut found = BTreeMap::new();
    for file in group.files()? {
        let size = file
            .strip_prefix("hugetlb.")
            .and_then(|rest| rest.strip_suffix(".current"));
        let Some(size) = size.filter(|size| !size.contains('.')) else {
            continue;
        };
        let of = |name: &str| number(group, &format!("hugetlb.{size}.{name}"));
        let events = optional(group, &format!("hugetlb.{size}.events"))?.unwrap_or_default();
        let counted = Hugetlb {
            current_bytes: of("current")?.unwrap_or_default(),
            max_bytes: of("max")?,
            reserved_bytes: of("rsvd.current")?.unwrap_or_default(),
            failures: parse::pairs(&events)
                .get("max")
                .copied()
                .unwrap_or_default(),
        };
        found.insert(size.to_owned(), counted);
    }
    Ok(found)
}

fn pressure(group: &Group, file: &str) -> crate::sys::Result<Option<Pressure>> {
    Ok(optional(group, file)?.as_deref().map(parse::pressure))
}

/// A file with one number; none if it is not there or says `max`.
fn number(group: &Group, file: &str) -> crate::sys::Result<Option<u64>> {
    Ok(optional(group, file)?.and_then(|text| text.trim().parse().ok()))
}

/// A file that belongs to a controller, or to a kernel, that may not be there.
fn optional(group: &Group, file: &str) -> crate::sys::Result<Option<String>> {
    match group.read(file) {
        Ok(text) => Ok(Some(text)),
        // The last is what pressure files say when the kernel was told not to measure it.
        Err(Errno::NOENT | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno),
    }
}
