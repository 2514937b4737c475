//! The kernel: its version, its namespaces, its system calls, its filesystems.

use crate::host::Host;
use crate::host::Kernel;
use crate::host::survey::Finding;
use crate::host::survey::number;
use crate::host::survey::text;
use crate::sys::Errno;
use crate::sys::probe;
use crate::sys::probe::Call;

const AREA: &str = "kernel";

/// The oldest that everything works with: `mount_setattr(2)` came with it.
const OLDEST: Kernel = Kernel {
    major: 5,
    minor: 12,
};

/// Namespaces by the names of their files, and since when there are any.
const NAMESPACES: [(&str, &str); 8] = [
    ("cgroup", "CONFIG_CGROUPS"),
    ("ipc", "CONFIG_IPC_NS"),
    ("mnt", "CONFIG_NAMESPACES"),
    ("net", "CONFIG_NET_NS"),
    ("pid", "CONFIG_PID_NS"),
    ("time", "CONFIG_TIME_NS, Linux 5.6"),
    ("user", "CONFIG_USER_NS"),
    ("uts", "CONFIG_UTS_NS"),
];

/// System calls, and what is lost without them.
const CALLS: [(&str, Call, &str); 9] = [
    (
        "clone3",
        Call::Clone3,
        "Linux 5.7: nothing can be born in its cgroup without it",
    ),
    (
        "openat2",
        Call::Openat2,
        "Linux 5.6: no path below a root can be walked safely without it",
    ),
    (
        "fsopen",
        Call::Fsopen,
        "Linux 5.2: nothing can be mounted without it",
    ),
    (
        "mount_setattr",
        Call::MountSetattr,
        "Linux 5.12: no recursive options, no idmapped mounts",
    ),
    (
        "pidfd_open",
        Call::PidfdOpen,
        "Linux 5.3: no process can be held on to without it",
    ),
    (
        "pidfd_getfd",
        Call::PidfdGetfd,
        "Linux 5.6: no seccomp notification without it",
    ),
    (
        "close_range",
        Call::CloseRange,
        "Linux 5.9: descriptors are closed with it",
    ),
    (
        "io_uring",
        Call::IoUring,
        "Linux 5.1, and sysctl kernel.io_uring_disabled=0",
    ),
    ("statmount", Call::Statmount, "Linux 6.8"),
];

/// Filesystems that workspaces are made of.
const FILESYSTEMS: [(&str, &str); 6] = [
    ("overlay", "modprobe overlay"),
    ("tmpfs", "CONFIG_TMPFS"),
    ("mqueue", "CONFIG_POSIX_MQUEUE"),
    ("fuse", "modprobe fuse"),
    ("virtiofs", "modprobe virtiofs"),
    ("resctrl", "a processor with RDT, CONFIG_X86_CPU_RESCTRL"),
];

pub(super) fn findings(host: &Host) -> Vec<Finding> {
    let mut found = vec![version(host.kernel)];
    found.extend(NAMESPACES.iter().map(|(name, remedy)| {
        let there = std::fs::exists(format!("/proc/self/ns/{name}")).unwrap_or_default();
        let remedy = format!("a kernel with {remedy}");
        Finding::of(AREA, &format!("{name} namespace"), there, &remedy)
    }));
    found.push(user_namespaces());
    found.extend(
        CALLS
            .iter()
            .map(|(name, call, remedy)| system_call(name, *call, remedy)),
    );
    found.push(Finding::of(
        AREA,
        "idmapped mounts",
        host.kernel >= OLDEST && probe::call(Call::MountSetattr).is_ok(),
        "Linux 5.12; each filesystem has them since a version of its own (tmpfs: 6.3)",
    ));
    let known = text("/proc/filesystems").unwrap_or_default();
    found.extend(FILESYSTEMS.iter().map(|(name, remedy)| {
        let there = known
            .lines()
            .any(|line| line.split_whitespace().last() == Some(name));
        Finding::of(AREA, &format!("{name} filesystem"), there, remedy)
    }));
    found.push(Finding::of(
        AREA,
        "pressure stall information",
        std::fs::exists("/proc/pressure/cpu").unwrap_or_default(),
        "CONFIG_PSI, and psi=1 on the kernel's command line",
    ));
    found
}

fn version(kernel: Kernel) -> Finding {
    let found = text("/proc/sys/kernel/osrelease").unwrap_or_default();
    if kernel >= OLDEST {
        Finding::yes(AREA, "version", found)
    } else {
        Finding::no(AREA, "version", found, "Linux 5.12 or later")
    }
}

/// Whether somebody without privileges may make a user namespace, which running without root begins with.
fn user_namespaces() -> Finding {
    let name = "user namespaces without privileges";
    let switched_off = |path, value| number(path) == Some(value);
    if switched_off("/proc/sys/user/max_user_namespaces", 0) {
        return Finding::no(
            AREA,
            name,
            "none allowed",
            "sysctl user.max_user_namespaces=10000",
        );
    }
    if switched_off("/proc/sys/kernel/unprivileged_userns_clone", 0) {
        let remedy = "sysctl kernel.unprivileged_userns_clone=1";
        return Finding::no(AREA, name, "switched off", remedy);
    }
    if switched_off("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", 1) {
        let remedy = "an AppArmor profile for this program with `userns,` in it";
        return Finding::no(AREA, name, "restricted by AppArmor", remedy);
    }
    Finding::yes(AREA, name, "yes")
}

fn system_call(name: &str, call: Call, remedy: &str) -> Finding {
    match probe::call(call) {
        Ok(()) => Finding::yes(AREA, name, "yes"),
        Err(Errno::PERM) => Finding::no(
            AREA,
            name,
            "not permitted here",
            "run outside of the filter that forbids it",
        ),
        Err(_) => Finding::no(AREA, name, "no", remedy),
    }
}
