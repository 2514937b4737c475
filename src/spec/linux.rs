//! What was asked for that only Linux has: namespaces, identities, devices, and what is kept out of sight.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use super::absent::is_default;
use super::absent::null_is_default;
pub use super::hardware::IntelRdt;
pub use super::hardware::MemoryPolicy;
pub use super::hardware::MemoryPolicyFlag;
pub use super::hardware::MemoryPolicyMode;
use super::resources::Resources;
use super::seccomp::Seccomp;

/// The `linux` object.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Linux {
    /// Which namespaces are the container's own, or are joined.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub namespaces: Vec<Namespace>,
    /// Which users outside the container's user namespace stand behind those inside.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub uid_mappings: Vec<IdMapping>,
    /// The same for groups.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub gid_mappings: Vec<IdMapping>,
    /// How far the clocks of the time namespace are from the host's.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub time_offsets: BTreeMap<Clock, TimeOffset>,
    /// Device nodes to make beside the usual ones.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub devices: Vec<Device>,
    /// Network interfaces of the runtime's namespace that move into the container's.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub net_devices: BTreeMap<String, NetDevice>,
    /// Where the cgroup is: a path, or `slice:prefix:name` for systemd; empty leaves it to the runtime.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub cgroups_path: String,
    /// Limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// How the root's mount shares mounts with others; empty or absent means `rprivate`.
    #[serde(
        default,
        deserialize_with = "propagation_or_none",
        skip_serializing_if = "Option::is_none"
    )]
    pub rootfs_propagation: Option<Propagation>,
    /// Which system calls are let through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<Seccomp>,
    /// Kernel parameters of the container's namespaces.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub sysctl: BTreeMap<String, String>,
    /// Paths inside the container that show nothing.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub masked_paths: Vec<PathBuf>,
    /// Paths inside the container that cannot be written.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub readonly_paths: Vec<PathBuf>,
    /// The SELinux label of the container's mounts; empty for none.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub mount_label: String,
    /// Cache and memory bandwidth of Intel processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<IntelRdt>,
    /// From which NUMA nodes memory is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_policy: Option<MemoryPolicy>,
    /// Which other system the kernel should pass for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub personality: Option<Personality>,
}

impl Linux {
    /// The namespace of a kind, if the container has or joins one and does not stay in the runtime's.
    pub fn namespace(&self, kind: NamespaceKind) -> Option<&Namespace> {
        self.namespaces
            .iter()
            .find(|namespace| namespace.kind == kind)
    }

    /// Whether the container has or joins a namespace of a kind.
    pub fn has(&self, kind: NamespaceKind) -> bool {
        self.namespace(kind).is_some()
    }
}

impl Namespace {
    /// Whether it is made and not joined.
    pub fn is_new(&self) -> bool {
        self.path.as_os_str().is_empty()
    }
}

/// A namespace to make or join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Which kind.
    #[serde(rename = "type")]
    pub kind: NamespaceKind,
    /// The namespace to join; empty makes a new one.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub path: PathBuf,
}

/// The kinds of namespaces, in the order in which they are joined: the user namespace first, as it gives the rights to
/// join the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceKind {
    /// Users, groups and capabilities.
    User,
    /// Process numbers.
    Pid,
    /// Network interfaces, addresses and rules.
    Network,
    /// Mounts.
    Mount,
    /// System V and POSIX message queues, semaphores, shared memory.
    Ipc,
    /// Host and domain name.
    Uts,
    /// What looks like the root of the cgroup tree.
    Cgroup,
    /// The monotonic and boot-time clocks.
    Time,
}

impl NamespaceKind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::User,
        Self::Pid,
        Self::Network,
        Self::Mount,
        Self::Ipc,
        Self::Uts,
        Self::Cgroup,
        Self::Time,
    ];

    /// The word in `config.json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Pid => "pid",
            Self::Network => "network",
            Self::Mount => "mount",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::Cgroup => "cgroup",
            Self::Time => "time",
        }
    }
}

impl std::fmt::Display for NamespaceKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A range of ids outside that stands behind a range of ids inside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct IdMapping {
    /// The first id inside.
    #[serde(rename = "containerID", default, deserialize_with = "null_is_default")]
    pub container_id: u32,
    /// The first id outside.
    #[serde(rename = "hostID", default, deserialize_with = "null_is_default")]
    pub host_id: u32,
    /// How many.
    #[serde(default, deserialize_with = "null_is_default")]
    pub size: u32,
}

/// A clock that a time namespace can shift.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    /// `CLOCK_MONOTONIC`.
    Monotonic,
    /// `CLOCK_BOOTTIME`.
    Boottime,
}

impl std::fmt::Display for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Monotonic => "monotonic",
            Self::Boottime => "boottime",
        })
    }
}

/// How far a clock is from the host's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeOffset {
    /// Seconds.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub secs: i64,
    /// Nanoseconds, to be added.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub nanosecs: u32,
}

/// A device node to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// What kind of node.
    #[serde(rename = "type")]
    pub kind: DeviceKind,
    /// Where, absolute inside the container.
    #[serde(default)]
    pub path: PathBuf,
    /// Major number; a named pipe needs none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub major: Option<i64>,
    /// Minor number; a named pipe needs none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minor: Option<i64>,
    /// Permission bits; absent means 0666.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_mode: Option<u32>,
    /// Owner, in the container's numbers; absent means 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Group, in the container's numbers; absent means 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
}

/// Kinds of device nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// A character device.
    #[serde(rename = "c", alias = "u")]
    Char,
    /// A block device.
    #[serde(rename = "b")]
    Block,
    /// A named pipe.
    #[serde(rename = "p")]
    Fifo,
}

/// Where an interface goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetDevice {
    /// Its name inside; empty keeps the name.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub name: String,
}

/// How a mount shares mounts and unmounts with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Propagation {
    /// In which way.
    pub kind: PropagationKind,
    /// Whether all mounts below are meant as well.
    pub recursive: bool,
}

/// The ways of sharing mounts, `mount_namespaces(7)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PropagationKind {
    /// Not at all.
    Private,
    /// Both ways.
    Shared,
    /// Inwards only.
    Slave,
    /// Not at all, and never a source of a bind mount.
    Unbindable,
}

impl Propagation {
    /// Reads the word, with the letter `r` before it for all mounts below.
    pub fn from_word(word: &str) -> Option<Self> {
        let (kind, recursive) = match word {
            "private" => (PropagationKind::Private, false),
            "rprivate" => (PropagationKind::Private, true),
            "shared" => (PropagationKind::Shared, false),
            "rshared" => (PropagationKind::Shared, true),
            "slave" => (PropagationKind::Slave, false),
            "rslave" => (PropagationKind::Slave, true),
            "unbindable" => (PropagationKind::Unbindable, false),
            "runbindable" => (PropagationKind::Unbindable, true),
            _ => return None,
        };
        Some(Self { kind, recursive })
    }
}

impl std::fmt::Display for Propagation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.recursive {
            f.write_str("r")?;
        }
        f.write_str(match self.kind {
            PropagationKind::Private => "private",
            PropagationKind::Shared => "shared",
            PropagationKind::Slave => "slave",
            PropagationKind::Unbindable => "unbindable",
        })
    }
}

impl TryFrom<String> for Propagation {
    type Error = String;

    fn try_from(word: String) -> Result<Self, String> {
        Self::from_word(&word).ok_or_else(|| {
            format!(
                "unknown propagation {word:?}, expected private, shared, slave or unbindable, or one of them with an `r` before it"
            )
        })
    }
}

impl From<Propagation> for String {
    fn from(propagation: Propagation) -> Self {
        propagation.to_string()
    }
}

/// Reads a propagation; the empty word is none, as in documents that Go has written.
fn propagation_or_none<'de, D>(from: D) -> Result<Option<Propagation>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    match Option::<String>::deserialize(from)? {
        Some(word) if !word.is_empty() => Propagation::try_from(word)
            .map(Some)
            .map_err(serde::de::Error::custom),
        _ => Ok(None),
    }
}

/// Which other system the kernel should pass for: `personality(2)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Personality {
    /// Which one.
    pub domain: PersonalityDomain,
    /// Named by the specification, which defines none.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub flags: Vec<String>,
}

/// Systems the kernel can pass for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PersonalityDomain {
    /// Itself.
    #[serde(rename = "LINUX")]
    Linux,
    /// Itself on a 32-bit machine.
    #[serde(rename = "LINUX32")]
    Linux32,
}
