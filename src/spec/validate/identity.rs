//! Checks mappings of user and group ids against what `user_namespaces(7)` allows.

use super::Checked;
use crate::spec::SpecError;
use crate::spec::linux::IdMapping;

/// How many lines the kernel takes in `/proc/PID/uid_map`.
const MOST: usize = 340;

pub(super) fn mappings(mappings: &[IdMapping], path: &str) -> Checked {
    if mappings.len() > MOST {
        let reason = format!("has {} entries, the kernel takes {MOST}", mappings.len());
        return Err(SpecError::value(path, reason));
    }
    for (index, mapping) in mappings.iter().enumerate() {
        let at = format!("{path}[{index}]");
        size(mapping, &at)?;
        for (earlier, other) in mappings.iter().take(index).enumerate() {
            if overlap(mapping.container_id, other.container_id, mapping, other)
                || overlap(mapping.host_id, other.host_id, mapping, other)
            {
                let reason = format!("overlaps {path}[{earlier}]; an id has one counterpart only");
                return Err(SpecError::value(at, reason));
            }
        }
    }
    Ok(())
}

fn size(mapping: &IdMapping, at: &str) -> Checked {
    if mapping.size == 0 {
        let path = format!("{at}.size");
        return Err(SpecError::value(
            path,
            "0 maps nothing, expected at least 1",
        ));
    }
    for (name, first) in [
        ("containerID", mapping.container_id),
        ("hostID", mapping.host_id),
    ] {
        // The last id of all, 4294967295, means "none" and is never mapped.
        if first.checked_add(mapping.size).is_none() {
            let reason = format!(
                "{first} and {} ids from there go beyond 4294967294",
                mapping.size
            );
            return Err(SpecError::value(format!("{at}.{name}"), reason));
        }
    }
    Ok(())
}

fn overlap(one: u32, other: u32, first: &IdMapping, second: &IdMapping) -> bool {
    let (one, other) = (u64::from(one), u64::from(other));
    one < other + u64::from(second.size) && other < one + u64::from(first.size)
}
