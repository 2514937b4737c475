//! Disks: which one a file is on, and what of this kernel weighs those who share it.
//!
//! Cgroups count, limit and weigh whole disks by their numbers (`8:0`). A weight means something only where the disk has
//! io.cost (`Documentation/admin-guide/cgroup-v2.rst`, "IO Interface Files") or the BFQ scheduler; a kernel has the files
//! for weights without either, and takes what is written to them.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

/// Whether nothing weighs is found out for so many disks below each other at most.
const DEEPEST: usize = 8;

/// What weighs the groups that share a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weigher {
    /// io.cost, which is switched on for each disk.
    IoCost,
    /// The scheduler of the disk.
    Bfq,
}

impl Weigher {
    /// What weighs those who share `disk`; nothing where no weight has a meaning.
    #[must_use]
    pub fn of(disk: &str, mount: &Path) -> Option<Self> {
        let costs = read(&mount.join("io.cost.qos")).unwrap_or_default();
        if costs.lines().any(|line| is_on(line, disk)) {
            return Some(Self::IoCost);
        }
        // Else whoever has just begun to read comes first, whatever it weighs (`Documentation/block/bfq-iosched.rst`).
        let fair = read(&place(disk).join("queue/iosched/low_latency"));
        let fair = fair.is_some_and(|value| value.trim() == "0");
        (fair && scheduler(disk)? == "bfq").then_some(Self::Bfq)
    }

    /// The file of a group's weights.
    #[must_use]
    pub fn file(self) -> &'static str {
        match self {
            Self::IoCost => "io.weight",
            Self::Bfq => "io.bfq.weight",
        }
    }

    /// The greatest weight that it takes; the least is 1.
    #[must_use]
    pub fn greatest(self) -> u64 {
        match self {
            Self::IoCost => 10_000,
            Self::Bfq => 1_000,
        }
    }

    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::IoCost => "io.cost",
            Self::Bfq => "bfq",
        }
    }
}

/// Whether a line of `io.cost.qos` says that it is on for a disk.
fn is_on(line: &str, disk: &str) -> bool {
    let mut words = line.split_whitespace();
    words.next() == Some(disk) && words.any(|word| word == "enable=1")
}

/// The scheduler of a disk; none where requests are not queued, as on a mapped device.
#[must_use]
pub fn scheduler(disk: &str) -> Option<String> {
    let text = read(&place(disk).join("queue/scheduler"))?;
    let chosen = text.split_whitespace().find_map(|word| {
        let word = word.strip_prefix('[')?;
        word.strip_suffix(']')
    });
    chosen.map(str::to_owned)
}

/// What the kernel calls a disk: `sda`.
#[must_use]
pub fn name(disk: &str) -> Option<String> {
    let entry = std::fs::canonicalize(place(disk)).ok()?;
    Some(entry.file_name()?.to_string_lossy().into_owned())
}

/// The whole disk that a file is on, by its numbers; none for what is on no disk.
///
/// A partition is below its disk, and a mapped device that is on one disk alone (`device-mapper`: volumes, encryption) is
/// taken for that disk: there its requests are queued and weighed.
#[must_use]
pub fn below(path: &Path) -> Option<String> {
    let device = std::fs::metadata(path).ok()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let mut entry = std::fs::canonicalize(place(&format!("{major}:{minor}"))).ok()?;
    for _ in 0..DEEPEST {
        let below = if entry.join("partition").exists() {
            entry.parent().map(Path::to_owned)
        } else {
            only_one_in(&entry.join("slaves"))
        };
        match below {
            Some(below) => entry = below,
            None => break,
        }
    }
    Some(read(&entry.join("dev"))?.trim().to_owned())
}

fn only_one_in(directory: &Path) -> Option<PathBuf> {
    let mut entries = std::fs::read_dir(directory).ok()?.flatten();
    let first = entries.next()?;
    if entries.next().is_some() {
        return None;
    }
    std::fs::canonicalize(first.path()).ok()
}

fn place(disk: &str) -> PathBuf {
    Path::new("/sys/dev/block").join(disk)
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_cost_weighs_the_disks_that_it_is_on_for() {
        let line = "8:16 enable=1 ctrl=user rpct=95.00";
        assert!(is_on(line, "8:16"));
        assert!(!is_on(line, "8:1"));
        assert!(!is_on("8:16 enable=0 ctrl=user", "8:16"));
    }

    #[test]
    fn a_disk_that_io_cost_is_on_for_is_weighed_by_it() {
        let mount = tempfile::tempdir().unwrap();
        std::fs::write(mount.path().join("io.cost.qos"), "999:0 enable=1\n").unwrap();
        assert_eq!(Weigher::of("999:0", mount.path()), Some(Weigher::IoCost));
        assert_eq!(Weigher::of("999:1", mount.path()), None);
    }
}
