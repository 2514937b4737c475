//! What is the host's, and cannot mean the same in a machine: each with its property and the reason.

use std::path::Path;

use crate::plan::PlanError;
use crate::plan::machine::Facts;
use crate::plan::machine::Kind;
use crate::plan::machine::disk;
use crate::spec::Spec;
use crate::spec::linux::Device;
use crate::spec::linux::DeviceKind;
use crate::spec::linux::NamespaceKind;
use crate::spec::linux::PropagationKind;
use crate::spec::mount_options::MountOptions;
use crate::spec::mounts::Mount;
use crate::spec::process::Process;
use crate::spec::vm::Vm;

/// Something that a machine is refused for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Foreign {
    /// The property, `[]` for every element of a list.
    pub property: &'static str,
    /// Which of its values.
    pub when: &'static str,
    /// Why not, and the way out.
    pub reason: &'static str,
}

/// No plan can be made for a machine. Each message starts with the field at fault.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// It asks for something that is the host's.
    #[error("{at}: {reason}")]
    Foreign {
        /// Where it stands in the configuration.
        at: String,
        /// Why a machine cannot have it, and the way out.
        reason: &'static str,
    },
    /// A number of the machine is out of range.
    #[error("{field}: {value} is not {expected}")]
    Range {
        /// Which.
        field: &'static str,
        /// What was asked.
        value: u64,
        /// What may be.
        expected: &'static str,
    },
    /// The source of a mount is not there.
    #[error("mounts[{index}].source: {path:?}: no such file or directory")]
    Missing {
        /// Which mount.
        index: usize,
        /// Where it leads.
        path: std::path::PathBuf,
    },
    /// What the guest would do cannot be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

const JOINED: Foreign = Foreign {
    property: "linux.namespaces[].path",
    when: "of every type but network",
    reason: "a microVM has a kernel of its own and cannot join a namespace of the host's; leave the path out, or ask for \
             isolation container",
};
const SHARED: Foreign = Foreign {
    property: "linux.namespaces[].type",
    when: "pid, ipc, mount or network left out",
    reason: "a microVM has a kernel of its own and cannot share the host's pid, ipc, mount or network namespace; list all \
             four, or ask for isolation container",
};
const DEVICE: Foreign = Foreign {
    property: "linux.devices[].path",
    when: "a device beyond those that every container has",
    reason: "a device of the host is none of a microVM's; leave it out, or ask for isolation container",
};
const SOURCE: Foreign = Foreign {
    property: "mounts[].source",
    when: "a bind mount of a device, a socket or a pipe",
    reason: "is a device, a socket or a pipe of the host, which is not reached from a microVM; leave it out, or ask for \
             isolation container",
};
const LINK: Foreign = Foreign {
    property: "mounts[].source",
    when: "a symbolic link that `src-nofollow` shows itself",
    reason: "is a symbolic link, which cannot be mounted in a microVM as one; use copy-symlink in place of src-nofollow, or \
             ask for isolation container",
};
const FILESYSTEM: Foreign = Foreign {
    property: "mounts[].type",
    when: "a file system that the host's kernel would have to mount: all but its own, ext2 to ext4, erofs and squashfs",
    reason: "a microVM mounts file systems of its own kernel, and ext2 to ext4, erofs and squashfs on a disk; mount this one \
             on the host and bind it, or ask for isolation container",
};
const DISK: Foreign = Foreign {
    property: "mounts[].source",
    when: "of ext2 to ext4, erofs or squashfs: neither a block device nor a regular file, or one disk too many",
    reason: "is no block device and no image, as this file system needs, or one more than the 26 disks of a microVM",
};
const PROPAGATION: Foreign = Foreign {
    property: "mounts[].options",
    when: "`shared`, `slave`, `rshared` or `rslave` on a bind mount",
    reason: "mounts of the host do not show in a microVM later, nor the other way about; use rprivate, or ask for isolation \
             container",
};
const LISTENER: Foreign = Foreign {
    property: "linux.seccomp.listenerPath",
    when: "any",
    reason: "system calls of a microVM are its own kernel's, and nobody on the host can decide about them; leave it out, or \
             ask for isolation container",
};
const RDT: Foreign = Foreign {
    property: "linux.intelRdt",
    when: "any",
    reason: "a microVM is in no class of cache and memory bandwidth; leave it out, or ask for isolation container",
};
const NET_DEVICES: Foreign = Foreign {
    property: "linux.netDevices",
    when: "any",
    reason: "an interface of the host cannot move into a microVM; leave it out, or ask for isolation container",
};
const MEMORY_POLICY: Foreign = Foreign {
    property: "linux.memoryPolicy",
    when: "any",
    reason: "a microVM does not see the host's memory nodes; use linux.resources.cpu.mems, or ask for isolation container",
};
const AFFINITY: Foreign = Foreign {
    property: "process.execCPUAffinity",
    when: "any",
    reason: "a microVM does not see the host's processors; use linux.resources.cpu.cpus, or ask for isolation container",
};
const CREATE_CONTAINER: Foreign = Foreign {
    property: "hooks.createContainer[].path",
    when: "any",
    reason: "there is no moment at which a program of the host runs in the namespaces of a microVM; use createRuntime or \
             startContainer, or ask for isolation container",
};
const HYPERVISOR: Foreign = Foreign {
    property: "vm.hypervisor.path",
    when: "any",
    reason: "this runtime is the hypervisor itself; leave it out",
};
const IMAGE: Foreign = Foreign {
    property: "vm.image.path",
    when: "any",
    reason: "a microVM boots from its kernel and its initial RAM disk alone; leave it out",
};
const HARDWARE: Foreign = Foreign {
    property: "vm.hwConfig",
    when: "`deviceTree`, `dtdevs`, `iomems` or `irqs`",
    reason: "hardware of the host cannot be handed to a microVM; leave deviceTree, dtdevs, iomems and irqs out",
};
const ANNOTATIONS: Foreign = Foreign {
    property: "annotations",
    when: "`io.katacontainers.config*` or `krun.*`",
    reason: "another runtime's machines take programs, images and arguments of the host from it; here a machine is described by \
             vm and by annotations of dev.bulkhead alone; leave it out",
};
const DESCRIPTORS: Foreign = Foreign {
    property: "--preserve-fds",
    when: "more than 0, `$LISTEN_FDS` included",
    reason: "an open file of the host cannot be handed into a microVM; leave it out, or ask for isolation container",
};
const ROOTLESS: Foreign = Foreign {
    property: "--rootless",
    when: "a caller that is not root of the host",
    reason: "a microVM needs the rights of root on the host; run as root, or ask for isolation container",
};

/// All that a machine is refused for, as `runtime-spec/oci.md` lists it.
pub const REFUSED: &[Foreign] = &[
    JOINED,
    SHARED,
    DEVICE,
    SOURCE,
    LINK,
    FILESYSTEM,
    DISK,
    PROPAGATION,
    LISTENER,
    RDT,
    NET_DEVICES,
    MEMORY_POLICY,
    AFFINITY,
    CREATE_CONTAINER,
    HYPERVISOR,
    IMAGE,
    HARDWARE,
    ANNOTATIONS,
    DESCRIPTORS,
    ROOTLESS,
];

/// What a workspace without a namespace of this kind would share with the host, and a machine cannot.
const OWN: [NamespaceKind; 4] = [
    NamespaceKind::Pid,
    NamespaceKind::Ipc,
    NamespaceKind::Mount,
    NamespaceKind::Network,
];

/// Character devices that every kernel has, and that are nobody's hardware.
const ORDINARY: [(i64, i64); 8] = [
    (1, 3),
    (1, 5),
    (1, 7),
    (1, 8),
    (1, 9),
    (5, 0),
    (5, 1),
    (5, 2),
];

/// File systems that a kernel makes out of itself.
const OWN_SYSTEMS: [&str; 17] = [
    "proc",
    "sysfs",
    "tmpfs",
    "ramfs",
    "devpts",
    "devtmpfs",
    "mqueue",
    "cgroup",
    "cgroup2",
    "bpf",
    "debugfs",
    "tracefs",
    "securityfs",
    "fusectl",
    "configfs",
    "hugetlbfs",
    "binfmt_misc",
];

/// What annotations begin with that describe machines to other runtimes, down to the programs that run them.
const DESCRIBED_ELSEWHERE: [&str; 2] = ["io.katacontainers.config", "krun."];

type Checked = Result<(), MachineError>;

impl Foreign {
    fn at(&self, at: impl Into<String>) -> MachineError {
        MachineError::Foreign {
            at: at.into(),
            reason: self.reason,
        }
    }

    fn unless(&self, fits: bool) -> Checked {
        if fits {
            Ok(())
        } else {
            Err(self.at(self.property))
        }
    }
}

/// Refuses what is the host's.
pub(super) fn check(spec: &Spec, facts: &Facts) -> Checked {
    ROOTLESS.unless(!facts.rootless)?;
    DESCRIPTORS.unless(facts.descriptors == 0)?;
    annotations(spec)?;
    namespaces(spec)?;
    for (index, device) in spec.linux.devices.iter().enumerate() {
        if !is_ordinary(device) {
            return Err(DEVICE.at(format!("linux.devices[{index}].path")));
        }
    }
    for (index, mount) in spec.mounts.iter().enumerate() {
        check_mount(index, mount, facts.sources.get(index).copied().flatten())?;
    }
    let disks = spec.mounts.iter().filter(|mount| disk::is_on_disk(mount));
    DISK.unless(disks.count() <= disk::MOST)?;
    let seccomp = spec.linux.seccomp.as_ref();
    LISTENER.unless(seccomp.is_none_or(|filter| filter.listener().is_none()))?;
    RDT.unless(spec.linux.intel_rdt.is_none())?;
    NET_DEVICES.unless(spec.linux.net_devices.is_empty())?;
    MEMORY_POLICY.unless(spec.linux.memory_policy.is_none())?;
    foreign_to_exec(&spec.process, 0)?;
    if !spec.hooks.create_container.is_empty() {
        return Err(CREATE_CONTAINER.at("hooks.createContainer[0].path"));
    }
    spec.vm.as_ref().map_or(Ok(()), hardware)
}

/// Refuses what one more program asks of the host.
///
/// # Errors
///
/// [`MachineError::Foreign`].
pub fn foreign_to_exec(process: &Process, descriptors: u32) -> Checked {
    AFFINITY.unless(process.exec_cpu_affinity.is_none())?;
    DESCRIPTORS.unless(descriptors == 0)
}

fn annotations(spec: &Spec) -> Checked {
    let described = |name: &&String| {
        DESCRIBED_ELSEWHERE
            .iter()
            .any(|prefix| name.starts_with(prefix))
    };
    let found = spec.annotations.keys().find(described);
    found.map_or(Ok(()), |name| {
        Err(ANNOTATIONS.at(format!("annotations[{name:?}]")))
    })
}

fn namespaces(spec: &Spec) -> Checked {
    for (index, namespace) in spec.linux.namespaces.iter().enumerate() {
        if !namespace.is_new() && namespace.kind != NamespaceKind::Network {
            return Err(JOINED.at(format!("linux.namespaces[{index}].path")));
        }
    }
    let missing = OWN.into_iter().find(|kind| !spec.linux.has(*kind));
    missing.map_or(Ok(()), |_| Err(SHARED.at("linux.namespaces")))
}

fn is_ordinary(device: &Device) -> bool {
    match device.kind {
        DeviceKind::Fifo => true,
        DeviceKind::Char => device
            .major
            .zip(device.minor)
            .is_some_and(|numbers| ORDINARY.contains(&numbers)),
        DeviceKind::Block => false,
    }
}

fn check_mount(index: usize, mount: &Mount, source: Option<Kind>) -> Checked {
    let read = MountOptions::of(mount);
    if read.remount {
        return Ok(());
    }
    if read.bind.is_none() && mount.is_on_disk() {
        return check_disk(index, mount, source);
    }
    if read.bind.is_none() {
        let own = OWN_SYSTEMS.contains(&mount.kind.as_str());
        return own
            .then_some(())
            .ok_or_else(|| FILESYSTEM.at(format!("mounts[{index}].type")));
    }
    let reaches_out = read.propagation.iter().any(|wanted| {
        matches!(
            wanted.kind,
            PropagationKind::Shared | PropagationKind::Slave
        )
    });
    if reaches_out {
        return Err(PROPAGATION.at(format!("mounts[{index}].options")));
    }
    match source {
        Some(Kind::Link) if !read.copy_symlink => Err(LINK.at(format!("mounts[{index}].source"))),
        Some(Kind::Directory | Kind::File | Kind::Link) => Ok(()),
        Some(Kind::Block | Kind::Other) => Err(SOURCE.at(format!("mounts[{index}].source"))),
        None => Err(MachineError::Missing {
            index,
            path: Path::new(&mount.source).to_owned(),
        }),
    }
}

fn check_disk(index: usize, mount: &Mount, source: Option<Kind>) -> Checked {
    match source {
        Some(Kind::Block | Kind::File) => Ok(()),
        Some(_) => Err(DISK.at(format!("mounts[{index}].source"))),
        None => Err(MachineError::Missing {
            index,
            path: Path::new(&mount.source).to_owned(),
        }),
    }
}

fn hardware(vm: &Vm) -> Checked {
    HYPERVISOR
        .unless(vm.hypervisor.path.as_os_str().is_empty() && vm.hypervisor.parameters.is_empty())?;
    IMAGE.unless(vm.image.path.as_os_str().is_empty())?;
    let own = vm.hw_config.as_ref().is_none_or(|hardware| {
        hardware.device_tree.as_os_str().is_empty()
            && hardware.dtdevs.is_empty()
            && hardware.iomems.is_empty()
            && hardware.irqs.is_empty()
    });
    HARDWARE.unless(own)
}
