//! Why no plan can be made.

/// Why no plan can be made. Each message starts with the field at fault.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A privilege is missing that only a user namespace could give.
    #[error(
        "linux.namespaces: a caller without privileges needs a user namespace, and there is none"
    )]
    UserNamespaceNeeded,
    /// Mounts were asked for in the mount namespace of the host.
    #[error(
        "{field}: needs a mount namespace of its own; add {{\"type\": \"mount\"}} to linux.namespaces"
    )]
    MountNamespaceNeeded {
        /// The field that needs it.
        field: &'static str,
    },
    /// An id-mapped mount has nothing to map by.
    #[error(
        "mounts[{index}].options: idmap needs uidMappings and gidMappings, or a user namespace"
    )]
    NoMappings {
        /// Which mount.
        index: usize,
    },
    /// A profile was asked for on a machine that does not enforce any.
    #[error(
        "process.apparmorProfile: {profile:?} cannot be applied, AppArmor is not enabled on this machine"
    )]
    NoAppArmor {
        /// Its name.
        profile: String,
    },
    /// A label was asked for on a machine that knows none.
    #[error("{field}: {label:?} cannot be applied, SELinux is not enabled on this machine")]
    NoSelinux {
        /// The field that needs it.
        field: &'static str,
        /// What it says.
        label: String,
    },
    /// The system call filter cannot be compiled.
    #[error(transparent)]
    Seccomp(#[from] crate::plan::seccomp::SeccompError),
}
