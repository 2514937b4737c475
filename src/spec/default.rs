//! A configuration to start from: a shell in namespaces of its own, with few rights.

use std::path::PathBuf;

use super::Root;
use super::Spec;
use super::SpecError;
use super::linux::IdMapping;
use super::linux::Linux;
use super::linux::Namespace;
use super::linux::NamespaceKind;
use super::mounts::Mount;
use super::process::Capabilities;
use super::process::Process;
use super::process::Rlimit;
use super::process::RlimitKind;
use super::process::User;
use super::resources::DeviceRule;
use super::resources::Resources;

/// The newest version of the specification that is understood.
pub const OCI_VERSION: &str = "1.3.0";

/// Parts of `/proc` and `/sys` that show the host.
const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
];

/// Parts of `/proc` that change the host when they are written.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// The mounts that Linux programs expect: destination, type, source, options.
const MOUNTS: [(&str, &str, &str, &[&str]); 7] = [
    ("/proc", "proc", "proc", &[]),
    (
        "/dev",
        "tmpfs",
        "tmpfs",
        &["nosuid", "strictatime", "mode=755", "size=65536k"],
    ),
    (
        "/dev/pts",
        "devpts",
        "devpts",
        &[
            "nosuid",
            "noexec",
            "newinstance",
            "ptmxmode=0666",
            "mode=0620",
            "gid=5",
        ],
    ),
    (
        "/dev/shm",
        "tmpfs",
        "shm",
        &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
    ),
    (
        "/dev/mqueue",
        "mqueue",
        "mqueue",
        &["nosuid", "noexec", "nodev"],
    ),
    (
        "/sys",
        "sysfs",
        "sysfs",
        &["nosuid", "noexec", "nodev", "ro"],
    ),
    (
        "/sys/fs/cgroup",
        "cgroup",
        "cgroup",
        &["nosuid", "noexec", "nodev", "relatime", "ro"],
    ),
];

impl Spec {
    /// A shell on a terminal, in a root filesystem beside the configuration.
    pub fn starter() -> Self {
        Self {
            oci_version: OCI_VERSION.to_owned(),
            root: Root {
                path: PathBuf::from("rootfs"),
                readonly: true,
            },
            process: shell().into(),
            hostname: "bulkhead".to_owned(),
            mounts: MOUNTS.map(mount).to_vec(),
            linux: linux().into(),
            ..Self::default()
        }
    }

    /// The same for a user without the rights of root, who becomes root inside: the network stays the user's, `/sys`
    /// is shown as it is, no group but the user's own exists, and nothing is limited.
    pub fn starter_rootless(uid: u32, gid: u32) -> Self {
        let mut spec = Self::starter();
        for mount in &mut spec.mounts {
            if mount.kind == "sysfs" {
                *mount = self::mount((
                    "/sys",
                    "none",
                    "/sys",
                    &["rbind", "nosuid", "noexec", "nodev", "ro"],
                ));
            }
        }
        spec.linux
            .namespaces
            .retain(|one| one.kind != NamespaceKind::Network);
        spec.be_of(uid, gid);
        spec.linux.resources = None;
        spec
    }

    /// Makes root inside of a user without the rights of root, beside whom there is nobody.
    pub fn be_of(&mut self, uid: u32, gid: u32) {
        for mount in &mut self.mounts {
            mount.options.retain(|option| !option.starts_with("gid="));
        }
        self.linux.namespaces.push(namespace(NamespaceKind::User));
        self.linux.uid_mappings = vec![alone(uid)];
        self.linux.gid_mappings = vec![alone(gid)];
    }

    /// Gives a new user namespace that has no mappings those that a caller without rights may give it: its own user and
    /// group, as root inside.
    ///
    /// # Errors
    ///
    /// [`SpecError::Value`] for root, who has no one way to do it: inside, nobody would be anybody.
    pub fn map_caller(&mut self, uid: u32, gid: u32) -> Result<(), SpecError> {
        let linux = &mut self.linux;
        if !linux
            .namespace(NamespaceKind::User)
            .is_some_and(Namespace::is_new)
        {
            return Ok(());
        }
        let both = [
            ("linux.uidMappings", &mut linux.uid_mappings, uid),
            ("linux.gidMappings", &mut linux.gid_mappings, gid),
        ];
        for (path, list, own) in both.into_iter().filter(|(_, list, _)| list.is_empty()) {
            if uid == 0 {
                let reason = "a new user namespace needs them; add a line such as \
                              {\"containerID\": 0, \"hostID\": 100000, \"size\": 65536}";
                return Err(SpecError::value(path, reason));
            }
            list.push(alone(own));
        }
        Ok(())
    }
}

fn shell() -> Process {
    let few = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"].map(str::to_owned);
    Process {
        terminal: true,
        user: User::default(),
        args: vec!["sh".to_owned()],
        env: vec![
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
            "TERM=xterm".to_owned(),
        ],
        cwd: PathBuf::from("/"),
        capabilities: Some(Capabilities {
            bounding: few.to_vec(),
            effective: few.to_vec(),
            permitted: few.to_vec(),
            ..Capabilities::default()
        }),
        rlimits: vec![Rlimit {
            kind: RlimitKind::Nofile,
            soft: 1024,
            hard: 1024,
        }],
        no_new_privileges: true,
        ..Process::default()
    }
}

fn linux() -> Linux {
    let kinds = [
        NamespaceKind::Pid,
        NamespaceKind::Network,
        NamespaceKind::Ipc,
        NamespaceKind::Uts,
        NamespaceKind::Mount,
        NamespaceKind::Cgroup,
    ];
    Linux {
        namespaces: kinds.map(namespace).to_vec(),
        resources: Some(Resources {
            devices: vec![DeviceRule {
                access: "rwm".to_owned(),
                ..DeviceRule::default()
            }],
            ..Resources::default()
        }),
        masked_paths: MASKED.map(PathBuf::from).to_vec(),
        readonly_paths: READ_ONLY.map(PathBuf::from).to_vec(),
        ..Linux::default()
    }
}

fn mount((destination, kind, source, options): (&str, &str, &str, &[&str])) -> Mount {
    Mount {
        destination: PathBuf::from(destination),
        kind: kind.to_owned(),
        source: source.to_owned(),
        options: options.iter().map(|&option| option.to_owned()).collect(),
        ..Mount::default()
    }
}

fn namespace(kind: NamespaceKind) -> Namespace {
    Namespace {
        kind,
        path: PathBuf::new(),
    }
}

fn alone(host_id: u32) -> IdMapping {
    IdMapping {
        container_id: 0,
        host_id,
        size: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_write_we_accept_without_a_remark() {
        assert_eq!(Spec::starter().validate(), Ok(Vec::new()));
        assert_eq!(
            Spec::starter_rootless(1000, 1000).validate(),
            Ok(Vec::new())
        );
    }

    #[test]
    fn what_we_write_reads_back_as_the_same() {
        let written = serde_json::to_vec(&Spec::starter()).unwrap();
        assert_eq!(Spec::parse(&written), Ok(Spec::starter()));
    }
}
