//! What will be done: a spec and a host, turned into data.
//!
//! Nothing here asks the kernel anything: what depends on the machine comes in as plain values. The same
//! spec on the same host gives the same plan, byte for byte, so a plan can be printed, kept and compared.

pub mod accounts;
pub mod admission;
mod build;
pub mod cgroup;
pub mod entitlement;
mod error;
pub mod external;
mod hooks;
pub mod machine;
mod mounts;
pub mod namespaces;
pub mod network;
mod process;
pub mod rdt;
pub mod seccomp;
pub mod share;
pub mod step;

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

pub use build::build;
pub use error::PlanError;
pub use process::exec;

use crate::spec::asked::Layer;

use self::namespaces::Namespaces;
use self::step::Limit;
use self::step::Step;

/// What a plan depends on besides the spec: the caller's wishes, and what is known of the machine.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The workspace's id.
    pub id: String,
    /// The bundle's directory, absolute.
    pub bundle: PathBuf,
    /// Move the root over `/` in place of `pivot_root(2)`.
    pub no_pivot: bool,
    /// Leave the session keyring alone.
    pub no_new_keyring: bool,
    /// How many descriptors from 3 on are handed to the program.
    pub preserved: u32,
    /// Whether the caller is not root, not even of a user namespace.
    pub rootless: bool,
    /// Whether the caller is in a user namespace itself, and so has no power over the machine.
    pub nested: bool,
    /// The workspace's own directory in the cgroup file system, for workspaces that see it.
    pub cgroup: Option<PathBuf>,
    /// Whether the process is put into its cgroup only after its birth.
    pub placed_later: bool,
    /// Whether AppArmor is in force on this machine.
    pub apparmor: bool,
    /// Whether SELinux is in force on this machine.
    pub selinux: bool,
    /// The writable layer above the root filesystem.
    pub layer: Option<Layer>,
    /// Whether a link is put into its network namespace while it is made.
    pub bridged: bool,
    /// The owner of the root filesystem's own directory, outside; it decides whether owners of the layers are mapped.
    pub root_owner: u32,
}

/// All that is done to make a workspace, but for its cgroup.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Which namespaces it has.
    pub namespaces: Namespaces,
    /// What is done to it from outside, while it waits.
    pub outside: Outside,
    /// What it does itself, in order.
    pub steps: Vec<Step>,
}

/// What must be done from outside, because the process has no right to it from inside.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Outside {
    /// How eagerly the kernel ends it.
    pub oom_score: Option<i32>,
    /// Its resource limits.
    pub limits: Vec<Limit>,
    /// Interfaces that move into its network namespace, each with its name there.
    pub interfaces: Vec<(String, String)>,
}

impl Outside {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What is done for one more program in a workspace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessPlan {
    /// The CPUs it runs on until it is inside; empty means: where the caller runs.
    pub initial_cpus: Vec<u32>,
    /// What is done to it from outside.
    pub outside: Outside,
    /// What it does itself, in order.
    pub steps: Vec<Step>,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.namespaces)?;
        for limit in &self.outside.limits {
            writeln!(f, "outside: {}", Step::Rlimit(limit.clone()))?;
        }
        if let Some(score) = self.outside.oom_score {
            writeln!(f, "outside: {}", Step::OomScore(score))?;
        }
        for (from, to) in &self.outside.interfaces {
            writeln!(f, "outside: move interface {from} in as {to}")?;
        }
        for (index, step) in self.steps.iter().enumerate() {
            writeln!(f, "step {index}: {step}")?;
        }
        Ok(())
    }
}
