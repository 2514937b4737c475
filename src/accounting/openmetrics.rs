//! Usage as OpenMetrics text (<https://prometheus.io/docs/specs/om/open_metrics_spec/>), in that format's base units:
//! seconds and bytes.

use std::fmt::Write;

use crate::accounting::usage::Device;
use crate::accounting::usage::Kinds;
use crate::accounting::usage::Link;
use crate::accounting::usage::MemoryEvents;
use crate::accounting::usage::Role;
use crate::accounting::usage::Usage;

/// The media type of the text.
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// One family of metrics, and where its samples come from.
struct Family {
    name: &'static str,
    kind: &'static str,
    unit: &'static str,
    help: &'static str,
    samples: fn(&Usage) -> Vec<Sample>,
}

/// Labels beyond the id, and a value.
type Sample = (Vec<(&'static str, String)>, Value);

#[derive(Debug, Clone, Copy)]
enum Value {
    Count(u64),
    /// Given in microseconds, written in seconds.
    Micro(u64),
    /// Given in milliseconds, written in seconds.
    Milli(u64),
}

/// The text for all workspaces.
#[must_use]
pub fn text(all: &[Usage]) -> String {
    let mut text = String::new();
    for family in FAMILIES {
        let samples: Vec<(&Usage, Sample)> = all
            .iter()
            .flat_map(|usage| {
                let samples = (family.samples)(usage).into_iter();
                samples.map(move |sample| (usage, sample))
            })
            .collect();
        if samples.is_empty() {
            continue;
        }
        let name = family.name;
        text.push_str(&format!("# TYPE {name} {}\n", family.kind));
        if !family.unit.is_empty() {
            text.push_str(&format!("# UNIT {name} {}\n", family.unit));
        }
        text.push_str(&format!("# HELP {name} {}\n", family.help));
        let ending = if family.kind == "counter" {
            "_total"
        } else {
            ""
        };
        for (usage, (labels, value)) in samples {
            let id = escaped(usage.id.as_str());
            text.push_str(&format!("{name}{ending}{{id=\"{id}\""));
            for (label, word) in labels {
                text.push_str(&format!(",{label}=\"{}\"", escaped(&word)));
            }
            text.push_str("} ");
            value.write(&mut text);
            text.push('\n');
        }
    }
    text.push_str("# EOF\n");
    text
}

impl Value {
    /// Whole and part are written apart, so that nothing is rounded.
    fn write(self, text: &mut String) {
        let written = match self {
            Self::Count(value) => write!(text, "{value}"),
            Self::Micro(value) => write!(text, "{}.{:06}", value / 1_000_000, value % 1_000_000),
            Self::Milli(value) => write!(text, "{}.{:03}", value / 1000, value % 1000),
        };
        // Writing to a text cannot fail.
        written.unwrap_or_default();
    }
}

fn escaped(word: &str) -> String {
    let word = word.replace('\\', "\\\\").replace('"', "\\\"");
    word.replace('\n', "\\n")
}

fn one(value: Option<Value>) -> Vec<Sample> {
    value.map(|value| (Vec::new(), value)).into_iter().collect()
}

fn labelled(label: &'static str, values: &[(&str, Option<Value>)]) -> Vec<Sample> {
    values
        .iter()
        .filter_map(|(word, value)| Some((vec![(label, (*word).to_owned())], (*value)?)))
        .collect()
}

const FAMILIES: &[Family] = &[
    Family {
        name: "bulkhead_cpu_seconds",
        kind: "counter",
        unit: "seconds",
        help: "Processor time of the workspace's tasks.",
        samples: |usage| {
            let modes = [
                ("user", Some(Value::Micro(usage.cpu.user_us))),
                ("system", Some(Value::Micro(usage.cpu.system_us))),
            ];
            labelled("mode", &modes)
        },
    },
    Family {
        name: "bulkhead_cpu_usage_seconds",
        kind: "counter",
        unit: "seconds",
        help: "All processor time of the workspace's tasks.",
        samples: |usage| one(Some(Value::Micro(usage.cpu.total_us))),
    },
    Family {
        name: "bulkhead_cpu_role_seconds",
        kind: "counter",
        unit: "seconds",
        help: "Processor time of a machine by who used it; all roles together are the usage.",
        samples: |usage| {
            let roles = &usage.cpu.roles;
            // A container is all workload.
            if roles.vmm.is_none() {
                return Vec::new();
            }
            let of = |role: Option<&Role>| role.map(|role| Value::Micro(role.total_us));
            let roles = [
                ("workload", of(Some(&roles.workload))),
                ("vmm", of(roles.vmm.as_ref())),
                ("fileserver", of(roles.fileserver.as_ref())),
                ("vhost", of(roles.vhost.as_ref())),
                ("proxy", of(roles.proxy.as_ref())),
            ];
            labelled("role", &roles)
        },
    },
    Family {
        name: "bulkhead_cpu_guest_seconds",
        kind: "counter",
        unit: "seconds",
        help: "Processor time of a machine's workload inside its guest.",
        samples: |usage| one(usage.cpu.roles.workload.guest_us.map(Value::Micro)),
    },
    Family {
        name: "bulkhead_cpu_throttled_seconds",
        kind: "counter",
        unit: "seconds",
        help: "Time for which the limit kept it from running.",
        samples: |usage| one(usage.cpu.throttled_us.map(Value::Micro)),
    },
    Family {
        name: "bulkhead_cpu_hold_seconds",
        kind: "counter",
        unit: "seconds",
        help: "Time for which it wanted to run and had less than its guarantee.",
        samples: |usage| one(usage.cpu.hold_ms.map(Value::Milli)),
    },
    Family {
        name: "bulkhead_cpu_on_behalf_seconds",
        kind: "counter",
        unit: "seconds",
        help: "Processor time of the kernel for it outside of its tasks.",
        samples: |usage| {
            let how = usage.cpu.on_behalf.how.as_str();
            labelled("how", &[(how, usage.cpu.on_behalf.us.map(Value::Micro))])
        },
    },
    Family {
        name: "bulkhead_memory_bytes",
        kind: "gauge",
        unit: "bytes",
        help: "Memory in use.",
        samples: |usage| one(usage.memory.as_ref().map(|m| Value::Count(m.current_bytes))),
    },
    Family {
        name: "bulkhead_memory_part_bytes",
        kind: "gauge",
        unit: "bytes",
        help: "Memory in use by a machine's guest, and by the machine on top.",
        samples: |usage| {
            let memory = usage.memory.as_ref();
            let of = |bytes: Option<u64>| bytes.map(Value::Count);
            let parts = [
                ("guest", of(memory.and_then(|memory| memory.guest_bytes))),
                (
                    "overhead",
                    of(memory.and_then(|memory| memory.overhead_bytes)),
                ),
            ];
            labelled("part", &parts)
        },
    },
    Family {
        name: "bulkhead_memory_peak_bytes",
        kind: "gauge",
        unit: "bytes",
        help: "The most memory that has been in use.",
        samples: |usage| {
            let peak = usage.memory.as_ref().and_then(|memory| memory.peak_bytes);
            one(peak.map(Value::Count))
        },
    },
    Family {
        name: "bulkhead_memory_swap_bytes",
        kind: "gauge",
        unit: "bytes",
        help: "Swap in use.",
        samples: |usage| {
            let memory = usage.memory.as_ref();
            one(memory.map(|memory| Value::Count(memory.swap_current_bytes)))
        },
    },
    Family {
        name: "bulkhead_memory_kind_bytes",
        kind: "gauge",
        unit: "bytes",
        help: "Memory in use by what it is used for.",
        samples: |usage| {
            let kinds = usage.memory.as_ref().map(|memory| &memory.by_kind);
            let of = |value: fn(&Kinds) -> u64| kinds.map(value).map(Value::Count);
            let kinds = [
                ("anon", of(|kinds| kinds.anon_bytes)),
                ("file", of(|kinds| kinds.file_bytes)),
                ("shmem", of(|kinds| kinds.shmem_bytes)),
                ("kernel", of(|kinds| kinds.kernel_bytes)),
                ("slab", of(|kinds| kinds.slab_bytes)),
                ("sock", of(|kinds| kinds.sock_bytes)),
            ];
            labelled("kind", &kinds)
        },
    },
    Family {
        name: "bulkhead_memory_events",
        kind: "counter",
        unit: "",
        help: "How often a bound of memory was met.",
        samples: |usage| {
            let events = usage.memory.as_ref().map(|memory| &memory.events);
            let of = |value: fn(&MemoryEvents) -> u64| events.map(value).map(Value::Count);
            let events = [
                ("high", of(|events| events.high)),
                ("max", of(|events| events.max)),
                ("oom", of(|events| events.oom)),
                ("oom_kill", of(|events| events.oom_kill)),
            ];
            labelled("event", &events)
        },
    },
    Family {
        name: "bulkhead_io_bytes",
        kind: "counter",
        unit: "bytes",
        help: "Bytes to and from block devices.",
        samples: |usage| {
            io(usage, |device| {
                [
                    ("read", device.read_bytes),
                    ("write", device.written_bytes),
                    ("discard", device.discarded_bytes),
                ]
            })
        },
    },
    Family {
        name: "bulkhead_io_operations",
        kind: "counter",
        unit: "",
        help: "Requests to block devices.",
        samples: |usage| {
            io(usage, |device| {
                [
                    ("read", device.read_operations),
                    ("write", device.write_operations),
                    ("discard", device.discard_operations),
                ]
            })
        },
    },
    Family {
        name: "bulkhead_tasks",
        kind: "gauge",
        unit: "",
        help: "Tasks.",
        samples: |usage| one(usage.pids.as_ref().map(|pids| Value::Count(pids.current))),
    },
    Family {
        name: "bulkhead_network_bytes",
        kind: "counter",
        unit: "bytes",
        help: "Bytes through network interfaces.",
        samples: |usage| network(usage, |link| [link.in_bytes, link.out_bytes]),
    },
    Family {
        name: "bulkhead_network_packets",
        kind: "counter",
        unit: "",
        help: "Packets through network interfaces.",
        samples: |usage| network(usage, |link| [link.in_packets, link.out_packets]),
    },
    Family {
        name: "bulkhead_network_drops",
        kind: "counter",
        unit: "",
        help: "Packets lost at network interfaces.",
        samples: |usage| network(usage, |link| [link.in_drops, link.out_drops]),
    },
    Family {
        name: "bulkhead_pressure_seconds",
        kind: "counter",
        unit: "seconds",
        help: "Time that somebody (some) or everybody (full) waited for a resource.",
        samples: pressure,
    },
    Family {
        name: "bulkhead_lease_seconds",
        kind: "gauge",
        unit: "seconds",
        help: "For how long it was granted.",
        samples: |usage| {
            let lease = usage.lease.as_ref();
            let parts = [
                ("granted", lease.map(|lease| Value::Count(lease.granted_s))),
                ("used", lease.map(|lease| Value::Count(lease.used_s))),
                (
                    "remaining",
                    lease.map(|lease| Value::Count(lease.remaining_s)),
                ),
            ];
            labelled("part", &parts)
        },
    },
    Family {
        name: "bulkhead_machine_exits",
        kind: "counter",
        unit: "",
        help: "How often a machine's guest was left, and of that because it had nothing to do.",
        samples: |usage| {
            let machine = usage.machine.as_ref();
            let why = [
                ("any", machine.map(|machine| Value::Count(machine.exits))),
                ("halt", machine.map(|machine| Value::Count(machine.halts))),
            ];
            labelled("why", &why)
        },
    },
    Family {
        name: "bulkhead_machine_halt_polling_seconds",
        kind: "counter",
        unit: "seconds",
        help: "Processor time that the kernel spent waiting for a guest with nothing to do.",
        samples: |usage| {
            let machine = usage.machine.as_ref();
            one(machine.map(|machine| Value::Micro(machine.halt_polling_us)))
        },
    },
    Family {
        name: "bulkhead_energy_joules",
        kind: "counter",
        unit: "joules",
        help: "Its part of what the processors' packages took, estimated.",
        samples: |usage| {
            let energy = usage.energy.as_ref();
            one(energy.map(|energy| Value::Micro(energy.package_uj)))
        },
    },
];

fn io(usage: &Usage, of: fn(&Device) -> [(&'static str, u64); 3]) -> Vec<Sample> {
    let devices = usage.io.iter().flat_map(|io| &io.devices);
    let samples = devices.flat_map(|(name, device)| {
        of(device).map(|(direction, value)| {
            let labels = vec![
                ("device", name.clone()),
                ("direction", direction.to_owned()),
            ];
            (labels, Value::Count(value))
        })
    });
    samples.collect()
}

fn network(usage: &Usage, of: fn(&Link) -> [u64; 2]) -> Vec<Sample> {
    let links = usage.network.iter().flatten();
    let samples = links.flat_map(|(name, link)| {
        let values = ["in", "out"].into_iter().zip(of(link));
        values.map(|(direction, value)| {
            let labels = vec![
                ("interface", name.clone()),
                ("direction", direction.to_owned()),
            ];
            (labels, Value::Count(value))
        })
    });
    samples.collect()
}

fn pressure(usage: &Usage) -> Vec<Sample> {
    let of = [
        ("cpu", &usage.pressure.cpu),
        ("memory", &usage.pressure.memory),
        ("io", &usage.pressure.io),
    ];
    let known = of
        .into_iter()
        .filter_map(|(resource, pressure)| Some((resource, pressure.as_ref()?)));
    let samples = known.flat_map(|(resource, pressure)| {
        let who = [("some", pressure.some_us), ("full", pressure.full_us)];
        who.map(|(who, value)| {
            let labels = vec![("resource", resource.to_owned()), ("who", who.to_owned())];
            (labels, Value::Micro(value))
        })
    });
    samples.collect()
}
