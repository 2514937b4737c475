//! How large a machine is, and what that means for its enclosure: what the workload may use, and the machine's own on top.

use serde::Deserialize;
use serde::Serialize;

use crate::plan::cgroup::Present;
use crate::plan::machine::Extent;
use crate::plan::machine::MachineError;
use crate::spec::Spec;
use crate::spec::asked::Asked;
use crate::spec::asked::OverLimit;
use crate::spec::resources::Cpu;
use crate::spec::resources::DeviceRule;
use crate::spec::resources::Resources;

/// The most processors a machine has.
const MOST_CPUS: u32 = 32;
/// What a workload without a limit of memory gets, in bytes.
pub(super) const USUAL_MEMORY: u64 = 512 << 20;
/// The least memory a guest boots in, in bytes.
const LEAST_MEMORY: u64 = 128 << 20;
/// What a guest's kernel and agent need for themselves, in bytes, beside a part of all memory.
const KERNEL: u64 = 96 << 20;
/// One part in so many of a guest's memory describes that memory (64 bytes for each page of 4096).
const PAGE_TABLES: u64 = 64;
/// What the machine's own processes need beside the guest's memory, in bytes.
const PROCESSES: u64 = 48 << 20;
/// What each processor of the machine adds to that, in bytes.
const PROCESSOR: u64 = 1 << 20;
/// Guest memory is a multiple of this, in bytes: one huge page.
const GRAIN: u64 = 2 << 20;
/// Of what a workload may use of the processors, the machine's own threads get this part more.
const HEADROOM: u64 = 4;
/// The least that they get, in thousandths of a processor.
const LEAST_HEADROOM_MILLI: u64 = 250;
/// `MISC_MAJOR` of `linux/major.h`.
const MISC: i64 = 10;
/// The minor number of `/dev/kvm`.
const KVM: i64 = 232;
/// The minor number of `/dev/vhost-net`.
const VHOST_NET: i64 = 238;
/// The limit of tasks in cgroup v2.
const TASKS: &str = "pids.max";
/// The period of the kernel's own, in microseconds.
const PERIOD_US: u64 = 100_000;

/// Processors and memory of a machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// How many processors.
    pub vcpus: u32,
    /// Its memory, in bytes.
    pub memory_bytes: u64,
}

/// What a workload may use inside its machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestLimits {
    /// Bytes of memory; none is all of the machine's.
    pub memory_bytes: Option<u64>,
    /// Bytes of memory from which on the workload is slowed down and gives some back; none is never.
    #[serde(default)]
    pub high_bytes: Option<u64>,
    /// Whether the guest's kernel ends all of the workload when it must end some of it for want of memory.
    #[serde(default)]
    pub ends_whole: bool,
    /// How many tasks; none is without limit.
    pub pids: Option<u64>,
    /// Bytes of the machine's memory that the workload may not use any more, which the guest is asked to give back.
    #[serde(default)]
    pub spare_bytes: u64,
}

/// The size of the machine that a spec asks for.
pub(super) fn of(spec: &Spec) -> Result<Size, MachineError> {
    let hardware = spec.vm.as_ref().and_then(|vm| vm.hw_config.as_ref());
    let resources = spec.linux.resources.as_ref();
    let cpu = resources.and_then(|asked| asked.cpu.as_ref());
    let vcpus = match hardware.and_then(|hardware| hardware.vcpus) {
        Some(asked) if (1..=MOST_CPUS).contains(&asked) => asked,
        Some(asked) => {
            return Err(MachineError::Range {
                field: "vm.hwConfig.vcpus",
                value: asked.into(),
                expected: "a number from 1 to 32",
            });
        }
        None => cpu.map_or(1, processors),
    };
    let memory_bytes = match hardware.and_then(|hardware| hardware.memory) {
        Some(asked) if asked >= LEAST_MEMORY => asked / GRAIN * GRAIN,
        Some(asked) => {
            return Err(MachineError::Range {
                field: "vm.hwConfig.memory",
                value: asked,
                expected: "at least 134217728 bytes",
            });
        }
        None => with_kernel(resources.and_then(memory).flatten().unwrap_or(USUAL_MEMORY)),
    };
    Ok(Size {
        vcpus,
        memory_bytes,
    })
}

/// As many as the limit of processor time needs, rounded up.
fn processors(cpu: &Cpu) -> u32 {
    let quota = cpu.quota.and_then(|quota| u64::try_from(quota).ok());
    let Some(quota) = quota.filter(|quota| *quota > 0) else {
        return 1;
    };
    let needed = quota.div_ceil(period(cpu));
    u32::try_from(needed).map_or(MOST_CPUS, |needed| needed.clamp(1, MOST_CPUS))
}

fn period(cpu: &Cpu) -> u64 {
    cpu.period.filter(|period| *period > 0).unwrap_or(PERIOD_US)
}

/// What is said of a limit: nothing, that there is none, or how much.
type Said = Option<Option<u64>>;

/// A number of the specification's: zero says nothing, -1 that there is no limit.
fn said(number: Option<i64>) -> Said {
    let number = number.filter(|number| *number != 0)?;
    Some(u64::try_from(number).ok())
}

/// A number for a file of cgroup v2. What is none is left to the host's kernel to refuse.
fn unified(asked: &Resources, file: &str) -> Said {
    match asked.unified.get(file)?.trim() {
        "max" => Some(None),
        number => number.parse().ok().map(Some),
    }
}

/// What is said of the workload's memory; `unified` wins, as for a container.
fn memory(asked: &Resources) -> Said {
    let field = asked.memory.as_ref().and_then(|memory| memory.limit);
    unified(asked, "memory.max").or_else(|| said(field))
}

/// What is said of the number of its tasks.
fn tasks(asked: &Resources) -> Said {
    let field = asked.pids.as_ref().and_then(|pids| pids.limit);
    unified(asked, TASKS).or_else(|| said(field))
}

impl GuestLimits {
    /// These, but for what is asked for.
    fn with(self, asked: &Resources) -> Self {
        let whole = asked.unified.get("memory.oom.group");
        Self {
            memory_bytes: memory(asked).unwrap_or(self.memory_bytes),
            high_bytes: unified(asked, "memory.high").unwrap_or(self.high_bytes),
            ends_whole: whole.map_or(self.ends_whole, |value| value.trim() == "1"),
            pids: tasks(asked).unwrap_or(self.pids),
            spare_bytes: self.spare_bytes,
        }
    }
}

fn with_kernel(workload: u64) -> u64 {
    let all = workload + workload / PAGE_TABLES + KERNEL;
    all.max(LEAST_MEMORY).div_ceil(GRAIN) * GRAIN
}

/// What a machine of this size needs on the host beyond what its workload may use, in bytes.
#[must_use]
pub fn overhead(size: Size, workload: u64) -> u64 {
    let guest = size.memory_bytes.saturating_sub(workload);
    guest + PROCESSES + PROCESSOR * u64::from(size.vcpus)
}

/// The limits that hold inside the guest. What is started again for want of memory ends as a whole before.
pub(super) fn inside(spec: &Spec, asked: &Asked) -> GuestLimits {
    let limits = GuestLimits {
        ends_whole: asked.over_limit == OverLimit::Reset,
        ..GuestLimits::default()
    };
    let resources = spec.linux.resources.as_ref();
    resources.map_or(limits, |asked| limits.with(asked))
}

/// The limits inside after some of them are changed; zero leaves alone, -1 is without limit.
pub(super) fn changed(extent: &Extent, asked: &Resources) -> Result<GuestLimits, MachineError> {
    let mut limits = extent.limits.with(asked);
    let Some(wanted) = memory(asked) else {
        return Ok(limits);
    };
    let most = extent.size.memory_bytes.saturating_sub(KERNEL);
    if let Some(value) = wanted.filter(|wanted| *wanted > most) {
        return Err(MachineError::Range {
            field: "linux.resources.memory.limit",
            value,
            expected: "within the memory that the machine was made with; vm.hwConfig.memory makes it larger",
        });
    }
    let needed = wanted.map(with_kernel);
    limits.spare_bytes = needed.map_or(0, |needed| extent.size.memory_bytes.saturating_sub(needed));
    Ok(limits)
}

/// The limits of a machine's enclosure on the host: those that were asked for, with room for the machine. Tasks are
/// counted inside, and devices are the machine's: what its own processes open is all that is let through.
#[must_use]
pub fn enclosed(asked: &Resources, extent: &Extent) -> Resources {
    let mut room = asked.clone();
    room.pids = None;
    if unified(asked, TASKS).is_some() {
        room.unified.remove(TASKS);
    }
    room.hugepage_limits.clear();
    room.devices = devices();
    let more = extent.overhead();
    if let Some(memory) = &mut room.memory {
        let more = i64::try_from(more).unwrap_or(i64::MAX);
        for bytes in [&mut memory.limit, &mut memory.swap].into_iter().flatten() {
            if *bytes > 0 {
                *bytes = bytes.saturating_add(more);
            }
        }
    }
    for file in ["memory.max", "memory.high"] {
        if let Some(Some(bytes)) = unified(asked, file) {
            let bytes = bytes.saturating_add(more).to_string();
            room.unified.insert(file.to_owned(), bytes);
        }
    }
    if let Some(cpu) = &mut room.cpu
        && let Some(quota) = cpu.quota.filter(|quota| *quota > 0)
    {
        let least = i64::try_from(period(cpu) * LEAST_HEADROOM_MILLI / 1000).unwrap_or_default();
        let headroom = i64::try_from(HEADROOM).map_or(0, |part| quota / part);
        cpu.quota = Some(quota.saturating_add(headroom.max(least)));
    }
    room
}

/// The limit of a machine's processors alone, which have no room in theirs: what was asked for the workload, beside what is
/// in `present`. None when that changes nothing. So many processors as the limit is worth cannot use more than it,
/// and are never held.
#[must_use]
pub fn of_processors(asked: &Resources, size: Size, present: &Present) -> Option<Resources> {
    let asked = asked.cpu.as_ref()?;
    let said = asked.quota.filter(|quota| *quota != 0);
    if said.is_none() && asked.period.is_none_or(|period| period == 0) {
        return None;
    }
    let period = asked.period.filter(|period| *period > 0);
    let period = period.or(present.cpu_period).unwrap_or(PERIOD_US);
    let all = i64::try_from(period * u64::from(size.vcpus)).unwrap_or(i64::MAX);
    let quota = said.or(present.cpu_quota);
    let quota = quota.filter(|quota| (1..all).contains(quota));
    if quota.is_none() && present.cpu_quota.is_none() {
        return None;
    }
    let cpu = Cpu {
        quota: quota.or(Some(-1)),
        period: Some(period),
        burst: asked.burst.filter(|_| quota.is_some()),
        ..Cpu::default()
    };
    Some(Resources {
        cpu: Some(cpu),
        ..Resources::default()
    })
}

/// What the processes of a machine open beside what every process may: `/dev/kvm` and `/dev/vhost-net`.
fn devices() -> Vec<DeviceRule> {
    let rule = |allow, kind: &str, minor: Option<i64>| DeviceRule {
        allow,
        kind: Some(kind.to_owned()),
        major: minor.map(|_| MISC),
        minor,
        access: if allow { "rw" } else { "rwm" }.to_owned(),
    };
    vec![
        rule(false, "a", None),
        rule(true, "c", Some(KVM)),
        rule(true, "c", Some(VHOST_NET)),
    ]
}
