//! Why something could not be done with a workspace.

use std::path::PathBuf;

use crate::backend::BackendError;
use crate::enclosure::EnclosureError;
use crate::enclosure::Shortage;
use crate::enclosure::rdt::RdtError;
use crate::network::NetworkError;
use crate::plan::PlanError;
use crate::plan::admission::Refusal;
use crate::plan::cgroup::CgroupError;
use crate::plan::machine::MachineError;
use crate::plan::network::NetworkPlanError;
use crate::spec::SpecError;
use crate::spec::asked::AskedError;
use crate::spec::state::Status;
use crate::sys::Errno;
use crate::workspace::handing::HandingError;
use crate::workspace::hooks::HookError;
use crate::workspace::host_file::HostFileError;
use crate::workspace::images::ImagesError;
use crate::workspace::layer::LayerError;
use crate::workspace::lifecycle::NotNow;
use crate::workspace::mount_list::MountListError;
use crate::workspace::record::RecordError;
use crate::workspace::rootfs::RootfsError;
use crate::workspace::store::StoreError;
use crate::workspace::terminal::ForegroundError;

/// Why something could not be done with a workspace.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// Its directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its record.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Its record could not be written as JSON.
    #[error("the record cannot be written")]
    Unwritable(#[from] serde_json::Error),
    /// Its configuration.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// What its annotations ask for.
    #[error(transparent)]
    Asked(#[from] AskedError),
    /// What it asks of the network does not fit its namespaces.
    #[error(transparent)]
    NetworkPlan(#[from] NetworkPlanError),
    /// Its network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// What it asks to be promised is not there any more.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// What the host's administrator says cannot be understood.
    #[error(transparent)]
    HostFile(#[from] HostFileError),
    /// Bandwidth of a disk was asked for, and there is no disk.
    #[error(
        "io.read.reserve, io.write.reserve: {path:?} is on no disk of its own; \
         put the root filesystem, or its writable layer, on one"
    )]
    NoDisk {
        /// What is on no disk.
        path: PathBuf,
    },
    /// Bandwidth of a disk was asked for that nothing can keep.
    #[error(
        "io.read.reserve, io.write.reserve: nothing weighs those who share disk {disk} (scheduler {scheduler}): \
         echo bfq >/sys/block/{name}/queue/scheduler and echo 0 >/sys/block/{name}/queue/iosched/low_latency, \
         or echo \"{disk} enable=1\" to io.cost.qos of the first cgroup"
    )]
    UnweighedDisk {
        /// Its numbers.
        disk: String,
        /// What it is called.
        name: String,
        /// What puts its requests in order.
        scheduler: String,
    },
    /// What its configuration asks for.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// What its configuration asks of its cgroup.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// Its cgroup.
    #[error(transparent)]
    Enclosure(#[from] EnclosureError),
    /// Its class of cache and memory bandwidth.
    #[error(transparent)]
    Rdt(#[from] RdtError),
    /// Shares of a class were to be changed, and it has none.
    #[error(
        "--l3-cache-schema, --mem-bw-schema: it is in no class of Intel RDT; create it with linux.intelRdt"
    )]
    NoClass,
    /// Its processes.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A hook.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// What is handed over.
    #[error(transparent)]
    Handing(#[from] HandingError),
    /// Staying with it in the foreground.
    #[error(transparent)]
    Foreground(#[from] ForegroundError),
    /// What it is saved to, or comes back from.
    #[error(transparent)]
    Images(#[from] ImagesError),
    /// Its root filesystem.
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    /// Its writable layer.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// What is mounted in it while it runs.
    #[error(transparent)]
    MountList(#[from] MountListError),
    /// Its state does not allow it.
    #[error(transparent)]
    NotNow(#[from] NotNow),
    /// Its directory was removed while its processes run.
    #[error(
        "the directory of {id} is gone, and processes are in {}: if they are its own, write 1 to cgroup.kill there, and delete it again", .cgroup.display()
    )]
    Orphaned {
        /// Its name.
        id: String,
        /// Its cgroup, by the usual name.
        cgroup: PathBuf,
    },
    /// It has not ended.
    #[error("cannot delete container {id} that is not stopped: {status}")]
    NotStopped {
        /// Its name.
        id: String,
        /// Where it stands.
        status: Status,
    },
    /// A step between start and program failed.
    #[error("{words}: {trouble}")]
    LateStep {
        /// Which.
        words: String,
        /// Why.
        trouble: String,
    },
    /// Its memory did not suffice to come to the program.
    #[error("linux.resources.memory.limit: too low to start in: {shortage}: {error}")]
    TooLittleMemory {
        /// How its limit was met.
        shortage: Shortage,
        /// What failed for it.
        error: String,
    },
    /// It was killed and does not end.
    #[error("process {pid} was killed and does not end: it waits inside the kernel")]
    Immortal {
        /// Its number.
        pid: i32,
    },
    /// A file that was named cannot be read.
    #[error("cannot read {path:?}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A signal could not be sent.
    #[error("cannot send signal {number}")]
    Signal {
        /// Which.
        number: i32,
        /// Why.
        source: Errno,
    },
    /// The kernel does not tell what is asked.
    #[error("cannot {what}")]
    Kernel {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: Errno,
    },
    /// A terminal was asked for, and nobody would have its other end.
    #[error("process.terminal: a detached workspace needs --console-socket")]
    NoConsole,
    /// There is nothing that could become `/`.
    #[error("root.path: cannot use {path:?} as the root filesystem")]
    NoRoot {
        /// The path.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// Somebody waits for the other end of a terminal, and there will be none.
    #[error(
        "--console-socket: cannot use console socket if bulkhead will not detach or allocate tty; set process.terminal \
         (exec: --tty), or leave the option out"
    )]
    NoTerminal,
    /// What it asks of its machine.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// A machine was asked for, and this host has none.
    #[error("isolation: microvm: {0}")]
    NoMachine(String),
    /// It is asked for something that only a container can.
    #[error("{what}: a microVM has a kernel of its own; only isolation container can do this")]
    OnlyContainer {
        /// What.
        what: &'static str,
    },
    /// Only a kernel inside could answer, and there is none.
    #[error("there is no kernel inside to be asked: it is behind the wall of a container")]
    OnlyMachine,
    /// Only a monitor that is its parent can start it again.
    #[error(
        "annotations.dev.bulkhead.memory.on_over_limit: only `up` can start a workspace again; make it with that"
    )]
    NoReset,
    /// It was to be undone before its program ran.
    #[error("it was not started")]
    Unwanted,
    /// Several things failed; all were tried.
    #[error("{}", .0.join("; "))]
    Several(Vec<String>),
}

impl WorkspaceError {
    /// The kernel did not tell about a process.
    pub(crate) fn probe(source: Errno) -> Self {
        Self::Kernel {
            what: "find out about the first process",
            source,
        }
    }
}
