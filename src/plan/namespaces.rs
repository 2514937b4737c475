//! Which namespaces a workspace has: made for it, joined, or shared with the host.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use crate::spec::Spec;
use crate::spec::linux::Clock;
use crate::spec::linux::IdMapping;
use crate::spec::linux::NamespaceKind;

/// `CLONE_NEWUSER`.
pub const USER: u64 = 0x1000_0000;
/// `CLONE_NEWPID`.
pub const PID: u64 = 0x2000_0000;
/// `CLONE_NEWNET`.
pub const NETWORK: u64 = 0x4000_0000;
/// `CLONE_NEWNS`.
pub const MOUNT: u64 = 0x0002_0000;
/// `CLONE_NEWIPC`.
pub const IPC: u64 = 0x0800_0000;
/// `CLONE_NEWUTS`.
pub const UTS: u64 = 0x0400_0000;
/// `CLONE_NEWCGROUP`.
pub const CGROUP: u64 = 0x0200_0000;
/// `CLONE_NEWTIME`.
pub const TIME: u64 = 0x80;

/// The kinds as the configuration spells them.
const NAMES: [(u64, &str); 8] = [
    (USER, "user"),
    (PID, "pid"),
    (NETWORK, "network"),
    (MOUNT, "mount"),
    (IPC, "ipc"),
    (UTS, "uts"),
    (CGROUP, "cgroup"),
    (TIME, "time"),
];

/// How the configuration spells a kind.
#[must_use]
pub fn name(kind: u64) -> &'static str {
    let known = NAMES.iter().find(|(bit, _)| *bit == kind);
    known.map_or("unknown", |(_, name)| *name)
}

/// The namespaces of a workspace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// `CLONE_NEW*` bits of those that are made.
    pub new: u64,
    /// Who makes that of its network.
    pub network_by: NetworkMaker,
    /// Whether who makes it outside brings its loopback interface up as well, while the process goes on.
    pub loopback: bool,
    /// Those that are joined, the user namespace first.
    pub join: Vec<Join>,
    /// Whose numbers the inside sees as which, when a user namespace is made.
    pub mapping: Option<Mapping>,
    /// Lines for `timens_offsets`, when a time namespace is made.
    pub time_offsets: String,
}

/// Who makes a new network namespace, which takes longer than all others together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkMaker {
    /// The kernel, with the process and its other namespaces.
    #[default]
    Birth,
    /// Who made the process, before that or while it does what needs no network.
    Outside,
}

/// A namespace that exists already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// Which of `linux.namespaces` it is.
    pub index: usize,
    /// Its `CLONE_NEW*` bit.
    pub kind: u64,
    /// Its kind, as the configuration spells it.
    pub name: String,
    /// Where it is found.
    pub path: PathBuf,
}

/// The mappings of a user namespace, as lines of `uid_map` and `gid_map` (`user_namespaces(7)`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// Users.
    pub users: String,
    /// Groups.
    pub groups: String,
    /// Whether more than the caller's own single user and group is mapped.
    pub wide: bool,
    /// Whether there is a user 0 inside.
    pub root: bool,
}

/// Reads the namespaces of a spec.
#[must_use]
pub fn of(spec: &Spec) -> Namespaces {
    let mut namespaces = Namespaces::default();
    for (index, wanted) in spec.linux.namespaces.iter().enumerate() {
        let kind = bit(wanted.kind);
        if wanted.is_new() {
            namespaces.new |= kind;
        } else {
            let name = wanted.kind.to_string();
            namespaces.join.push(Join {
                index,
                kind,
                name,
                path: wanted.path.clone(),
            });
        }
    }
    namespaces.join.sort_by_key(|join| join.kind != USER);
    if namespaces.new & USER != 0 {
        namespaces.mapping = Some(mapping(&spec.linux.uid_mappings, &spec.linux.gid_mappings));
    }
    for (clock, offset) in &spec.linux.time_offsets {
        let name = match clock {
            Clock::Monotonic => "monotonic",
            Clock::Boottime => "boottime",
        };
        namespaces.time_offsets += &format!("{name} {} {}\n", offset.secs, offset.nanosecs);
    }
    namespaces
}

impl Namespaces {
    /// Whether the workspace has a namespace of this kind that is not the host's.
    #[must_use]
    pub fn has(&self, kind: u64) -> bool {
        self.new & kind != 0 || self.join.iter().any(|join| join.kind == kind)
    }

    /// Whether the ipc namespace is made by the process itself, once it is root in its user namespace. The message queues'
    /// filesystem belongs to whoever makes the namespace: made at birth, to a user of the host whom nobody inside knows.
    #[must_use]
    pub fn ipc_later(&self) -> bool {
        let has_root = self.mapping.as_ref().is_none_or(|mapping| mapping.root);
        self.new & IPC != 0 && self.has(USER) && has_root
    }

    /// Whether one `clone3(2)` cannot make it: a user, pid or time namespace is entered by a first process,
    /// and only its child lives there; and what belongs to the host must be joined before a user namespace
    /// of its own takes the right to do so away.
    #[must_use]
    pub fn two_generations(&self) -> bool {
        let first = self
            .join
            .iter()
            .any(|join| join.kind & (USER | PID | TIME) != 0);
        let foreign = self.new & USER != 0 && !self.join.is_empty();
        first || foreign || self.new & TIME != 0
    }
}

/// The lines of a map file.
#[must_use]
pub fn lines(mappings: &[IdMapping]) -> String {
    mappings
        .iter()
        .map(|mapping| {
            format!(
                "{} {} {}\n",
                mapping.container_id, mapping.host_id, mapping.size
            )
        })
        .collect()
}

fn mapping(users: &[IdMapping], groups: &[IdMapping]) -> Mapping {
    let wide = |mappings: &[IdMapping]| {
        mappings.len() > 1 || mappings.iter().any(|mapping| mapping.size > 1)
    };
    Mapping {
        users: lines(users),
        groups: lines(groups),
        wide: wide(users) || wide(groups),
        root: users
            .iter()
            .any(|mapping| mapping.container_id == 0 && mapping.size > 0),
    }
}

fn bit(kind: NamespaceKind) -> u64 {
    match kind {
        NamespaceKind::User => USER,
        NamespaceKind::Pid => PID,
        NamespaceKind::Network => NETWORK,
        NamespaceKind::Mount => MOUNT,
        NamespaceKind::Ipc => IPC,
        NamespaceKind::Uts => UTS,
        NamespaceKind::Cgroup => CGROUP,
        NamespaceKind::Time => TIME,
    }
}

impl fmt::Display for Namespaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = NAMES
            .iter()
            .filter(|(bit, _)| self.new & bit != 0)
            .map(|(_, name)| *name)
            .collect();
        writeln!(f, "new namespaces: {}", names.join(" "))?;
        if self.loopback {
            writeln!(f, "bring up lo from outside")?;
        }
        for join in &self.join {
            writeln!(f, "join {} namespace {}", join.name, join.path.display())?;
        }
        if let Some(mapping) = &self.mapping {
            writeln!(
                f,
                "map users {}",
                mapping.users.trim_end().replace('\n', ", ")
            )?;
            writeln!(
                f,
                "map groups {}",
                mapping.groups.trim_end().replace('\n', ", ")
            )?;
        }
        if !self.time_offsets.is_empty() {
            let offsets = self.time_offsets.trim_end().replace('\n', ", ");
            writeln!(f, "set clocks ahead by {offsets}")?;
        }
        Ok(())
    }
}
