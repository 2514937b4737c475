//! `linux.resources.memory` in cgroup v2: memory.max, memory.low and memory.swap.max.

use crate::plan::cgroup::CgroupError;
use crate::plan::cgroup::CgroupWrite;
use crate::plan::cgroup::Limits;
use crate::plan::cgroup::Present;
use crate::spec::resources::Memory;

/// Adds what the field asks for.
pub(super) fn gather(
    memory: &Memory,
    present: &Present,
    limits: &mut Limits,
) -> Result<(), CgroupError> {
    if let Some(write) = swap(memory, present)? {
        limits.writes.push(write);
    }
    if let Some(value) = bytes(memory.limit) {
        limits
            .writes
            .push(CgroupWrite::new("memory.max", &value, "memory.limit"));
    }
    if let Some(value) = bytes(memory.reservation) {
        limits
            .writes
            .push(CgroupWrite::new("memory.low", &value, "memory.reservation"));
    }
    for (name, asked) in [
        ("kernel", memory.kernel.is_some_and(|bytes| bytes > 0)),
        (
            "kernelTCP",
            memory.kernel_tcp.is_some_and(|bytes| bytes > 0),
        ),
        (
            "swappiness",
            memory.swappiness.is_some_and(|value| value != u64::MAX),
        ),
        ("disableOOMKiller", memory.disable_oom_killer == Some(true)),
    ] {
        if asked {
            limits.ignored.push(format!(
                "linux.resources.memory.{name}: only cgroup v1 can do this, ignoring"
            ));
        }
    }
    Ok(())
}

/// A number of bytes as the kernel reads it: zero leaves alone, -1 is without limit.
fn bytes(value: Option<i64>) -> Option<String> {
    match value? {
        0 => None,
        -1 => Some("max".to_owned()),
        bytes => Some(bytes.to_string()),
    }
}

/// Swap alone, which is what cgroup v2 counts, from memory and swap together, which is what the OCI counts.
fn swap(memory: &Memory, present: &Present) -> Result<Option<CgroupWrite>, CgroupError> {
    let limit = memory.limit.filter(|limit| *limit != 0);
    let value = match (
        memory.swap.unwrap_or_default(),
        limit.or(present.memory_limit),
    ) {
        // Whoever asks for memory without limit and says nothing of swap means both, as in cgroup v1.
        (0, _) if limit == Some(-1) => "max".to_owned(),
        (0, _) => return Ok(None),
        (-1, _) => "max".to_owned(),
        (_, None | Some(-1)) => return Err(CgroupError::SwapWithoutLimit),
        (swap, Some(limit)) if swap < limit => {
            return Err(CgroupError::SwapBelowLimit { swap, limit });
        }
        (swap, Some(limit)) => (swap - limit).to_string(),
    };
    let harmless = value == "max" || value == "0";
    let write = CgroupWrite::new("memory.swap.max", &value, "memory.swap");
    // A kernel without swap accounting has no such file, and then nothing is swapped out of limits anyway.
    Ok(Some(if harmless { write.or_skip() } else { write }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(memory: &Memory, present: &Present) -> Result<Vec<String>, CgroupError> {
        let mut limits = Limits::default();
        gather(memory, present, &mut limits)?;
        Ok(limits
            .writes
            .iter()
            .map(|write| format!("{} {}", write.file, write.value))
            .collect())
    }

    fn memory(limit: i64, swap: i64) -> Memory {
        Memory {
            limit: Some(limit),
            swap: Some(swap),
            ..Memory::default()
        }
    }

    #[test]
    fn swap_is_what_is_left_of_both_after_memory() {
        assert_eq!(
            written(&memory(100, 300), &Present::default()).unwrap(),
            ["memory.swap.max 200", "memory.max 100"]
        );
    }

    #[test]
    fn equal_values_leave_no_swap() {
        assert_eq!(
            written(&memory(100, 100), &Present::default()).unwrap(),
            ["memory.swap.max 0", "memory.max 100"]
        );
    }

    #[test]
    fn zeros_leave_everything_alone() {
        assert!(
            written(&memory(0, 0), &Present::default())
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn unlimited_memory_means_unlimited_swap_too() {
        assert_eq!(
            written(&memory(-1, 0), &Present::default()).unwrap(),
            ["memory.swap.max max", "memory.max max"]
        );
    }

    #[test]
    fn swap_without_a_limit_of_memory_is_refused() {
        assert_eq!(
            written(&memory(0, 300), &Present::default()),
            Err(CgroupError::SwapWithoutLimit)
        );
    }

    #[test]
    fn swap_alone_is_counted_from_the_limit_in_force() {
        let present = Present {
            memory_limit: Some(100),
            ..Present::default()
        };
        assert_eq!(
            written(&memory(0, 300), &present).unwrap(),
            ["memory.swap.max 200"]
        );
    }

    #[test]
    fn swap_below_memory_is_refused() {
        assert_eq!(
            written(&memory(300, 100), &Present::default()),
            Err(CgroupError::SwapBelowLimit {
                swap: 100,
                limit: 300
            })
        );
    }

    #[test]
    fn what_only_the_first_generation_can_do_is_named_and_ignored() {
        let mut limits = Limits::default();
        let memory = Memory {
            swappiness: Some(10),
            kernel: Some(0),
            ..Memory::default()
        };
        gather(&memory, &Present::default(), &mut limits).unwrap();
        assert_eq!(
            limits.ignored,
            ["linux.resources.memory.swappiness: only cgroup v1 can do this, ignoring"]
        );
    }
}
