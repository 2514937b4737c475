//! What the processors' packages have taken, where the host measures it (RAPL, `/sys/class/powercap`).
//!
//! Only whole packages are read: their parts (cores, memory) are contained in them. A counter starts over at its
//! range, which takes minutes at least, so two looks that are an interval apart see at most one start.

use std::path::Path;

use serde::Deserialize;
use serde::Serialize;

/// Where the kernel shows them.
pub const POWERCAP: &str = "/sys/class/powercap";

/// The counter of one package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    name: String,
    uj: u64,
    range_uj: u64,
}

/// The counters of all packages, in the order of their names; none where none can be read.
#[must_use]
pub fn read(powercap: &Path) -> Vec<Package> {
    let Ok(entries) = std::fs::read_dir(powercap) else {
        return Vec::new();
    };
    let mut found: Vec<Package> = entries
        .flatten()
        .filter_map(|entry| package(&entry.path()))
        .collect();
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

/// `intel-rapl:0` is a package, `intel-rapl:0:1` a part of it (AMD's are named the same).
fn package(path: &Path) -> Option<Package> {
    let name = path.file_name()?.to_str()?;
    if name.strip_prefix("intel-rapl:")?.contains(':') {
        return None;
    }
    let number = |file: &str| -> Option<u64> {
        let text = std::fs::read_to_string(path.join(file)).ok()?;
        text.trim().parse().ok()
    };
    Some(Package {
        name: name.to_owned(),
        uj: number("energy_uj")?,
        range_uj: number("max_energy_range_uj")?,
    })
}

/// What was taken between two looks; none when they did not see the same packages, or none at all.
#[must_use]
pub fn between(before: &[Package], now: &[Package]) -> Option<u64> {
    if now.is_empty() || before.len() != now.len() {
        return None;
    }
    let taken = before.iter().zip(now).map(|(before, now)| {
        let same = before.name == now.name;
        same.then(|| match now.uj.checked_sub(before.uj) {
            Some(taken) => taken,
            None => now.uj + now.range_uj.saturating_sub(before.uj),
        })
    });
    taken.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(zones: &[(&str, u64)]) -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        for (name, uj) in zones {
            let zone = home.path().join(name);
            std::fs::create_dir(&zone).unwrap();
            std::fs::write(zone.join("energy_uj"), format!("{uj}\n")).unwrap();
            std::fs::write(zone.join("max_energy_range_uj"), "1000\n").unwrap();
        }
        home
    }

    #[test]
    fn whole_packages_are_added_and_their_parts_are_not() {
        let before = host(&[("intel-rapl:0", 10), ("intel-rapl:0:0", 5), ("dtpm", 1)]);
        let now = host(&[("intel-rapl:0", 30), ("intel-rapl:0:0", 9), ("dtpm", 9)]);
        assert_eq!(between(&read(before.path()), &read(now.path())), Some(20));
    }

    #[test]
    fn a_counter_that_started_over_has_not_run_backwards() {
        let (before, now) = (host(&[("intel-rapl:0", 990)]), host(&[("intel-rapl:0", 5)]));
        assert_eq!(between(&read(before.path()), &read(now.path())), Some(15));
    }

    #[test]
    fn without_counters_nothing_is_known() {
        let none = read(Path::new("/nowhere"));
        assert_eq!(between(&none, &none), None);
    }
}
