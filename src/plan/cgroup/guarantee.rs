//! What is promised by annotations, as writes: the least memory and the weight that the balance begins with.
//!
//! The weight that keeps a reservation depends on everybody else, and is written when all are weighed against each
//! other ([`crate::plan::entitlement`]). Here stands the share alone, and that the controller is needed.

use crate::plan::cgroup::CgroupWrite;
use crate::plan::cgroup::IfAbsent;
use crate::plan::cgroup::Limits;
use crate::plan::entitlement;
use crate::spec::asked::Guarantee;
use crate::spec::asked::PREFIX;

/// The file of a group's weight for the CPU.
pub const CPU_WEIGHT: &str = "cpu.weight";
/// The file of the memory that is not taken from a group.
pub const MEMORY_MIN: &str = "memory.min";

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
