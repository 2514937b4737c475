//! The JSON of `events`, in the shape that runc gave it: names, nesting and what is left out when it is zero.
//!
//! Times are in nanoseconds here. What cgroup v2 does not count is left out or zero, as runc has it; a limit of
//! memory that is none is the greatest number, a limit of tasks that is none is zero.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::enclosure::counters::Counters;
use crate::enclosure::counters::Cpu;
use crate::enclosure::counters::Hugetlb;
use crate::enclosure::counters::Io;
use crate::enclosure::counters::IoDevice;
use crate::enclosure::counters::Memory;
use crate::enclosure::counters::Pressure;
use crate::enclosure::counters::Waited;
use crate::spec::list;
use crate::workspace::interfaces::Interface;

/// One line.
#[derive(Debug, Serialize)]
pub(super) struct Line<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Stats<'a>>,
}

#[derive(Debug, Serialize)]
struct Stats<'a> {
    cpu: CpuStats,
    cpuset: CpusetStats,
    memory: MemoryStats<'a>,
    pids: PidsStats,
    blkio: BlkioStats,
    hugetlb: BTreeMap<&'a str, HugetlbStats>,
    intel_rdt: BTreeMap<(), ()>,
    network_interfaces: Option<Vec<InterfaceStats>>,
}

#[derive(Debug, Default, Serialize)]
struct CpuStats {
    usage: CpuUsage,
    throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Debug, Default, Serialize)]
struct CpuUsage {
    #[serde(skip_serializing_if = "is_zero")]
    total: u64,
    kernel: u64,
    user: u64,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Throttling {
    #[serde(skip_serializing_if = "is_zero")]
    periods: u64,
    #[serde(skip_serializing_if = "is_zero")]
    throttled_periods: u64,
    #[serde(skip_serializing_if = "is_zero")]
    throttled_time: u64,
}

#[derive(Debug, Default, Serialize)]
struct CpusetStats {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cpus: Vec<u32>,
    cpu_exclusive: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mems: Vec<u32>,
    mem_hardwall: u64,
    mem_exclusive: u64,
    memory_migrate: u64,
    memory_spread_page: u64,
    memory_spread_slab: u64,
    memory_pressure: u64,
    sched_load_balance: u64,
    sched_relax_domain_level: i64,
}

#[derive(Debug, Default, Serialize)]
struct MemoryStats<'a> {
    #[serde(skip_serializing_if = "is_zero")]
    cache: u64,
    usage: MemoryEntry,
    swap: MemoryEntry,
    kernel: MemoryEntry,
    #[serde(rename = "kernelTCP")]
    kernel_tcp: MemoryEntry,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw: Option<&'a BTreeMap<String, u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Debug, Default, Serialize)]
struct MemoryEntry {
    limit: u64,
    #[serde(skip_serializing_if = "is_zero")]
    usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    max: u64,
    failcnt: u64,
}

#[derive(Debug, Default, Serialize)]
struct PidsStats {
    #[serde(skip_serializing_if = "is_zero")]
    current: u64,
    #[serde(skip_serializing_if = "is_zero")]
    limit: u64,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct BlkioStats {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_service_bytes_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_serviced_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Debug, Serialize)]
struct BlkioEntry {
    #[serde(skip_serializing_if = "is_zero")]
    major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    minor: u64,
    op: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    value: u64,
}

#[derive(Debug, Serialize)]
struct HugetlbStats {
    #[serde(skip_serializing_if = "is_zero")]
    usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    max: u64,
    failcnt: u64,
}

#[derive(Debug, Serialize)]
struct Psi {
    some: PsiWaited,
    full: PsiWaited,
}

#[derive(Debug, Serialize)]
struct PsiWaited {
    avg10: f64,
    avg60: f64,
    avg300: f64,
    total: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct InterfaceStats {
    name: String,
    rx_bytes: u64,
    rx_packets: u64,
    rx_errors: u64,
    rx_dropped: u64,
    tx_bytes: u64,
    tx_packets: u64,
    tx_errors: u64,
    tx_dropped: u64,
}

/// The line for what a workspace uses.
pub(super) fn stats<'a>(
    id: &'a str,
    counters: &'a Counters,
    interfaces: Option<Vec<Interface>>,
) -> Line<'a> {
    let data = Stats {
        cpu: cpu(&counters.cpu),
        cpuset: cpuset(counters),
        memory: counters.memory.as_ref().map(memory).unwrap_or_default(),
        pids: counters
            .pids
            .as_ref()
            .map_or_else(PidsStats::default, |pids| PidsStats {
                current: pids.current,
                limit: pids.max.unwrap_or_default(),
            }),
        blkio: counters.io.as_ref().map(blkio).unwrap_or_default(),
        hugetlb: counters
            .hugetlb
            .iter()
            .map(|(size, pages)| (size.as_str(), hugetlb(pages)))
            .collect(),
        intel_rdt: BTreeMap::new(),
        network_interfaces: interfaces.map(|list| list.into_iter().map(interface).collect()),
    };
    Line {
        kind: "stats",
        id,
        data: Some(data),
    }
}

/// The line for memory that ran out.
pub(super) fn out_of_memory(id: &str) -> Line<'_> {
    Line {
        kind: "oom",
        id,
        data: None,
    }
}

fn cpu(cpu: &Cpu) -> CpuStats {
    CpuStats {
        usage: CpuUsage {
            total: nanoseconds(cpu.usage_us),
            kernel: nanoseconds(cpu.system_us),
            user: nanoseconds(cpu.user_us),
        },
        throttling: Throttling {
            periods: cpu.periods,
            throttled_periods: cpu.throttled_periods,
            throttled_time: nanoseconds(cpu.throttled_us),
        },
        psi: cpu.pressure.as_ref().map(psi),
    }
}

fn cpuset(counters: &Counters) -> CpusetStats {
    let all = |text: &str| {
        list::ranges(text)
            .unwrap_or_default()
            .into_iter()
            .flatten()
            .collect()
    };
    counters
        .cpuset
        .as_ref()
        .map_or_else(CpusetStats::default, |cpuset| CpusetStats {
            cpus: all(&cpuset.cpus),
            mems: all(&cpuset.mems),
            ..CpusetStats::default()
        })
}

fn memory(memory: &Memory) -> MemoryStats<'_> {
    let of = |name: &str| memory.stat.get(name).copied().unwrap_or_default();
    let failures = memory.events.get("max").copied().unwrap_or_default();
    let limit = memory.max_bytes.unwrap_or(u64::MAX);
    let swap_limit = memory.swap_max_bytes.unwrap_or(u64::MAX);
    MemoryStats {
        cache: of("file"),
        usage: MemoryEntry {
            limit,
            usage: memory.current_bytes,
            max: memory.peak_bytes.unwrap_or_default(),
            failcnt: failures,
        },
        // As cgroup v1 counted, and as the limit is given: memory and swap together.
        swap: MemoryEntry {
            limit: limit.saturating_add(swap_limit),
            usage: memory
                .current_bytes
                .saturating_add(memory.swap_current_bytes),
            ..MemoryEntry::default()
        },
        kernel: MemoryEntry {
            usage: of("kernel"),
            ..MemoryEntry::default()
        },
        kernel_tcp: MemoryEntry {
            usage: of("sock"),
            ..MemoryEntry::default()
        },
        raw: Some(&memory.stat),
        psi: memory.pressure.as_ref().map(psi),
    }
}

fn blkio(io: &Io) -> BlkioStats {
    let entries = |of: fn(&IoDevice) -> [(&'static str, u64); 2]| {
        let of_device = |device: &IoDevice| {
            let (major, minor) = (device.major, device.minor);
            of(device).map(|(op, value)| BlkioEntry {
                major,
                minor,
                op,
                value,
            })
        };
        io.devices.iter().flat_map(of_device).collect()
    };
    BlkioStats {
        io_service_bytes_recursive: entries(|device| {
            [("Read", device.read_bytes), ("Write", device.written_bytes)]
        }),
        io_serviced_recursive: entries(|device| [("Read", device.reads), ("Write", device.writes)]),
        psi: io.pressure.as_ref().map(psi),
    }
}

fn hugetlb(pages: &Hugetlb) -> HugetlbStats {
    HugetlbStats {
        usage: pages.current_bytes,
        max: 0,
        failcnt: pages.failures,
    }
}

fn psi(pressure: &Pressure) -> Psi {
    let waited = |waited: &Waited| PsiWaited {
        avg10: waited.avg10,
        avg60: waited.avg60,
        avg300: waited.avg300,
        total: waited.total_us,
    };
    Psi {
        some: waited(&pressure.some),
        full: waited(&pressure.full),
    }
}

fn interface(found: Interface) -> InterfaceStats {
    let [rx_bytes, rx_packets, rx_errors, rx_dropped] = found.received;
    let [tx_bytes, tx_packets, tx_errors, tx_dropped] = found.sent;
    InterfaceStats {
        name: found.name,
        rx_bytes,
        rx_packets,
        rx_errors,
        rx_dropped,
        tx_bytes,
        tx_packets,
        tx_errors,
        tx_dropped,
    }
}

fn nanoseconds(microseconds: u64) -> u64 {
    microseconds.saturating_mul(1000)
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature serde asks for"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_used_has_the_fields_that_runc_prints() {
        let line = serde_json::to_string(&stats("a", &Counters::default(), None)).unwrap();
        let entry = r#"{"limit":0,"failcnt":0}"#;
        let expected = format!(
            r#"{{"type":"stats","id":"a","data":{{"cpu":{{"usage":{{"kernel":0,"user":0}},"throttling":{{}}}},"cpuset":{{"cpu_exclusive":0,"mem_hardwall":0,"mem_exclusive":0,"memory_migrate":0,"memory_spread_page":0,"memory_spread_slab":0,"memory_pressure":0,"sched_load_balance":0,"sched_relax_domain_level":0}},"memory":{{"usage":{entry},"swap":{entry},"kernel":{entry},"kernelTCP":{entry}}},"pids":{{}},"blkio":{{}},"hugetlb":{{}},"intel_rdt":{{}},"network_interfaces":null}}}}"#
        );
        assert_eq!(line, expected);
    }

    #[test]
    fn time_is_in_nanoseconds_and_no_limit_of_memory_is_the_greatest_number() {
        let counters = Counters {
            cpu: Cpu {
                usage_us: 7,
                ..Cpu::default()
            },
            memory: Some(Memory {
                current_bytes: 5,
                ..Memory::default()
            }),
            ..Counters::default()
        };
        let line = serde_json::to_value(stats("a", &counters, None)).unwrap();
        assert_eq!(line["data"]["cpu"]["usage"]["total"], 7000);
        assert_eq!(line["data"]["memory"]["usage"]["limit"], u64::MAX);
        assert_eq!(line["data"]["memory"]["swap"]["usage"], 5);
    }

    #[test]
    fn memory_that_ran_out_has_no_data() {
        let line = serde_json::to_string(&out_of_memory("a")).unwrap();
        assert_eq!(line, r#"{"type":"oom","id":"a"}"#);
    }
}
