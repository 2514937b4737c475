//! What the kernel counts that workspaces take of it, before and after.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use crate::support::home::Home;
use crate::support::residue;
use crate::support::scale;

/// How long the kernel may take to give back what nobody uses any more.
const SETTLING: Duration = Duration::from_secs(60);

/// Counters that others on the host move too, or that the kernel lowers when it likes: they may grow by less than one
/// in this many lives, so that whatever is lost in each life, or in every tenth, is seen.
const BOUNDED: [&str; 5] = [
    "open files of the host",
    "dying cgroups",
    "slab mnt_cache",
    "slab net_namespace",
    "slab kernfs_node_cache",
];
/// One in how many.
const SELDOM: i64 = 10;
/// What others may move meanwhile, however few lives there are.
const NOISE: i64 = 600;

/// Each counter by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Counters(BTreeMap<&'static str, i64>);

impl Counters {
    /// They as they are now.
    fn taken(home: &Home) -> Self {
        let lines = |file: &str| {
            std::fs::read_to_string(file)
                .unwrap_or_default()
                .lines()
                .count()
        };
        let mut all = BTreeMap::new();
        let mut note = |name, count: usize| all.insert(name, i64::try_from(count).unwrap());
        note("mounts", lines("/proc/self/mountinfo"));
        note("sockets", lines("/proc/net/unix"));
        note("routes", lines("/proc/net/route"));
        note("interfaces", entries("/sys/class/net"));
        note("named networks", entries("/run/netns"));
        note("shared memory", entries("/dev/shm"));
        note("block devices", entries("/sys/block"));
        note("state", entries(home.root()));
        note("leases", below(&home.root()));
        note("descriptors of this process", entries("/proc/self/fd"));
        note("rules", rules());
        note("cgroups", groups());
        let (processes, zombies) = processes();
        note("processes below this one", processes);
        note("zombies below this one", zombies);
        note(BOUNDED[0], first_number("/proc/sys/fs/file-nr"));
        note(BOUNDED[1], dying());
        note(BOUNDED[2], slab("mnt_cache"));
        note(BOUNDED[3], slab("net_namespace"));
        note(BOUNDED[4], slab("kernfs_node_cache"));
        Self(all)
    }

    /// They when nothing moves any more.
    pub(super) fn settled(home: &Home) -> Self {
        let mut last = Self::taken(home);
        let deadline = Instant::now() + SETTLING;
        loop {
            std::thread::park_timeout(Duration::from_millis(50));
            let now = Self::taken(home);
            if now.exact() == last.exact() || Instant::now() > deadline {
                return now;
            }
            last = now;
        }
    }

    /// Those that must be equal.
    fn exact(&self) -> BTreeMap<&'static str, i64> {
        let own = self.0.iter().filter(|(name, _)| !BOUNDED.contains(name));
        own.map(|(name, count)| (*name, *count)).collect()
    }

    /// Those that have grown too much.
    fn grown(&self, now: &Self, lives: u32) -> BTreeSet<&'static str> {
        let all = self.0.iter().filter(|(name, before)| {
            let more = now.0[*name] - **before;
            match BOUNDED.contains(name) {
                // In a short run others move them more than any loss would.
                true => scale::share().is_some() && more > NOISE + i64::from(lives) / SELDOM,
                false => more != 0,
            }
        });
        all.map(|(name, _)| *name).collect()
    }

    /// Waits until they stand where they stood, and prints both.
    #[expect(
        clippy::print_stdout,
        reason = "the table is what a long run is made for"
    )]
    #[track_caller]
    pub(super) fn stand_again(&self, name: &str, home: &Home, lives: u32) {
        let deadline = Instant::now() + SETTLING;
        let mut now = Self::taken(home);
        while !self.grown(&now, lives).is_empty() && Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(50));
            now = Self::taken(home);
        }
        println!("{lives} times {name}:");
        for (counter, before) in &self.0 {
            println!("  {counter:30} {before:10} {:10}", now.0[counter]);
        }
        assert_eq!(
            self.grown(&now, lives),
            BTreeSet::new(),
            "after {lives} times {name}"
        );
    }
}

fn entries(directory: impl AsRef<Path>) -> usize {
    std::fs::read_dir(directory).into_iter().flatten().count()
}

/// Everything below a directory.
fn below(directory: &Path) -> usize {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => 1 + below(&entry.path()),
            _ => 1,
        })
        .sum()
}

fn first_number(file: &str) -> usize {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let first = text.split_ascii_whitespace().next();
    first.and_then(|word| word.parse().ok()).unwrap_or_default()
}

/// The rules of the packet filter; none where it is not there.
fn rules() -> usize {
    let said = std::process::Command::new("nft")
        .args(["list", "ruleset"])
        .output();
    said.map_or(0, |said| said.stdout.split(|byte| *byte == b'\n').count())
}

/// The places where cgroup2 is mounted.
fn mounts() -> Vec<&'static str> {
    let places = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
    let there = |place: &&str| Path::new(place).join("cgroup.controllers").exists();
    places.into_iter().filter(there).collect()
}

/// The cgroups that the program has made: others have theirs.
fn groups() -> usize {
    let mut found = Vec::new();
    for mount in mounts() {
        residue::groups(
            Path::new(mount),
            &format!("test-{}-", std::process::id()),
            &mut found,
        );
    }
    found.len()
}

fn dying() -> usize {
    let number = |mount: &&str| {
        let text =
            std::fs::read_to_string(Path::new(mount).join("cgroup.stat")).unwrap_or_default();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("nr_dying_descendants "));
        line.and_then(|count| count.parse::<usize>().ok())
            .unwrap_or_default()
    };
    mounts().iter().map(number).sum()
}

/// The objects in use of one of the kernel's caches; none where the kernel has merged it with others.
fn slab(cache: &str) -> usize {
    let text = std::fs::read_to_string("/proc/slabinfo").unwrap_or_default();
    let line = text
        .lines()
        .find(|line| line.split_ascii_whitespace().next() == Some(cache));
    let active = line.and_then(|line| line.split_ascii_whitespace().nth(1));
    active
        .and_then(|word| word.parse().ok())
        .unwrap_or_default()
}

/// The processes that this one or a descendant has made, or that carry a mark of this test run, and how many of them are
/// only waiting to be collected.
fn processes() -> (usize, usize) {
    let mut parents = BTreeMap::new();
    let mut zombies = BTreeSet::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        let state = fields.next().unwrap_or_default();
        let parent = fields.next().and_then(|word| word.parse::<u32>().ok());
        parents.insert(pid, parent.unwrap_or_default());
        zombies.extend((state == "Z").then_some(pid));
    }
    let ours = |pid: &&u32| {
        let mut above = parents.get(*pid);
        while let Some(parent) = above.filter(|parent| **parent != std::process::id()) {
            above = parents.get(parent);
        }
        above.is_some()
    };
    let own: BTreeSet<&u32> = parents.keys().filter(ours).collect();
    let mark = format!("{}=test-{}-", residue::MARK, std::process::id());
    let marked = |pid: &&u32| {
        let words = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        words
            .split(|byte| *byte == 0)
            .any(|pair| pair.starts_with(mark.as_bytes()))
    };
    let strays = parents
        .keys()
        .filter(|pid| !own.contains(pid))
        .filter(marked)
        .count();
    (
        own.len() + strays,
        own.iter().filter(|pid| zombies.contains(**pid)).count(),
    )
}
