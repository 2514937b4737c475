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

/// What is in force of all that a change names, to be put back in the opposite order.
pub(super) fn before(group: &Group, limits: &Limits) -> Limits {
    let writes = limits.writes.iter().rev();
    let writes = writes.filter_map(|write| {
        let (file, text) = match (group.read(&write.file), &write.if_absent) {
            (Ok(text), _) => (&write.file, text),
            (Err(_), IfAbsent::Instead { file, .. }) => (file, group.read(file).ok()?),
            (Err(_), IfAbsent::Fail | IfAbsent::Skip) => return None,
        };
        Some(CgroupWrite {
            file: file.clone(),
            value: value_before(&text, &write.value),
            field: write.field.clone(),
            if_absent: IfAbsent::Skip,
        })
    });
    Limits {
        writes: writes.collect(),
        ..Limits::default()
    }
}

/// Puts back what [`before`] has found, as far as the kernel takes it.
pub(super) fn put_back(group: &Group, before: &Limits) {
    for write in &before.writes {
        group.write(&write.file, &write.value).unwrap_or_default();
    }
}

/// The value of a file that would undo a write: its only line, or in a file with a line for each device the one of the
/// device that is written to. A device without a line has no limit and the usual weight.
fn value_before(text: &str, written: &str) -> String {
    let device = written.split_whitespace().next().unwrap_or_default();
    if !device.contains(':') {
        let line = text.lines().next().unwrap_or_default();
        return line.trim().to_owned();
    }
    let stands = text
        .lines()
        .find(|line| line.split_whitespace().next() == Some(device));
    let lifted = || match written.split_once('=') {
        None => format!("{device} default"),
        Some(_) => {
            let keys = written.split_whitespace().skip(1);
            let keys = keys.filter_map(|pair| Some(format!("{}=max", pair.split_once('=')?.0)));
            let keys: Vec<String> = keys.collect();
            format!("{device} {}", keys.join(" "))
        }
    };
    stands.map_or_else(lifted, |line| line.trim().to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_undoes_a_write_is_the_line_that_stood_there() {
        assert_eq!(value_before("max 100000\n", "5000 10000"), "max 100000");
        assert_eq!(value_before("\n", "0-1"), "");
        let table = "8:0 rbps=1 wbps=max riops=max wiops=max\n";
        assert_eq!(value_before(table, "8:0 rbps=7"), table.trim());
        assert_eq!(value_before(table, "8:16 rbps=7"), "8:16 rbps=max");
        assert_eq!(value_before("default 100\n", "200"), "default 100");
        assert_eq!(value_before("default 100\n", "8:0 200"), "8:0 default");
    }
}
