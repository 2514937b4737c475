//! Writes limits, in an order in which the kernel takes them.

use std::path::Path;

use crate::enclosure::EnclosureError;
use crate::enclosure::Result;
use crate::enclosure::device;
use crate::enclosure::group::Group;
use crate::plan::cgroup::CgroupWrite;
use crate::plan::cgroup::IfAbsent;
use crate::plan::cgroup::Limits;
use crate::plan::cgroup::Present;
use crate::sys::Errno;

/// Writes all limits of a group that is made.
pub(super) fn write_all(group: &Group, whole: &Path, writes: &[CgroupWrite]) -> Result<()> {
    writes
        .iter()
        .try_for_each(|write| write_one(group, whole, write))
}

/// Looks whether a change may be made at all.
pub(super) fn check(group: &Group, limits: &Limits) -> Result<()> {
    if limits.check_before_update {
        refuse_below_use(group, &limits.writes)?;
    }
    Ok(())
}

/// Changes the limits of a group that is in use.
pub(super) fn update(group: &Group, whole: &Path, limits: &Limits) -> Result<()> {
    write_all(group, whole, &limits.writes)?;
    if let Some(filter) = &limits.devices {
        device::put(group, whole, filter, limits.filter_optional)?;
    }
    Ok(())
}

/// Reads what an update may depend on; what has no file has no limit.
pub(super) fn present(group: &Group) -> crate::sys::Result<Present> {
    let read = |file| match group.read(file) {
        Err(Errno::NOENT) => Ok(String::new()),
        other => other,
    };
    let memory = read("memory.max")?;
    let cpu = read("cpu.max")?;
    let mut cpu = cpu.split_whitespace();
    Ok(Present {
        memory_limit: memory.trim().parse().ok(),
        cpu_quota: cpu.next().and_then(|quota| quota.parse().ok()),
        cpu_period: cpu.next().and_then(|period| period.parse().ok()),
    })
}

fn write_one(group: &Group, whole: &Path, write: &CgroupWrite) -> Result<()> {
    let failed = |file: &str, value: &str, source| EnclosureError::Limit {
        field: write.field.clone(),
        value: value.to_owned(),
        file: whole.join(file),
        source,
    };
    match (group.write(&write.file, &write.value), &write.if_absent) {
        (Err(Errno::NOENT), IfAbsent::Skip) => Ok(()),
        (Err(Errno::NOENT), IfAbsent::Instead { file, value }) => group
            .write(file, value)
            .map_err(|source| failed(file, value, source)),
        (other, _) => other.map_err(|source| failed(&write.file, &write.value, source)),
    }
}

/// Refuses a limit of memory that would have somebody killed at once.
fn refuse_below_use(group: &Group, writes: &[CgroupWrite]) -> Result<()> {
    let limit = writes
        .iter()
        .rfind(|write| write.file == "memory.max")
        .and_then(|write| write.value.parse().ok());
    let used = group
        .read("memory.current")
        .ok()
        .and_then(|used| used.trim().parse().ok());
    match (limit, used) {
        (Some(limit), Some(used)) if limit < used => {
            Err(EnclosureError::MemoryInUse { limit, used })
        }
        _ => Ok(()),
    }
}
