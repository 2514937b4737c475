//! Plans a machine: what its guest does, what is shared with it, how large it is, and what its enclosure must hold.
//!
//! The guest's plan is that of a container, made by the same function from the same spec; only what lies on the host is
//! looked for where the guest finds it. What cannot mean the same behind a kernel of its own is refused here by its
//! name, before anything is made.

mod disk;
mod foreign;
mod share;
mod size;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

pub use disk::Disk;
pub use disk::is_on_disk;
pub use foreign::Foreign;
pub use foreign::MachineError;
pub use foreign::REFUSED;
pub use foreign::foreign_to_exec;
pub use share::Kind;
pub use share::SHARES;
pub use share::is_bind;
pub use size::GuestLimits;
pub use size::Size;
pub use size::enclosed;
pub use size::of_processors;
pub use size::overhead;

use crate::plan::Options;
use crate::plan::Plan;
use crate::plan::build;
use crate::plan::cgroup::device::DeviceFilter;
use crate::plan::namespaces;
use crate::plan::namespaces::Join;
use crate::plan::share::Share;
use crate::spec::Spec;
use crate::spec::asked::Asked;
use crate::spec::linux::NamespaceKind;
use crate::spec::process::Process;
use crate::spec::resources::DeviceRule;
use crate::spec::resources::Resources;
use crate::spec::sysctl;

/// Where a workspace's cgroup is inside the guest.
pub const GUEST_CGROUP: &str = "/sys/fs/cgroup/workspace";

/// What the plan of a machine depends on besides the spec: what is known of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// What the source of each mount leads to; nothing for those that are neither bind mounts nor on a disk.
    pub sources: Vec<Option<Kind>>,
    /// The host's own name, for a workspace that would have shared it.
    pub hostname: String,
    /// How many descriptors would be handed to the program.
    pub descriptors: u32,
    /// Whether the caller has no power over the host.
    pub rootless: bool,
}

/// All that is done to make a machine, but for its enclosure.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MachinePlan {
    /// What the guest does.
    pub plan: Plan,
    /// What it sees of the host's files, the root first.
    pub shares: Vec<Share>,
    /// Its disks, `/dev/vda` first.
    #[serde(default)]
    pub disks: Vec<Disk>,
    /// Whether the root becomes read-only on the host's side too, when the guest has built its tree in it.
    pub sealed_root: bool,
    /// The network namespace that it joins; it has a new one without.
    pub network: Option<Join>,
    /// Parameters of its network, by their paths below `/proc/sys`: its kernel's own network has them, and not one of the
    /// workspace's user namespace, which could not set them.
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    /// Processors and memory.
    pub size: Size,
    /// What boots in it.
    pub kernel: KernelChoice,
    /// What the workload may use inside.
    pub limits: GuestLimits,
    /// Which devices of its machine the workload may open.
    pub devices: DeviceFilter,
    /// Whether its memory is made of huge pages.
    #[serde(default)]
    pub hugepages: bool,
    /// What its enclosure may use on the host: the document's limits, with room for the machine.
    pub resources: Resources,
    /// What has no effect, a sentence each.
    pub remarks: Vec<String>,
}

impl fmt::Display for MachinePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "machine: {} processors, {} MiB of memory{}",
            self.size.vcpus,
            self.size.memory_bytes >> 20,
            if self.hugepages { " in huge pages" } else { "" }
        )?;
        match &self.kernel.path {
            Some(path) => writeln!(f, "machine: boots {}", path.display())?,
            None => writeln!(f, "machine: boots the usual kernel of this host")?,
        }
        match &self.network {
            Some(join) => writeln!(
                f,
                "machine: takes on the interfaces of {}",
                join.path.display()
            )?,
            None => writeln!(
                f,
                "machine: takes on the interfaces of a new network namespace"
            )?,
        }
        for (key, value) in &self.sysctls {
            writeln!(f, "machine: set sysctl {key} to {value:?}")?;
        }
        for share in &self.shares {
            writeln!(f, "share {share}")?;
        }
        for disk in &self.disks {
            writeln!(f, "disk {disk}")?;
        }
        if self.sealed_root {
            writeln!(f, "share root: read-only when the guest has built its tree")?;
        }
        write!(f, "guest: {}", self.plan)
    }
}

/// What is remembered of a machine: its size never changes, and what its workload may use can.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Processors and memory.
    pub size: Size,
    /// What the workload may use of it.
    pub limits: GuestLimits,
}

impl Extent {
    /// What the machine needs on the host beyond what its workload may use, in bytes.
    #[must_use]
    pub fn overhead(&self) -> u64 {
        let workload = self.limits.memory_bytes.unwrap_or(size::USUAL_MEMORY);
        overhead(self.size, workload.min(self.size.memory_bytes))
    }

    /// The limits after `asked` has been put in force.
    ///
    /// # Errors
    ///
    /// [`MachineError::Range`] for more memory than the machine has for its workload.
    pub fn changed(&self, asked: &Resources) -> Result<GuestLimits, MachineError> {
        size::changed(self, asked)
    }

    /// The machine after that.
    ///
    /// # Errors
    ///
    /// As [`Extent::changed`].
    pub fn after(&self, asked: &Resources) -> Result<Self, MachineError> {
        let limits = self.changed(asked)?;
        Ok(Self { limits, ..*self })
    }
}

impl MachinePlan {
    /// What is remembered of it.
    #[must_use]
    pub fn extent(&self) -> Extent {
        Extent {
            size: self.size,
            limits: self.limits,
        }
    }
}

/// What boots in a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelChoice {
    /// The kernel image; none leaves it to the host's guest store.
    pub path: Option<PathBuf>,
    /// The initial RAM disk, which then has the agent in it; none takes that of the guest store.
    pub initramfs: Option<PathBuf>,
    /// Words for the command line.
    pub parameters: Vec<String>,
}

/// Turns a spec into the plan of a machine. The spec must have been validated; `options` are those of a container.
///
/// # Errors
///
/// [`MachineError`], whose message starts with the property at fault.
pub fn plan(spec: &Spec, options: &Options, facts: &Facts) -> Result<MachinePlan, MachineError> {
    foreign::check(spec, facts)?;
    let asked = Asked::of(&spec.annotations).unwrap_or_default();
    let extent = Extent {
        size: size::of(spec)?,
        limits: size::inside(spec, &asked),
    };
    let plan_on_host = build(&on_host(spec), options)?;
    let shares = share::of(&plan_on_host);
    let disks = disk::of(spec, &options.bundle);
    let mut guest = guest_spec(spec, facts);
    disk::redirect(&mut guest.mounts, &disks, &options.bundle);
    let plan = build(&guest, &guest_options(options))?;
    Ok(MachinePlan {
        plan,
        shares,
        disks,
        sealed_root: spec.root.readonly,
        network: joined(&plan_on_host),
        sysctls: network_sysctls(spec),
        size: extent.size,
        kernel: kernel(spec),
        limits: extent.limits,
        devices: DeviceFilter::new(spec.linux.resources.as_ref().map_or(&[][..], devices)),
        hugepages: asked.hugepages,
        resources: enclosed(&spec.linux.resources.clone().unwrap_or_default(), &extent),
        remarks: remarks(spec),
    })
}

fn devices(asked: &Resources) -> &[DeviceRule] {
    &asked.devices
}

/// The container whose files of the host are shared: its cgroup file system is the guest's, and no file.
fn on_host(spec: &Spec) -> Spec {
    let mut container = spec.clone();
    container.mounts.retain(is_bind);
    container.process.apparmor_profile.clear();
    container
}

/// What the guest is asked for: the same, with what is shared where it finds it, in its own network.
fn guest_spec(spec: &Spec, facts: &Facts) -> Spec {
    let mut guest = spec.clone();
    guest.root.path = share::inside(0);
    share::redirect(&mut guest.mounts);
    let namespaces = &mut guest.linux.namespaces;
    namespaces.retain(|one| one.kind != NamespaceKind::Network);
    if guest.hostname.is_empty() && !spec.linux.has(NamespaceKind::Uts) {
        guest.hostname.clone_from(&facts.hostname);
    }
    unlabelled(&mut guest.process);
    guest.linux.mount_label.clear();
    guest.hooks.prestart.clear();
    guest.hooks.create_runtime.clear();
    let sysctls = &mut guest.linux.sysctl;
    sysctls.retain(|key, _| !sysctl::path(key).is_some_and(|path| is_of_network(&path)));
    guest.linux.resources = None;
    guest.vm = None;
    guest
}

/// Takes labels away that are for processes of the host's kernel.
pub fn unlabelled(process: &mut Process) {
    process.apparmor_profile.clear();
    process.selinux_label.clear();
}

/// The options of a container, as they are in a guest: root of a machine whose root filesystem is a RAM disk.
fn guest_options(options: &Options) -> Options {
    Options {
        id: options.id.clone(),
        bundle: options.bundle.clone(),
        no_pivot: true,
        no_new_keyring: options.no_new_keyring,
        cgroup: Some(GUEST_CGROUP.into()),
        ..Options::default()
    }
}

fn joined(plan: &Plan) -> Option<Join> {
    let mut joined = plan.namespaces.join.iter();
    joined.find(|one| one.kind == namespaces::NETWORK).cloned()
}

fn network_sysctls(spec: &Spec) -> BTreeMap<String, String> {
    let asked = spec.linux.sysctl.iter();
    let paths = asked.filter_map(|(key, value)| Some((sysctl::path(key)?, value.clone())));
    paths.filter(|(path, _)| is_of_network(path)).collect()
}

fn is_of_network(path: &str) -> bool {
    sysctl::owner(path) == Some(NamespaceKind::Network)
}

fn kernel(spec: &Spec) -> KernelChoice {
    let Some(vm) = &spec.vm else {
        return KernelChoice::default();
    };
    let named = |path: &PathBuf| (!path.as_os_str().is_empty()).then(|| path.clone());
    KernelChoice {
        path: named(&vm.kernel.path),
        initramfs: named(&vm.kernel.initrd),
        parameters: vm.kernel.parameters.clone(),
    }
}

/// What is passed over, in words: labels are for processes of the host's kernel, and the workload has none.
fn remarks(spec: &Spec) -> Vec<String> {
    let labels = [
        ("process.apparmorProfile", &spec.process.apparmor_profile),
        ("process.selinuxLabel", &spec.process.selinux_label),
        ("linux.mountLabel", &spec.linux.mount_label),
    ];
    let given = labels.iter().filter(|(_, label)| !label.is_empty());
    given
        .map(|(field, label)| {
            format!("{field}: {label:?} is ignored: it is for processes of the host's kernel, and a machine has its own")
        })
        .collect()
}
