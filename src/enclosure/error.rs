//! Why a cgroup could not be made, changed, emptied or removed.

use std::path::Path;
use std::path::PathBuf;

use crate::enclosure::systemd::SystemdError;
use crate::sys::Errno;

/// Why a cgroup could not be made, changed, emptied or removed.
#[derive(Debug, thiserror::Error)]
pub enum EnclosureError {
    /// A step on the cgroup itself failed.
    #[error("cannot {action} cgroup {}", group.display())]
    Group {
        /// What was tried.
        action: &'static str,
        /// The directory.
        group: PathBuf,
        /// What the kernel says.
        source: Errno,
    },
    /// What is at the place is not a cgroup of version 2.
    #[error("{} is not in a cgroup2 filesystem", group.display())]
    NotACgroup {
        /// The directory.
        group: PathBuf,
    },
    /// Somebody is in there.
    #[error(
        "linux.cgroupsPath: cgroup {} is not empty: processes {processes:?}{}; \
         end them or choose another path",
        group.display(),
        below(group, inhabited)
    )]
    NotEmpty {
        /// The directory.
        group: PathBuf,
        /// The directory that they are in: this one or one below.
        inhabited: PathBuf,
        /// Some of who is in there.
        processes: Vec<i32>,
    },
    /// What is put there would not run.
    #[error(
        "linux.cgroupsPath: cgroup {} is frozen; write 0 to its cgroup.freeze or choose another path",
        group.display()
    )]
    Frozen {
        /// The directory.
        group: PathBuf,
    },
    /// What a group gives to its children keeps processes out of it.
    #[error(
        "linux.cgroupsPath: cgroup {} has enabled the {controllers} controllers for its children, and so can have no \
         processes of its own; choose another path, or one below it",
        group.display()
    )]
    ForChildren {
        /// The directory.
        group: PathBuf,
        /// The controllers.
        controllers: String,
    },
    /// A controller cannot be had for the children of a group.
    #[error(
        "cannot enable the {controllers} controllers for the children of cgroup {}{}",
        group.display(),
        hint(*source)
    )]
    Enable {
        /// The controllers.
        controllers: String,
        /// The directory of the parent.
        group: PathBuf,
        /// What the kernel says.
        source: Errno,
    },
    /// The group can hold threads only, and a controller was asked for that needs whole processes.
    #[error("cgroup {} is threaded, which the {controller} controller cannot be", group.display())]
    Threaded {
        /// The directory.
        group: PathBuf,
        /// The controller.
        controller: String,
    },
    /// A limit was not taken.
    #[error("{field}: cannot write {value:?} to {}", file.display())]
    Limit {
        /// The field that asked for it.
        field: String,
        /// What was written.
        value: String,
        /// The file.
        file: PathBuf,
        /// What the kernel says.
        source: Errno,
    },
    /// A new limit of memory is below what is in use.
    #[error(
        "linux.resources.memory.limit: {limit} bytes asked, {used} bytes in use \
         (linux.resources.memory.checkBeforeUpdate)"
    )]
    MemoryInUse {
        /// What was asked.
        limit: u64,
        /// What is in use.
        used: u64,
    },
    /// The device filter could not be put in place.
    #[error("linux.resources.devices: cannot {action} the filter of cgroup {}", group.display())]
    Filter {
        /// What was tried.
        action: &'static str,
        /// The directory.
        group: PathBuf,
        /// What the kernel says.
        source: Errno,
    },
    /// A state of the cgroup did not come about in time.
    #[error("cgroup {} is not {state} in time", group.display())]
    Late {
        /// The directory.
        group: PathBuf,
        /// What was waited for.
        state: &'static str,
    },
    /// There is no cgroup to do it with.
    #[error("cannot {action}: {why}")]
    NoCgroup {
        /// What was tried.
        action: &'static str,
        /// Why there is none, and what would help.
        why: &'static str,
    },
    /// A subdirectory was asked for that would be outside.
    #[error("cgroup {path:?} is not below the workspace's own")]
    Outside {
        /// What was asked for.
        path: PathBuf,
    },
    /// systemd did not do its part.
    #[error(transparent)]
    Systemd(#[from] SystemdError),
    /// Several things failed; all were tried.
    #[error("{}", .0.iter().map(chain).collect::<Vec<_>>().join("; "))]
    Several(Vec<Self>),
}

impl EnclosureError {
    /// Whether the caller was not allowed to make a cgroup, or nobody is here.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Group {
                source: Errno::ACCESS | Errno::PERM | Errno::ROFS,
                ..
            }
        )
    }
}

/// Where below a group it is that somebody is.
fn below(group: &Path, inhabited: &Path) -> String {
    match inhabited.strip_prefix(group) {
        Ok(below) if below != Path::new("") => format!(" in its child {}", below.display()),
        _ => String::new(),
    }
}

/// What the usual refusals mean.
fn hint(source: Errno) -> &'static str {
    match source {
        Errno::BUSY => ": it has processes of its own, which must be moved to a child first",
        Errno::NOENT | Errno::INVAL => {
            ": they are not delegated to it (see its cgroup.controllers)"
        }
        Errno::ACCESS | Errno::PERM => {
            ": rootless needs no limits + no cgrouppath when no permission is granted for cgroups"
        }
        _ => "",
    }
}

/// One of several errors with its causes, for they cannot all be the source of one.
fn chain(error: &EnclosureError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text += &format!(": {cause}");
        next = cause.source();
    }
    text
}
