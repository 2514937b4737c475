//! What is promised by annotations, as writes: the least memory and the weight that the balance begins with.
//!
//! The weight that keeps a reservation depends on everybody else, and is written when all are weighed against each
//! other ([`crate::plan::entitlement`]). Here stands the share alone, and which controllers are needed.

use std::collections::BTreeMap;

use crate::plan::cgroup::CgroupWrite;
use crate::plan::cgroup::IfAbsent;
use crate::plan::cgroup::Limits;
use crate::plan::cgroup::io;
use crate::plan::entitlement;
use crate::spec::asked::Guarantee;
use crate::spec::asked::PREFIX;

/// The file of a group's weight for the CPU.
pub const CPU_WEIGHT: &str = "cpu.weight";
/// The file of the memory that is not taken from a group.
pub const MEMORY_MIN: &str = "memory.min";

/// The part of a disk that groups have when others want it too, in the unit of `linux.resources.blockIO.weight`: 10 to
/// 1000, usually 100.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DiskShares {
    /// Of every disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usual: Option<u64>,
    /// Of some.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub of: BTreeMap<String, u64>,
}

impl DiskShares {
    /// The part of one disk.
    #[must_use]
    pub fn on(&self, disk: &str) -> u64 {
        let own = self.of.get(disk).copied();
        own.or(self.usual).unwrap_or(entitlement::USUAL)
    }

    /// What was said of one disk alone, as `file` counts.
    #[must_use]
    pub fn said_of(&self, disk: &str, file: &str) -> Option<u64> {
        let said = *self.of.get(disk)?;
        Some(if file == io::WEIGHT {
            said
        } else {
            io::widened(said)
        })
    }

    /// Whether nothing was said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The controllers that a promise needs, and the annotation that asks for it.
pub(super) fn needs(guarantee: &Guarantee) -> impl Iterator<Item = (&'static str, &'static str)> {
    let needed = [
        (guarantee.cpu_milli, "cpu", "cpu.reserve"),
        (guarantee.read_bps, "io", "io.read.reserve"),
        (guarantee.write_bps, "io", "io.write.reserve"),
    ];
    let needed = needed.into_iter().filter(|(amount, _, _)| *amount > 0);
    needed.map(|(_, controller, key)| (controller, key))
}

/// One line that an annotation asks for.
#[must_use]
pub fn write(file: &str, value: u64, key: &str) -> CgroupWrite {
    CgroupWrite {
        file: file.to_owned(),
        value: value.to_string(),
        field: format!("annotations.{PREFIX}{key}"),
        if_absent: IfAbsent::Fail,
    }
}

/// A line for a disk in a file of weights; none is the usual one.
#[must_use]
pub fn disk_write(disk: &str, file: &str, weight: Option<u64>) -> CgroupWrite {
    let weight = weight.map_or_else(|| "default".to_owned(), |weight| weight.to_string());
    CgroupWrite {
        file: file.to_owned(),
        value: format!("{disk} {weight}"),
        field: format!("annotations.{PREFIX}io.read.reserve, {PREFIX}io.write.reserve"),
        if_absent: IfAbsent::Fail,
    }
}

/// Adds what is promised to what the bundle asks for.
pub(super) fn gather(guarantee: &Guarantee, limits: &mut Limits) {
    let weighed = limits.writes.iter().any(|write| write.file == CPU_WEIGHT);
    let share = match guarantee.cpu_share {
        None if guarantee.cpu_milli > 0 && !weighed => Some(entitlement::USUAL),
        share => share,
    };
    if let Some(share) = share {
        let key = if guarantee.cpu_share.is_some() {
            "cpu.share"
        } else {
            "cpu.reserve"
        };
        limits.writes.push(write(CPU_WEIGHT, share, key));
    }
    if guarantee.memory_bytes > 0 {
        let bytes = guarantee.memory_bytes;
        limits
            .writes
            .push(write(MEMORY_MIN, bytes, "memory.reserve"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered(guarantee: Guarantee) -> Vec<String> {
        let mut limits = Limits::default();
        gather(&guarantee, &mut limits);
        limits.writes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_reservation_begins_with_the_usual_weight_and_memory_is_kept_at_once() {
        let asked = Guarantee {
            cpu_milli: 250,
            memory_bytes: 4096,
            ..Guarantee::default()
        };
        assert_eq!(
            gathered(asked),
            [
                "write \"100\" to cpu.weight",
                "write \"4096\" to memory.min"
            ]
        );
    }

    #[test]
    fn nothing_promised_is_nothing_written() {
        assert!(gathered(Guarantee::default()).is_empty());
    }

    #[test]
    fn a_share_wins_over_the_shares_of_the_bundle() {
        let mut limits = Limits::default();
        limits.writes.push(write(CPU_WEIGHT, 59, "x"));
        let asked = Guarantee {
            cpu_share: Some(300),
            ..Guarantee::default()
        };
        gather(&asked, &mut limits);
        assert_eq!(limits.writes.last().unwrap().value, "300");
    }
}
