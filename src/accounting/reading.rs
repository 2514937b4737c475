//! One look at a workspace: the counters of its cgroup and interfaces in the words of the bill.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Deserialize;
use serde::Serialize;

use crate::accounting::AccountingError;
use crate::accounting::usage::Cpu;
use crate::accounting::usage::Device;
use crate::accounting::usage::Io;
use crate::accounting::usage::Kinds;
use crate::accounting::usage::Lease;
use crate::accounting::usage::Link;
use crate::accounting::usage::Machine;
use crate::accounting::usage::Memory;
use crate::accounting::usage::MemoryEvents;
use crate::accounting::usage::Pids;
use crate::accounting::usage::Pressure;
use crate::accounting::usage::Pressures;
use crate::accounting::usage::Role;
use crate::accounting::usage::Roles;
use crate::accounting::usage::Usage;
use crate::enclosure::Enclosure;
use crate::enclosure::counters::IoDevice;
use crate::enclosure::counters::Spent;
use crate::enclosure::counters::SpentMemory;
use crate::enclosure::counters::SpentParts;
use crate::enclosure::counters::machine::MachineCounters;
use crate::spec::asked::Asked;
use crate::workspace::error::WorkspaceError;
use crate::workspace::interfaces::Interface;
use crate::workspace::lease;
use crate::workspace::lease::Term;
use crate::workspace::life;
use crate::workspace::record::Record;
use crate::workspace::store;
use crate::workspace::store::Home;

/// What is looked at.
#[derive(Debug)]
pub(super) struct Subject<'a> {
    pub(super) record: &'a Record,
    pub(super) enclosure: &'a Enclosure,
    /// Its interfaces; none when it has no network of its own, or that is gone.
    pub(super) interfaces: Option<Vec<Interface>>,
    /// What its machine has cost; none without one, or when that is not known.
    pub(super) machine: Option<MachineCounters>,
    /// From when until when it is granted; none without a lease, and before it is started.
    pub(super) term: Option<Term>,
}

/// The term of a workspace; one that cannot be read is none.
pub(super) fn term(home: &Home) -> Option<Term> {
    let bytes = home.read(store::LEASE).ok().flatten()?;
    serde_json::from_slice(&bytes).ok()
}

/// What one look has found.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) usage: Usage,
    /// What it was promised.
    pub(super) asked: Asked,
    pub(super) waited: Waited,
}

/// For how long it could have run and did not, since its beginning: by each of its processors, where that is known, and
/// as time in which anybody did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Waited {
    /// The delays of a machine's processors, added up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) delay_us: Option<u64>,
    /// Time in which somebody waited.
    pub(super) pressure_us: Option<u64>,
}

impl Waited {
    /// What is more of it than there was before; the exacter of the two that was known both times.
    pub(super) fn since(self, before: Self) -> Option<u64> {
        let more = |now: Option<u64>, before: Option<u64>| now?.checked_sub(before?);
        more(self.delay_us, before.delay_us).or_else(|| {
            let pair = self.pressure_us.zip(before.pressure_us);
            pair.map(|(now, before)| now.saturating_sub(before))
        })
    }
}

/// What is counted of a workspace, and what it was promised.
pub(super) fn read(subject: &Subject<'_>) -> Result<Look, AccountingError> {
    let record = subject.record;
    let asked = Asked::of(&record.annotations)?;
    if !subject.enclosure.exists() {
        return Err(AccountingError::Uncounted {
            id: record.id.to_string(),
        });
    }
    let unread = |source| AccountingError::Counters {
        id: record.id.to_string(),
        source,
    };
    // The parts come first: what is used between the two looks is then in the whole, and nothing is missing of it.
    let parts = match record.machine {
        Some(_) => subject.enclosure.spent_in_parts().map_err(unread)?,
        None => None,
    };
    let counted = subject.enclosure.spent().map_err(unread)?;
    let machine = subject.machine.as_ref();
    let now = SystemTime::now();
    let usage = Usage {
        id: record.id.clone(),
        created: record.created.clone(),
        boot: life::boot_id().map_err(WorkspaceError::probe)?,
        at: humantime::format_rfc3339_millis(now).to_string(),
        isolation: record.isolation.word().to_owned(),
        cpu: cpu(&counted, parts.as_ref(), machine),
        memory: counted.memory.as_ref().map(|one| {
            let memory = memory(one);
            match machine.and_then(|machine| machine.memory_bytes) {
                Some(guest) => split(memory, guest),
                None => memory,
            }
        }),
        io: counted.io.as_deref().map(io),
        pids: counted.pids.map(|current| Pids { current }),
        network: subject.interfaces.as_deref().map(network),
        pressure: pressures(&counted),
        lease: lease(subject.term, &asked),
        energy: None,
        machine: machine.map(|counted| Machine {
            exits: counted.exits,
            halts: counted.halts,
            halt_polling_us: counted.polling_us,
        }),
    };
    let waited = Waited {
        delay_us: machine.and_then(|machine| machine.delay_us),
        pressure_us: waited(&usage, parts.as_ref()),
    };
    Ok(Look {
        usage,
        asked,
        waited,
    })
}

/// Time that it waited for a processor in any way; none where the kernel does not tell. A machine waits when its
/// processors do, and their pressure has the time in it for which a limit kept them waiting.
fn waited(usage: &Usage, parts: Option<&SpentParts>) -> Option<u64> {
    if let Some(parts) = parts {
        return parts.processors.waited_us;
    }
    let queued = usage.pressure.cpu.as_ref()?.some_us;
    Some(queued + usage.cpu.throttled_us.unwrap_or_default())
}

/// The present use with the machine told from its guest: what is neither the guest's nor cache of files is the machine's.
fn split(memory: Memory, guest_bytes: u64) -> Memory {
    let kinds = &memory.by_kind;
    let cache = kinds.file_bytes.saturating_sub(kinds.shmem_bytes);
    let rest = memory.current_bytes.saturating_sub(guest_bytes);
    Memory {
        guest_bytes: Some(guest_bytes),
        overhead_bytes: Some(rest.saturating_sub(cache)),
        ..memory
    }
}

fn cpu(counted: &Spent, parts: Option<&SpentParts>, machine: Option<&MachineCounters>) -> Cpu {
    let of = |name: &str| counted.cpu.get(name).copied();
    let total_us = of("usage_usec").unwrap_or_default();
    Cpu {
        total_us,
        user_us: of("user_usec").unwrap_or_default(),
        system_us: of("system_usec").unwrap_or_default(),
        // A limit of the machine's processors is beside that of the whole.
        throttled_us: of("throttled_usec").map(|whole| {
            let own = parts.and_then(|parts| parts.processors.throttled_us);
            whole.saturating_add(own.unwrap_or_default())
        }),
        roles: roles(total_us, parts, machine),
        ..Cpu::default()
    }
}

/// The total by who used it. What is in none of a machine's parts are the processes that stand for programs inside.
fn roles(total_us: u64, parts: Option<&SpentParts>, machine: Option<&MachineCounters>) -> Roles {
    let role = |total_us| Role {
        total_us,
        guest_us: None,
    };
    let Some(parts) = parts else {
        return Roles {
            workload: Role {
                total_us,
                guest_us: machine.map(|machine| machine.guest_us.min(total_us)),
            },
            ..Roles::default()
        };
    };
    let workload = parts.processors.total_us;
    let others = [Some(parts.devices), Some(parts.files), parts.kernel];
    let others = others.into_iter().flatten().map(|part| part.total_us);
    let known = others.fold(workload, u64::saturating_add);
    Roles {
        workload: Role {
            total_us: workload,
            // Ticks are coarser than what the scheduler counts.
            guest_us: machine.map(|machine| machine.guest_us.min(workload)),
        },
        vmm: Some(role(parts.devices.total_us)),
        fileserver: Some(role(parts.files.total_us)),
        vhost: parts.kernel.map(|part| role(part.total_us)),
        proxy: Some(role(total_us.saturating_sub(known))),
    }
}

fn memory(counted: &SpentMemory) -> Memory {
    let kind = |name: &str| counted.kinds.get(name).copied().unwrap_or_default();
    let event = |name: &str| counted.events.get(name).copied().unwrap_or_default();
    Memory {
        current_bytes: counted.current_bytes,
        peak_bytes: counted.peak_bytes,
        swap_current_bytes: counted.swap_current_bytes,
        guest_bytes: None,
        overhead_bytes: None,
        by_kind: Kinds {
            anon_bytes: kind("anon"),
            file_bytes: kind("file"),
            shmem_bytes: kind("shmem"),
            kernel_bytes: kind("kernel"),
            slab_bytes: kind("slab"),
            sock_bytes: kind("sock"),
        },
        events: MemoryEvents {
            high: event("high"),
            max: event("max"),
            oom: event("oom"),
            oom_kill: event("oom_kill"),
        },
    }
}

fn io(counted: &[IoDevice]) -> Io {
    let devices = counted.iter().map(|device| {
        let figures = Device {
            read_bytes: device.read_bytes,
            written_bytes: device.written_bytes,
            discarded_bytes: device.discarded_bytes,
            read_operations: device.reads,
            write_operations: device.writes,
            discard_operations: device.discards,
        };
        (format!("{}:{}", device.major, device.minor), figures)
    });
    Io {
        devices: devices.collect(),
    }
}

fn network(interfaces: &[Interface]) -> BTreeMap<String, Link> {
    let links = interfaces.iter().map(|interface| {
        let [in_bytes, in_packets, _, in_drops] = interface.received;
        let [out_bytes, out_packets, _, out_drops] = interface.sent;
        let link = Link {
            in_bytes,
            in_packets,
            in_drops,
            out_bytes,
            out_packets,
            out_drops,
        };
        (interface.name.clone(), link)
    });
    links.collect()
}

fn pressures(counted: &Spent) -> Pressures {
    let [cpu, memory, io] = counted.pressure.each_ref().map(|counted| {
        counted.as_ref().map(|pressure| Pressure {
            some_us: pressure.some.total_us,
            full_us: pressure.full.total_us,
            some_avg10_percent: pressure.some.avg10,
            full_avg10_percent: pressure.full.avg10,
        })
    });
    Pressures { cpu, memory, io }
}

/// Before its start nothing of a lease has been used.
fn lease(term: Option<Term>, asked: &Asked) -> Option<Lease> {
    let term = term.or_else(|| Some(Term::begin(asked.lease?.ttl, lease::now_us())))?;
    let now = lease::now_us();
    Some(Lease {
        granted_s: term.granted_us() / 1_000_000,
        used_s: term.used_us(now) / 1_000_000,
        remaining_s: term.remaining_us(now) / 1_000_000,
    })
}
