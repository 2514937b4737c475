//! The same limits as properties of a systemd unit.
//!
//! What systemd can keep it is told, so that it writes the same values again when it is reloaded; everything is
//! written to the cgroup as well, since systemd rounds some values and does not know others. The device list is told
//! only where systemd's way of saying it says the same; our own filter decides in any case.

use crate::plan::cgroup::CgroupWrite;
use crate::plan::cgroup::IfAbsent;
use crate::plan::cgroup::Limits;
use crate::plan::cgroup::device::DeviceFilter;
use crate::spec::list;

/// One property of a unit (`org.freedesktop.systemd1(5)`).
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Property {
    /// Its name.
    pub name: String,
    /// What it is set to.
    pub value: Value,
}

/// What a property can be set to.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub enum Value {
    /// D-Bus type `b`.
    Flag(bool),
    /// D-Bus type `i`.
    Int(i32),
    /// D-Bus type `u`.
    Unsigned(u32),
    /// D-Bus type `x`.
    Long(i64),
    /// D-Bus type `t`.
    UnsignedLong(u64),
    /// D-Bus type `d`.
    Double(f64),
    /// D-Bus type `s`.
    Text(String),
    /// D-Bus type `as`.
    Texts(Vec<String>),
    /// D-Bus type `ai`.
    Ints(Vec<i32>),
    /// D-Bus type `ay`.
    Bytes(Vec<u8>),
    /// D-Bus type `au`.
    Unsigneds(Vec<u32>),
    /// D-Bus type `a(ss)`.
    Pairs(Vec<(String, String)>),
}

impl Property {
    /// A property.
    #[must_use]
    pub fn new(name: &str, value: Value) -> Self {
        Self {
            name: name.to_owned(),
            value,
        }
    }
}

/// What a new scope is, before any limit.
#[must_use]
pub(super) fn scope(id: &str, slice: &str) -> Vec<Property> {
    let on = |name| Property::new(name, Value::Flag(true));
    vec![
        Property::new(
            "Description",
            Value::Text(format!("bulkhead workspace {id}")),
        ),
        Property::new("Slice", Value::Text(slice.to_owned())),
        // The workspace may have groups of its own below, and systemd keeps out of them.
        on("Delegate"),
        on("CPUAccounting"),
        on("MemoryAccounting"),
        on("IOAccounting"),
        on("TasksAccounting"),
        // Else shutting down would end the workspace before what depends on it.
        Property::new("DefaultDependencies", Value::Flag(false)),
        // A unit that failed is forgotten, so that its name can be used again.
        Property::new("CollectMode", Value::Text("inactive-or-failed".to_owned())),
    ]
}

/// The limits that systemd can keep.
#[must_use]
pub fn properties(limits: &Limits) -> Vec<Property> {
    let mut found: Vec<Property> = Vec::new();
    for property in limits.writes.iter().flat_map(of_write) {
        // Several lines for one file (burst, unified) end with the one that counts.
        found.retain(|before| before.name != property.name);
        found.push(property);
    }
    found.extend(limits.devices.iter().flat_map(devices));
    found
}

fn of_write(write: &CgroupWrite) -> Vec<Property> {
    let number = |name: &str| match limit(&write.value) {
        Some(limit) => vec![Property::new(name, Value::UnsignedLong(limit))],
        None => Vec::new(),
    };
    match write.file.as_str() {
        "memory.max" => number("MemoryMax"),
        "memory.high" => number("MemoryHigh"),
        "memory.low" => number("MemoryLow"),
        "memory.min" => number("MemoryMin"),
        "memory.swap.max" => number("MemorySwapMax"),
        "pids.max" => number("TasksMax"),
        "cpu.weight" => number("CPUWeight"),
        // systemd says "idle" as a weight of zero.
        "cpu.idle" if write.value == "1" => {
            vec![Property::new("CPUWeight", Value::UnsignedLong(0))]
        }
        "cpu.max" => bandwidth(&write.value),
        "cpuset.cpus" => mask("AllowedCPUs", &write.value),
        "cpuset.mems" => mask("AllowedMemoryNodes", &write.value),
        "io.bfq.weight" => io_weight(write),
        _ => Vec::new(),
    }
}

/// A number, or what systemd has for "no limit".
fn limit(value: &str) -> Option<u64> {
    if value == "max" {
        Some(u64::MAX)
    } else {
        value.parse().ok()
    }
}

/// systemd keeps a quota in whole percents of a second; rounding down would take away from what was asked, so that a
/// child could not have all of it.
fn bandwidth(value: &str) -> Vec<Property> {
    const PERCENT: u64 = 10_000;
    let mut words = value.split_whitespace();
    let quota = words.next().and_then(limit);
    let period = words.next().and_then(|word| word.parse::<u64>().ok());
    let per_second = match (quota, period) {
        (Some(u64::MAX), _) => u64::MAX,
        (Some(quota), Some(period)) if period > 0 => {
            quota
                .saturating_mul(1_000_000)
                .div_ceil(period)
                .div_ceil(PERCENT)
                * PERCENT
        }
        _ => return Vec::new(),
    };
    let quota = Property::new("CPUQuotaPerSecUSec", Value::UnsignedLong(per_second));
    let period =
        period.map(|period| Property::new("CPUQuotaPeriodUSec", Value::UnsignedLong(period)));
    std::iter::once(quota).chain(period).collect()
}

/// A list as bits, the lowest first.
fn mask(name: &str, value: &str) -> Vec<Property> {
    let Ok(ranges) = list::ranges(value) else {
        return Vec::new();
    };
    let mut bytes: Vec<u8> = Vec::new();
    for number in ranges.into_iter().flatten() {
        let byte = usize::try_from(number / 8).unwrap_or_default();
        if bytes.len() <= byte {
            bytes.resize(byte + 1, 0);
        }
        bytes[byte] |= 1 << (number % 8);
    }
    vec![Property::new(name, Value::Bytes(bytes))]
}

/// systemd counts as io.weight does, for all devices together.
fn io_weight(write: &CgroupWrite) -> Vec<Property> {
    match &write.if_absent {
        IfAbsent::Instead { value, .. } => match value.parse() {
            Ok(weight) => vec![Property::new("IOWeight", Value::UnsignedLong(weight))],
            Err(_) => Vec::new(),
        },
        IfAbsent::Fail | IfAbsent::Skip => Vec::new(),
    }
}

/// The list comes before the policy: systemd acts on each, and a strict policy with an empty list would take the
/// devices away for a moment.
fn devices(filter: &DeviceFilter) -> Vec<Property> {
    let (list, policy) = match filter.as_list() {
        Some(list) => (list, "strict"),
        None => (Vec::new(), "auto"),
    };
    vec![
        // An empty list takes away what was there before.
        Property::new("DeviceAllow", Value::Pairs(Vec::new())),
        Property::new("DeviceAllow", Value::Pairs(list)),
        Property::new("DevicePolicy", Value::Text(policy.to_owned())),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::resources::DeviceRule;

    fn told(file: &str, value: &str) -> Vec<(String, Value)> {
        let writes = vec![CgroupWrite::new(file, &value, "x")];
        let limits = Limits {
            writes,
            ..Limits::default()
        };
        properties(&limits)
            .into_iter()
            .map(|found| (found.name, found.value))
            .collect()
    }

    #[test]
    fn a_limit_is_told_as_a_number_and_no_limit_as_the_greatest() {
        assert_eq!(
            told("memory.max", "4096"),
            [("MemoryMax".to_owned(), Value::UnsignedLong(4096))]
        );
        assert_eq!(
            told("pids.max", "max"),
            [("TasksMax".to_owned(), Value::UnsignedLong(u64::MAX))]
        );
    }

    #[test]
    fn a_quota_is_told_in_whole_percents_rounded_up() {
        assert_eq!(
            told("cpu.max", "12345 100000"),
            [
                (
                    "CPUQuotaPerSecUSec".to_owned(),
                    Value::UnsignedLong(130_000)
                ),
                (
                    "CPUQuotaPeriodUSec".to_owned(),
                    Value::UnsignedLong(100_000)
                ),
            ]
        );
    }

    #[test]
    fn processors_are_told_as_bits() {
        assert_eq!(
            told("cpuset.cpus", "0-2,9"),
            [("AllowedCPUs".to_owned(), Value::Bytes(vec![0b111, 0b10]))]
        );
    }

    #[test]
    fn what_systemd_does_not_know_is_not_told() {
        assert!(told("cpu.max.burst", "5").is_empty());
        assert!(told("rdma.max", "mlx5_0 hca_handle=1").is_empty());
    }

    #[test]
    fn the_device_list_comes_before_the_policy() {
        let filter = DeviceFilter::new(&[DeviceRule {
            access: "rwm".to_owned(),
            ..DeviceRule::default()
        }]);
        let names: Vec<String> = devices(&filter)
            .into_iter()
            .map(|found| found.name)
            .collect();
        assert_eq!(names, ["DeviceAllow", "DeviceAllow", "DevicePolicy"]);
    }
}
