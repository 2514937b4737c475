//! How much there is to promise: what the kernel says, what those who delegated to us left, and `host.toml`.

use std::path::Path;
use std::path::PathBuf;

use crate::host::Host;
use crate::plan::admission::Capacity;
use crate::plan::admission::Resource;
use crate::spec::list;
use crate::workspace::host_file::HostFile;
use crate::workspace::host_file::HostFileError;
use crate::workspace::root::StateRoot;
use crate::workspace::wiring;

/// What the host keeps of its CPUs when nobody says: a twentieth.
const CPU_PART: u64 = 20;
/// What it keeps of each disk.
const DISK_PART: u64 = 20;
/// What it keeps of its memory: a twentieth,
const MEMORY_PART: u64 = 20;
/// but so many bytes at least,
const MEMORY_LEAST: u64 = 256 << 20;
/// and of a small machine no more than a half.
const MEMORY_MOST: u64 = 2;

/// What can be promised on this host, to the workspaces of one state root.
pub(super) fn find(root: &StateRoot, host: &Host) -> Result<Capacity, HostFileError> {
    let file = HostFile::read(&root.host)?;
    let around = surrounding(host);
    let cpu = cpus(&around);
    let memory = memory(&around);
    let of_disks = file.amounts.iter().filter(|(of, _)| of.disk().is_some());
    let mut capacity = Capacity {
        total: file.amounts.clone(),
        host: of_disks
            .map(|(of, amount)| (of.clone(), amount / DISK_PART))
            .collect(),
        usual_network: Some(wiring::usual_rate()),
        file: root.host.clone(),
    };
    if let Some(cpu) = cpu {
        capacity.total.insert(Resource::Cpu, cpu);
        let kept = file.cpu_milli.unwrap_or(cpu / CPU_PART);
        capacity.host.insert(Resource::Cpu, kept.min(cpu));
    }
    if let Some(memory) = memory {
        capacity.total.insert(Resource::Memory, memory);
        let usual = (memory / MEMORY_PART).max(MEMORY_LEAST);
        let kept = file.memory_bytes.unwrap_or(usual.min(memory / MEMORY_MOST));
        capacity.host.insert(Resource::Memory, kept.min(memory));
    }
    Ok(capacity)
}

/// The groups around the pool that may limit it, the innermost first: those of a user, or of a container that this runs
/// in. At the root of the machine there is none, and the root has no limits.
fn surrounding(host: &Host) -> Vec<PathBuf> {
    let Some(mount) = &host.cgroup.mount else {
        return Vec::new();
    };
    let own = host.cgroup.own.parent().unwrap_or(Path::new("/"));
    let delegated = host.caller.uid != 0 || host.caller.in_user_namespace;
    let around = if delegated { own } else { Path::new("/") };
    around
        .ancestors()
        .map(|path| mount.join(path.strip_prefix("/").unwrap_or(path)))
        .collect()
}

/// Thousandths of CPUs: as many as run, less where a group around has fewer or a quota.
fn cpus(around: &[PathBuf]) -> Option<u64> {
    let counted = around
        .iter()
        .find_map(|group| count(&group.join("cpuset.cpus.effective")));
    let all = counted.or_else(|| count(Path::new("/sys/devices/system/cpu/online")))? * 1000;
    let quotas = around
        .iter()
        .filter_map(|group| quota(&read(&group.join("cpu.max"))?));
    Some(quotas.fold(all, u64::min))
}

fn count(list: &Path) -> Option<u64> {
    let text = read(list)?;
    let ranges = list::ranges(text.trim()).ok()?;
    let all: u64 = ranges
        .into_iter()
        .map(|range| u64::try_from(range.count()).unwrap_or_default())
        .sum();
    (all > 0).then_some(all)
}

/// Thousandths of CPUs in a line of `cpu.max`; none without a limit.
fn quota(line: &str) -> Option<u64> {
    let mut words = line.split_whitespace();
    let quota: u64 = words.next()?.parse().ok()?;
    let period: u64 = words.next()?.parse().ok().filter(|period| *period > 0)?;
    Some(quota.saturating_mul(1000) / period)
}

/// Bytes of memory that the kernel has, less where a group around has a limit.
fn memory(around: &[PathBuf]) -> Option<u64> {
    let all = total(&read(Path::new("/proc/meminfo"))?)?;
    let limits = around
        .iter()
        .filter_map(|group| read(&group.join("memory.max"))?.trim().parse().ok());
    Some(limits.fold(all, u64::min))
}

fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_a_number_of_cpus() {
        assert_eq!(quota("150000 100000\n"), Some(1500));
        assert_eq!(quota("max 100000\n"), None);
        assert_eq!(quota(""), None);
    }

    #[test]
    fn memory_is_what_the_kernel_says() {
        assert_eq!(
            total("MemTotal:        3027908 kB\nMemFree: 1 kB\n"),
            Some(3_100_577_792)
        );
    }

    #[test]
    fn groups_around_lessen_what_there_is() {
        let tree = tempfile::tempdir().unwrap();
        let (outer, inner) = (tree.path().to_owned(), tree.path().join("inner"));
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(outer.join("cpu.max"), "150000 100000\n").unwrap();
        std::fs::write(outer.join("memory.max"), "1048576\n").unwrap();
        std::fs::write(inner.join("cpuset.cpus.effective"), "0-2,7\n").unwrap();
        std::fs::write(inner.join("memory.max"), "max\n").unwrap();
        assert_eq!(cpus(&[inner.clone(), outer.clone()]), Some(1500));
        assert_eq!(cpus(std::slice::from_ref(&inner)), Some(4000));
        assert_eq!(memory(&[inner, outer]), Some(1_048_576));
    }

    #[test]
    fn what_the_host_keeps_is_a_part_unless_its_file_says_otherwise() {
        let home = tempfile::tempdir().unwrap();
        let root = StateRoot::choose(Some(&home.path().join("root")), None).unwrap();
        let usual = find(&root, &Host::default()).unwrap();
        assert_eq!(usual.host[&Resource::Cpu], usual.total[&Resource::Cpu] / 20);
        assert!(usual.host[&Resource::Memory] >= usual.total[&Resource::Memory] / 20);
        std::fs::create_dir(&root.path).unwrap();
        std::fs::write(&root.host, "[reserve]\ncpu = 0.5\nmemory = \"1M\"\n").unwrap();
        let said = find(&root, &Host::default()).unwrap();
        assert_eq!(said.host[&Resource::Cpu], 500);
        assert_eq!(said.host[&Resource::Memory], 1 << 20);
    }
}
