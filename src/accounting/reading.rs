//! One look at a workspace: the counters of its cgroup and interfaces in the words of the bill.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::accounting::AccountingError;
use crate::accounting::usage::Cpu;
use crate::accounting::usage::Device;
use crate::accounting::usage::Io;
use crate::accounting::usage::Kinds;
use crate::accounting::usage::Lease;
use crate::accounting::usage::Link;
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
use crate::spec::asked::Asked;
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
    /// From when until when it is granted; none without a lease, and before it is started.
    pub(super) term: Option<Term>,
}

/// The term of a workspace; one that cannot be read is none.
pub(super) fn term(home: &Home) -> Option<Term> {
    let bytes = home.read(store::LEASE).ok().flatten()?;
    serde_json::from_slice(&bytes).ok()
}

/// What is counted of a workspace, and what it was promised.
pub(super) fn read(subject: &Subject<'_>) -> Result<(Usage, Asked), AccountingError> {
    let record = subject.record;
    let asked = Asked::of(&record.annotations)?;
    if !subject.enclosure.exists() {
        return Err(AccountingError::Uncounted {
            id: record.id.to_string(),
        });
    }
    let counted = subject.enclosure.spent();
    let counted = counted.map_err(|source| AccountingError::Counters {
        id: record.id.to_string(),
        source,
    })?;
    let now = SystemTime::now();
    let usage = Usage {
        id: record.id.clone(),
        created: record.created.clone(),
        boot: life::boot_id(),
        at: humantime::format_rfc3339_millis(now).to_string(),
        isolation: record.isolation.word().to_owned(),
        cpu: cpu(&counted),
        memory: counted.memory.as_ref().map(memory),
        io: counted.io.as_deref().map(io),
        pids: counted.pids.map(|current| Pids { current }),
        network: subject.interfaces.as_deref().map(network),
        pressure: pressures(&counted),
        lease: lease(subject.term, &asked),
        energy: None,
    };
    Ok((usage, asked))
}

fn cpu(counted: &Spent) -> Cpu {
    let of = |name: &str| counted.cpu.get(name).copied();
    let total_us = of("usage_usec").unwrap_or_default();
    Cpu {
        total_us,
        user_us: of("user_usec").unwrap_or_default(),
        system_us: of("system_usec").unwrap_or_default(),
        throttled_us: of("throttled_usec"),
        roles: Roles {
            workload: Role {
                total_us,
                guest_us: None,
            },
            ..Roles::default()
        },
        ..Cpu::default()
    }
}

fn memory(counted: &SpentMemory) -> Memory {
    let kind = |name: &str| counted.kinds.get(name).copied().unwrap_or_default();
    let event = |name: &str| counted.events.get(name).copied().unwrap_or_default();
    Memory {
        current_bytes: counted.current_bytes,
        peak_bytes: counted.peak_bytes,
        swap_current_bytes: counted.swap_current_bytes,
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
