//! What a workspace has used, key for key as `bulkhead usage --format json` and the ledger write it.
//!
//! Every figure is cumulative from the birth of its cgroup on, unless it says `current`; its unit stands in its name.
//! What cannot be known is left out, which is not the same as zero.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;

use crate::spec::id::ContainerId;

/// What a workspace has used up to one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Which workspace.
    pub id: ContainerId,
    /// When it was made, RFC 3339: with the id it names one life.
    pub created: String,
    /// The uptime of the host that it lives in, the kernel's id of it.
    pub boot: String,
    /// When this was read, RFC 3339.
    pub at: String,
    /// The wall it is behind: `container` or `microvm`.
    pub isolation: String,
    /// Processor time.
    pub cpu: Cpu,
    /// Memory and swap; absent without a memory controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// Block devices; absent without an io controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io: Option<Io>,
    /// Tasks; absent without a pids controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<Pids>,
    /// Network interfaces by name, but for loopback; absent when it has no network of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<BTreeMap<String, Link>>,
    /// Time that was waited for resources.
    pub pressure: Pressures,
    /// For how long it was granted; absent without a lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// Electric energy; absent where the host does not measure it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy: Option<Energy>,
    /// What KVM counts of its machine; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
}

/// Processor time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// All of it that its tasks have used (`cpu.stat`, `usage_usec`).
    pub total_us: u64,
    /// Of that, outside of the kernel.
    pub user_us: u64,
    /// Of that, in the kernel.
    pub system_us: u64,
    /// Time for which it was kept from running by its limit, added up over processors; absent without a cpu
    /// controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled_us: Option<u64>,
    /// Time for which it wanted to run, was not run, and had less than its guarantee (see [`crate::accounting::meter`]);
    /// absent where the kernel does not tell what waited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_ms: Option<u64>,
    /// The same total by who used it.
    pub roles: Roles,
    /// What the kernel did for it outside of its tasks.
    pub on_behalf: OnBehalf,
}

/// Processor time by who used it; what does not exist in a workspace of its kind is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roles {
    /// A container's tasks, or a machine's virtual processors.
    pub workload: Role,
    /// The device threads of a machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vmm: Option<Role>,
    /// The file server of a machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fileserver: Option<Role>,
    /// The kernel's threads for the devices of a machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vhost: Option<Role>,
    /// Processes that stand in for those of a machine, where a caller needs a number to wait for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Role>,
}

/// Processor time of one part of a workspace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// All of it.
    pub total_us: u64,
    /// Of that, in the guest; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_us: Option<u64>,
}

/// Processor time that the kernel used for a workspace outside of its tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnBehalf {
    /// How it was found.
    pub how: How,
    /// All of it that is known; absent when none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub us: Option<u64>,
    /// Of that, receiving and sending packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_softirq_us: Option<u64>,
}

/// How a figure was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// Counted as it happened.
    Exact,
    /// Concluded from what was counted.
    Estimated,
    /// Not at all.
    #[default]
    Unavailable,
}

/// Memory and swap.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// In use now.
    pub current_bytes: u64,
    /// The most that has been in use; absent before Linux 5.19.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_bytes: Option<u64>,
    /// Swap in use now.
    pub swap_current_bytes: u64,
    /// Of the present use, the memory of its guest; absent without a machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_bytes: Option<u64>,
    /// Of the present use, what its machine takes on top: all that is neither the guest's memory nor cache of files;
    /// absent without a machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overhead_bytes: Option<u64>,
    /// The present use by what it is used for.
    pub by_kind: Kinds,
    /// How often a bound was met.
    pub events: MemoryEvents,
}

/// Memory in use by what it is used for (`memory.stat`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kinds {
    /// Memory of programs.
    pub anon_bytes: u64,
    /// Cache of files.
    pub file_bytes: u64,
    /// Of the cache, what is shared memory and tmpfs.
    pub shmem_bytes: u64,
    /// The kernel's own, in all.
    pub kernel_bytes: u64,
    /// Of the kernel's, objects.
    pub slab_bytes: u64,
    /// Buffers of sockets.
    pub sock_bytes: u64,
}

/// How often a bound of memory was met (`memory.events`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryEvents {
    /// Slowed down at `memory.high`.
    pub high: u64,
    /// Met the limit.
    pub max: u64,
    /// Ran out of memory.
    pub oom: u64,
    /// Processes that were killed for it.
    pub oom_kill: u64,
}

/// Block devices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Io {
    /// By `MAJOR:MINOR`.
    pub devices: BTreeMap<String, Device>,
}

/// One block device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Read from it.
    pub read_bytes: u64,
    /// Written to it.
    pub written_bytes: u64,
    /// Discarded on it.
    pub discarded_bytes: u64,
    /// Requests to read.
    pub read_operations: u64,
    /// Requests to write.
    pub write_operations: u64,
    /// Requests to discard.
    pub discard_operations: u64,
}

/// Tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pids {
    /// How many there are now.
    pub current: u64,
}

/// One network interface, seen from the workspace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Received.
    pub in_bytes: u64,
    /// Received.
    pub in_packets: u64,
    /// Lost on the way in.
    pub in_drops: u64,
    /// Sent.
    pub out_bytes: u64,
    /// Sent.
    pub out_packets: u64,
    /// Lost on the way out.
    pub out_drops: u64,
}

/// Time that was waited for resources; a part is absent where the kernel does not measure it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Pressures {
    /// For a processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Pressure>,
    /// For memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Pressure>,
    /// For block devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io: Option<Pressure>,
}

/// Time that was waited for one resource.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Pressure {
    /// Time in which somebody waited.
    pub some_us: u64,
    /// Time in which everybody waited.
    pub full_us: u64,
    /// Percent of the last ten seconds in which somebody waited.
    pub some_avg10_percent: f64,
    /// Percent of the last ten seconds in which everybody waited.
    pub full_avg10_percent: f64,
}

/// For how long a workspace was granted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// In all.
    pub granted_s: u64,
    /// Of that, what has gone by.
    pub used_s: u64,
    /// Of that, what is left.
    pub remaining_s: u64,
}

/// Electric energy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Energy {
    /// How it was found.
    pub how: How,
    /// Its part of what the processors' packages took.
    pub package_uj: u64,
}

/// What KVM counts of a machine (`KVM_GET_STATS_FD`), as of the last look at it while it ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// How often its guest was left.
    pub exits: u64,
    /// How often because it had nothing to do.
    pub halts: u64,
    /// Processor time that the kernel spent waiting for such a guest; contained in that of the workload.
    pub halt_polling_us: u64,
}

impl Usage {
    /// A figure of all its block devices together; none when they are not counted.
    #[must_use]
    pub fn of_devices(&self, figure: fn(&Device) -> u64) -> Option<u64> {
        let devices = self.io.as_ref()?.devices.values();
        Some(devices.map(figure).sum())
    }

    /// A figure of all its interfaces together; none when it has no network of its own.
    #[must_use]
    pub fn of_links(&self, figure: fn(&Link) -> u64) -> Option<u64> {
        let links = self.network.as_ref()?.values();
        Some(links.map(figure).sum())
    }
}

impl How {
    /// The word in documents.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Estimated => "estimated",
            Self::Unavailable => "unavailable",
        }
    }
}
