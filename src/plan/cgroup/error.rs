//! Why no cgroup can be planned; each message begins with the field at fault.

use std::path::PathBuf;

use crate::spec::asked::AskedError;

/// Why no cgroup can be planned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CgroupError {
    /// What its annotations ask for.
    #[error(transparent)]
    Asked(#[from] AskedError),
    /// A guarantee was asked for where nobody weighs the neighbours.
    #[error(
        "linux.cgroupsPath: a guarantee (annotations dev.bulkhead.cpu.*, memory.reserve, io.*) holds only directly \
         below the group {pool}, where all workspaces are weighed against each other, and this would be in {given}: \
         leave the path out, or say {example} (podman: --cgroup-parent {pool})"
    )]
    Unweighed {
        /// Where it would be.
        given: String,
        /// Where it should be.
        pool: &'static str,
        /// The whole of a path that would do.
        example: &'static str,
    },
    /// The machine has no cgroup v2 at all.
    #[error(
        "linux.cgroupsPath: cgroup2 is mounted nowhere on this machine; \
         `mount -t cgroup2 cgroup2 DIRECTORY` would do, or `--cgroup-manager disabled`"
    )]
    NoCgroup2,
    /// A limit was asked for where there will be no cgroup to keep it in.
    #[error(
        "{field}: the workspace gets no cgroup that could keep this limit; leave the field out, or {}",
        match disabled {
            true => "leave out `--cgroup-manager disabled`",
            false => "mount cgroup2 and delegate a part of it to this user (cgroups(7))",
        }
    )]
    Unkept {
        /// The field.
        field: String,
        /// Whether the caller wants it so; else there is none on this machine.
        disabled: bool,
    },
    /// The path would leave the mount point.
    #[error("linux.cgroupsPath: {given:?} leads out of the cgroup tree")]
    PathEscapes {
        /// What it says.
        given: String,
    },
    /// systemd wants three words where something else was given.
    #[error("linux.cgroupsPath: expected \"slice:prefix:name\" for systemd, got {given:?}")]
    NotAScope {
        /// What it says.
        given: String,
    },
    /// The slice has a name that systemd would not take.
    #[error("linux.cgroupsPath: {given:?} is not the name of a slice")]
    NotASlice {
        /// What it says.
        given: String,
    },
    /// The systemd manager was asked for where systemd does not run.
    #[error(
        "--systemd-cgroup: systemd is not the init of this machine; leave the option out, \
         and give linux.cgroupsPath as a path"
    )]
    NoSystemd,
    /// The controller exists, but in the first generation.
    #[error(
        "{field}: the {controller} controller is bound to cgroup v1 at {}; \
         this runtime sets limits in cgroup v2 only: boot with \
         `systemd.unified_cgroup_hierarchy=1` (or `cgroup_no_v1=all`), or leave the field out",
        legacy.display()
    )]
    BoundToV1 {
        /// The field that needs it.
        field: String,
        /// The controller.
        controller: String,
        /// Where cgroup v1 holds it.
        legacy: PathBuf,
    },
    /// The controller does not exist here at all.
    #[error(
        "{field}: the {controller} controller is not available in {}; \
         see its cgroup.controllers, and delegate the controller to it or leave the field out",
        mount.display()
    )]
    NoController {
        /// The field that needs it.
        field: String,
        /// The controller.
        controller: String,
        /// Where cgroup2 is mounted.
        mount: PathBuf,
    },
    /// The limit exists only in cgroup v1.
    #[error("{field}: only cgroup v1 can do this, and this runtime uses cgroup v2 alone; {advice}")]
    OnlyV1 {
        /// The field.
        field: &'static str,
        /// What to do instead.
        advice: &'static str,
    },
    /// Swap is counted on top of memory, so there must be a limit of memory.
    #[error("linux.resources.memory.swap: cannot be limited without linux.resources.memory.limit")]
    SwapWithoutLimit,
    /// Swap includes memory in the OCI's way of counting.
    #[error(
        "linux.resources.memory.swap: {swap} bytes of memory and swap together are less than \
         the {limit} bytes of linux.resources.memory.limit"
    )]
    SwapBelowLimit {
        /// What `swap` says.
        swap: i64,
        /// What `limit` says, or what is in force.
        limit: i64,
    },
    /// An annotation for the unit whose value is not understood.
    #[error("annotations[{key:?}]: {text:?} is not a value of a unit's property")]
    Annotation {
        /// The annotation.
        key: String,
        /// What it says.
        text: String,
    },
    /// A key of `unified` that moves processes or changes the tree instead of setting a limit.
    #[error("linux.resources.unified[{file:?}]: is not a limit, and this runtime writes it itself")]
    NotALimit {
        /// The file.
        file: String,
    },
    /// A key of `unified` that could be no file of a controller.
    #[error("linux.resources.unified[{file:?}]: is not of the form CONTROLLER.PARAMETER")]
    NotAParameter {
        /// The file.
        file: String,
    },
}
