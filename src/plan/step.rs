//! The vocabulary of a plan: each step is one thing to do to the kernel, as data.
//!
//! A step carries all that is needed to do it and nothing of the machine it was planned on, so that the
//! same steps can be done by a child on this kernel or inside a guest with a kernel of its own.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

pub use crate::plan::seccomp::Filter;

/// A point where the one who does the steps waits for the one who started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Barrier {
    /// What can only be done from outside is done: identities mapped, process placed, interfaces moved.
    Outside,
    /// The namespaces and mounts stand, the root is not yet entered: hooks of the runtime's side run now.
    RuntimeHooks,
    /// All is built; what follows happens when the workspace is started.
    Start,
}

/// One action. The order in a plan is the order in which they are done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Step {
    /// Wait at a point of synchronisation.
    Await(Barrier),
    /// Set how eagerly the kernel ends this process when memory is short.
    OomScore(i32),
    /// Become the root of a new user namespace.
    BecomeRoot,
    /// Leave the ipc namespace for a new one, as the root of the user namespace.
    IpcNamespace,
    /// Leave the cgroup namespace for one that begins at the present cgroup.
    CgroupNamespace,
    /// Take the network namespace that who made this process has made for it, and enter it.
    JoinNetwork,
    /// Join a session keyring of this name.
    Keyring(String),
    /// Bring the loopback interface up.
    Loopback,
    /// Set the host name.
    Hostname(String),
    /// Set the NIS domain name.
    Domainname(String),
    /// Set the propagation (`MS_*`) of every mount that was inherited.
    Propagate(u64),
    /// Take a directory as the root to build below.
    Root {
        /// Where it is, outside.
        path: PathBuf,
        /// Cut it off from the mounts that are shared with the host, or what is mounted in it would show there.
        cut_off: bool,
    },
    /// Lay a writable directory over one that is only read, and take the result as the root to build below.
    Overlay(Box<Overlay>),
    /// Take a directory as the root as it stands, where the mounts are shared with the host.
    PlainRoot(PathBuf),
    /// Mount a new file system.
    Mount(Box<Filesystem>),
    /// Mount part of an existing tree.
    Bind(Box<Bind>),
    /// Change a mount that is there already.
    Remount(Box<Remount>),
    /// Make a device node.
    Device(Device),
    /// Make a symbolic link, in place of what is there.
    Symlink {
        /// Where.
        path: PathBuf,
        /// To what.
        target: PathBuf,
    },
    /// Make a pseudo terminal, hand its master out, and make its slave the console and standard streams.
    Console(Console),
    /// Make a directory and its parents when they are missing.
    Directory(PathBuf),
    /// Run a hook inside.
    Hook(Box<Hook>),
    /// Make the built root the root of this mount namespace, or of this process alone.
    Enter(Entry),
    /// Set the propagation (`MS_*`) of the root. It comes late: `pivot_root(2)` takes no root that is shared, and of
    /// one that is unbindable nothing can be made read-only.
    RootPropagation {
        /// The one bit.
        flag: u64,
        /// Of all mounts below as well.
        recursive: bool,
    },
    /// Make the root read-only.
    ReadonlyRoot,
    /// Write a kernel parameter.
    Sysctl {
        /// Its path below `/proc/sys`.
        key: String,
        /// What is written.
        value: String,
    },
    /// Hide a path: an empty directory or file in its place.
    Mask(PathBuf),
    /// Make a path read-only.
    Readonly(PathBuf),
    /// Limit a resource.
    Rlimit(Limit),
    /// Set the scheduling policy.
    Schedule(Scheduling),
    /// Set the I/O priority.
    IoPriority {
        /// 1 real time, 2 best effort, 3 idle.
        class: u32,
        /// 0 (first) to 7.
        level: u32,
    },
    /// Set the memory policy.
    MemoryPolicy {
        /// `MPOL_*` and flags.
        mode: u32,
        /// Node numbers.
        nodes: Vec<u32>,
    },
    /// Set the execution domain.
    Personality(u64),
    /// Run on these CPUs.
    Affinity(Vec<u32>),
    /// Set the file mode creation mask.
    Umask(u32),
    /// Ask a security module for a label at the next `execve(2)`.
    Label(Label),
    /// Enter the working directory, and make sure that it lies inside the root.
    WorkingDirectory(PathBuf),
    /// Begin a session of its own.
    Session,
    /// Drop capabilities from the bounding set: what is not in this mask.
    Bound(u64),
    /// Take on user and groups.
    Become(User),
    /// Set the capability sets.
    Capabilities(Capabilities),
    /// Never gain privileges again.
    NoNewPrivileges,
    /// Load a system call filter.
    Seccomp(Box<Filter>),
    /// Find the program, before anything depends on it.
    Lookup(Box<Program>),
    /// Close what is not handed on, and become the program.
    Execute(Box<Program>),
}

/// Attributes of a mount, of the mount alone and of all below it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub clear: u64,
    /// `MOUNT_ATTR_*` to set here and on all below.
    pub set_below: u64,
    /// `MOUNT_ATTR_*` to clear here and on all below.
    pub clear_below: u64,
    /// `MS_*` propagation to set, in order, each with whether it is set on all below too.
    pub propagation: Vec<(u64, bool)>,
}

/// A new file system and where it goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filesystem {
    /// Where, inside the root.
    pub destination: PathBuf,
    /// Its type, as in `/proc/filesystems`.
    pub kind: String,
    /// What it is made from: a name, or a device.
    pub source: String,
    /// Options with their values, in order.
    pub options: Vec<(String, Option<String>)>,
    /// Attributes of the mount.
    pub attributes: Attributes,
    /// Whether what was at the destination is copied into it (`tmpcopyup`).
    pub copy_up: bool,
    /// Whether the destination must be a directory of the image's own, reached without links.
    pub ordinary: bool,
    /// A tree to bind in its place where the kernel does not let us mount this type.
    pub otherwise: Option<PathBuf>,
}

/// A root of two layers (`overlayfs`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlay {
    /// The directory that is only read, and may be that of many.
    pub lower: PathBuf,
    /// The directory that takes what is written.
    pub upper: PathBuf,
    /// A directory on the same mount for the kernel's own use.
    pub work: PathBuf,
    /// Owners in all three are shown through these mappings.
    pub idmap: Option<Idmap>,
    /// Further options of the file system, in order.
    pub options: Vec<(String, Option<String>)>,
}

/// Part of an existing tree and where it goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Where, inside the root.
    pub destination: PathBuf,
    /// From where, outside.
    pub source: PathBuf,
    /// With all mounts below it.
    pub recursive: bool,
    /// Attributes of the mount.
    pub attributes: Attributes,
    /// Owners are shown through these mappings.
    pub idmap: Option<Idmap>,
    /// Whether a last link of the source is followed.
    pub follow: bool,
    /// Whether a last link of the destination is followed, inside the root.
    pub follow_destination: bool,
    /// Whether a link at the source is copied as a link.
    pub copy_link: bool,
}

/// Changes of a mount that is there already.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remount {
    /// Where it is, inside the root.
    pub destination: PathBuf,
    /// Options for the file system itself, which shows in all its mounts; none leaves it alone.
    pub options: Vec<(String, Option<String>)>,
    /// Attributes of the mount.
    pub attributes: Attributes,
}

/// The owners of an id-mapped mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idmap {
    /// Lines of a `uid_map`; empty means: as the workspace's own user namespace.
    pub users: String,
    /// Lines of a `gid_map`.
    pub groups: String,
    /// On all mounts below as well.
    pub recursive: bool,
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Where, inside the root.
    pub path: PathBuf,
    /// `c`, `b` or `p`.
    pub kind: char,
    /// Its major number.
    pub major: u32,
    /// Its minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Whether the host's node is mounted, because none may be made here.
    pub bind: bool,
}

/// A scheduling policy (`sched_setattr(2)`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduling {
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// -20 to 19.
    pub nice: i32,
    /// 1 to 99 for the real-time policies.
    pub priority: u32,
    /// Nanoseconds.
    pub runtime: u64,
    /// Nanoseconds.
    pub deadline: u64,
    /// Nanoseconds.
    pub period: u64,
}

/// A terminal for the program.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Console {
    /// Rows, 0 to leave the kernel's default.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
    /// The user who owns the slave.
    pub uid: u32,
    /// Whether it is mounted on `/dev/console`: for the first program only.
    pub mount: bool,
}

/// How the built root is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// `pivot_root(2)`.
    Pivot,
    /// Move the root mount over `/`, for a root that lives on an initial ramdisk.
    Move,
    /// `chroot(2)` alone, where the mount namespace is shared.
    Chroot,
}

/// A resource limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Its name, `RLIMIT_*`.
    pub name: String,
    /// Its number.
    pub resource: u32,
    /// What is in force.
    pub soft: u64,
    /// How far it may be raised.
    pub hard: u64,
}

/// A security module's label for the program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Label {
    /// The name of an AppArmor profile.
    AppArmor(String),
    /// A SELinux context.
    Selinux(String),
}

/// User and groups of the program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// Further groups; `None` leaves them alone, where they must not be set.
    pub groups: Option<Vec<u32>>,
}

/// Capability sets as masks, bit n for capability n.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// What the kernel checks.
    pub effective: u64,
    /// What may be made effective.
    pub permitted: u64,
    /// What survives `execve(2)`.
    pub inheritable: u64,
    /// What is held over `execve(2)` by any user.
    pub ambient: u64,
}

/// A program and what it is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its name and arguments.
    pub arguments: Vec<String>,
    /// Its environment, `NAME=value`.
    pub environment: Vec<String>,
    /// The user whose home becomes `HOME` when the environment has none.
    pub uid: u32,
    /// How many descriptors from 3 on are handed on.
    pub preserved: u32,
}

/// A program of the caller's that runs at a fixed point.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Which kind, as the configuration spells it, and its place in the list.
    pub name: String,
    /// The program, absolute.
    pub path: PathBuf,
    /// Its arguments, its name first; empty for the path alone.
    pub arguments: Vec<String>,
    /// Its environment.
    pub environment: Vec<String>,
    /// After how many seconds it is killed.
    pub timeout: Option<u64>,
    /// What it reads about the workspace.
    pub state: HookState,
}

/// The state that a hook reads, but for the pid, which only the one who runs it knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookState {
    /// The version of the specification.
    pub oci_version: String,
    /// The workspace's id.
    pub id: String,
    /// `creating` or `created`.
    pub status: String,
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// The configuration's annotations.
    pub annotations: BTreeMap<String, String>,
}

impl fmt::Display for Step {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the steps are described by three functions, one after the other"
    )]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root { path, .. } => write!(f, "take {} as the root", path.display()),
            Self::Overlay(overlay) => write!(f, "{overlay}"),
            Self::PlainRoot(path) => write!(f, "take {} as it stands", path.display()),
            Self::Mount(mount) => write!(f, "mount {mount}"),
            Self::Bind(bind) => write!(f, "bind {bind}"),
            Self::Remount(change) => write!(f, "change mount {}", change.destination.display()),
            Self::Device(device) => write!(f, "make device {device}"),
            Self::Symlink { path, target } => {
                write!(f, "link {} to {}", path.display(), target.display())
            }
            Self::Console(_) => f.write_str("open a terminal"),
            Self::Directory(path) => write!(f, "make directory {}", path.display()),
            Self::Hook(hook) => write!(f, "run hook {}: {}", hook.name, hook.path.display()),
            Self::Enter(entry) => write!(f, "enter the root by {entry}"),
            Self::RootPropagation { flag, recursive } => {
                let reach = if *recursive {
                    " and of all below it"
                } else {
                    ""
                };
                write!(f, "set the propagation of the root{reach} to {flag:#x}")
            }
            Self::ReadonlyRoot => f.write_str("make the root read-only"),
            Self::Sysctl { key, value } => write!(f, "set sysctl {key} to {value:?}"),
            Self::Mask(path) => write!(f, "mask {}", path.display()),
            Self::Readonly(path) => write!(f, "make {} read-only", path.display()),
            Self::Propagate(flags) => write!(f, "set the propagation of all mounts to {flags:#x}"),
            other => other.describe_process(f),
        }
    }
}

impl Step {
    /// The steps that concern the process and not the tree.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "what is left is described by the next function"
    )]
    fn describe_process(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Await(barrier) => write!(f, "wait for {barrier}"),
            Self::OomScore(score) => write!(f, "set oom_score_adj to {score}"),
            Self::BecomeRoot => f.write_str("become root of the user namespace"),
            Self::IpcNamespace => f.write_str("make an ipc namespace"),
            Self::JoinNetwork => f.write_str("enter the network namespace"),
            Self::CgroupNamespace => f.write_str("make a cgroup namespace"),
            Self::Keyring(name) => write!(f, "join session keyring {name}"),
            Self::Loopback => f.write_str("bring up lo"),
            Self::Hostname(name) => write!(f, "set host name {name:?}"),
            Self::Domainname(name) => write!(f, "set domain name {name:?}"),
            Self::Rlimit(limit) => {
                write!(f, "set {} to {} of {}", limit.name, limit.soft, limit.hard)
            }
            Self::Session => f.write_str("begin a session"),
            Self::Umask(mask) => write!(f, "set umask {mask:04o}"),
            Self::Label(Label::AppArmor(name)) => write!(f, "ask for AppArmor profile {name:?}"),
            Self::Label(Label::Selinux(name)) => write!(f, "ask for SELinux label {name:?}"),
            Self::WorkingDirectory(path) => write!(f, "enter directory {}", path.display()),
            other => other.describe_rights(f),
        }
    }

    /// The steps that concern what the program may do, and the program.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the two functions before this have described the others"
    )]
    fn describe_rights(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Schedule(scheduling) => {
                write!(f, "schedule by policy {}", scheduling.policy)
            }
            Self::IoPriority { class, level } => {
                write!(f, "set I/O priority class {class} level {level}")
            }
            Self::MemoryPolicy { mode, nodes } => {
                write!(f, "set memory policy {mode:#x} on nodes {nodes:?}")
            }
            Self::Personality(domain) => write!(f, "set personality {domain:#x}"),
            Self::Affinity(cpus) => write!(f, "run on CPUs {cpus:?}"),
            Self::Bound(mask) => write!(f, "bound capabilities to {mask:#x}"),
            Self::Become(user) => write!(f, "become user {} group {}", user.uid, user.gid),
            Self::Capabilities(sets) => write!(f, "set capabilities {:#x}", sets.effective),
            Self::NoNewPrivileges => f.write_str("set no_new_privs"),
            Self::Seccomp(filter) => write!(
                f,
                "load a seccomp filter of {} instructions",
                filter.instructions.len()
            ),
            Self::Lookup(program) => write!(f, "find {}", Named(program)),
            Self::Execute(program) => write!(f, "exec {}", Named(program)),
            other => write!(f, "{other:?}"),
        }
    }
}

/// The name of a program, for a message.
struct Named<'p>(&'p Program);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.arguments.first() {
            Some(name) => write!(f, "{name:?}"),
            None => f.write_str("nothing"),
        }
    }
}

impl fmt::Display for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Outside => "what is done from outside",
            Self::RuntimeHooks => "the hooks of the runtime",
            Self::Start => "start",
        })
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pivot => "pivot_root",
            Self::Move => "moving it over /",
            Self::Chroot => "chroot",
        })
    }
}

impl fmt::Display for Filesystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.kind, self.destination.display())
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} on {}",
            self.source.display(),
            self.destination.display()
        )?;
        if self.attributes.set & 1 != 0 {
            f.write_str(" read-only")
        } else {
            Ok(())
        }
    }
}

impl fmt::Display for Overlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (upper, lower) = (self.upper.display(), self.lower.display());
        write!(f, "lay {upper} over {lower} as the root")?;
        if self.idmap.is_some() {
            f.write_str(", owners mapped")
        } else {
            Ok(())
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {}:{}",
            self.path.display(),
            self.kind,
            self.major,
            self.minor
        )
    }
}
