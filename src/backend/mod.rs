//! What can be put into an enclosure, and how it is talked to.
//!
//! Freezing, force-killing, limits and counters are not here: the enclosure does them for every backend alike.

pub mod container;
mod dialogue;
pub mod distant;
mod error;
mod join;
mod lift;
mod mapping;
pub mod microvm;

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use serde::Deserialize;
use serde::Serialize;

pub use error::BackendError;
pub use error::StepError;

use crate::agent::wire;
use crate::plan::Plan;
use crate::plan::ProcessPlan;
use crate::plan::machine::GuestLimits;
use crate::sys::clone::Spawned;
use crate::sys::process;
use crate::sys::process::Exit;

/// Where a workspace's first process is found again by another command: small, and serialisable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handle {
    /// Its number on the host.
    pub pid: i32,
    /// When it was started, in clock ticks since boot: the number alone may be somebody else's by now.
    pub start_time: u64,
    /// What no other process has in this uptime, where the kernel tells ([`process::identity`]).
    #[serde(default)]
    pub identity: Option<u64>,
}

impl Handle {
    /// That of a child whose remains nobody has collected.
    pub(crate) fn of(pid: i32, process: BorrowedFd<'_>) -> Result<Self, BackendError> {
        let start_time = process::start_time(pid)
            .map_err(BackendError::kernel("read the process's start time"))?;
        let identity = process::identity(process)
            .map_err(BackendError::kernel("look at the process's handle"))?;
        Ok(Self {
            pid,
            start_time,
            identity,
        })
    }

    /// Whether it has executed no program since it was born, also while it ends. Of one whose remains are gone that is not
    /// known, and not said.
    pub(crate) fn is_without_program(&self) -> bool {
        let found = process::stat(self.pid).ok();
        found.is_some_and(|stat| stat.start_time == self.start_time && stat.is_without_program())
    }
}

/// What is handed to a program besides its plan.
#[derive(Debug, Default)]
pub struct Supplies<'a> {
    /// The cgroup that it is born in; `None` when it is placed afterwards or not at all.
    pub birthplace: Option<BorrowedFd<'a>>,
    /// The socket that a terminal's master is sent to.
    pub console: Option<OwnedFd>,
    /// The socket that a first program waits on for its start; `None` when the creator starts it.
    pub listener: Option<OwnedFd>,
    /// Its network namespace, where that is made before the process is.
    pub network: Option<OwnedFd>,
    /// A lock that ends with the caller: the process has no copy of it.
    pub lock: Option<BorrowedFd<'a>>,
    /// Whether the time of each step is printed.
    pub timed: bool,
}

/// What the one who orders a program does while that program waits.
pub trait Attendant {
    /// The process is there with its namespaces; that of its `network` is this where it is made for it, and will be its own.
    /// It goes on meanwhile, so that what is done for it from here costs no time of its own. Its program does not start before
    /// this is done.
    ///
    /// # Errors
    ///
    /// Any error ends the process.
    fn born(&mut self, _process: Handle, _network: Option<BorrowedFd<'_>>) -> anyhow::Result<()> {
        Ok(())
    }

    /// The process stands and waits; it is put where it belongs.
    ///
    /// # Errors
    ///
    /// Any error ends the process.
    fn place(&mut self, pid: i32) -> anyhow::Result<()>;

    /// The namespaces and mounts stand, the root is not yet entered: time for the hooks of the runtime's side.
    ///
    /// # Errors
    ///
    /// Any error ends the process.
    fn hooks(&mut self, pid: i32) -> anyhow::Result<()>;

    /// The program has been let go; it takes a while until it runs, so that what is done in that time costs none.
    fn let_go(&mut self) {}

    /// A system call filter asks for its agent.
    ///
    /// # Errors
    ///
    /// Any error ends the process.
    fn notify(&mut self, pid: i32, listener: OwnedFd) -> anyhow::Result<()>;
}

/// A program that has been made.
#[derive(Debug)]
pub struct Made {
    /// How it is found again.
    pub handle: Handle,
    /// The process itself.
    pub process: OwnedFd,
    /// Where it reports, and waits for its start if nobody else gives it.
    pub channel: OwnedFd,
    /// The network namespace that was made for it. Who stays with the program keeps it to the end: what the kernel does to take
    /// it apart then comes after everything that the end of the program is waited for with.
    pub network: Option<OwnedFd>,
}

impl Made {
    /// A program whose network nobody made for it alone.
    pub(crate) fn new(handle: Handle, process: OwnedFd, channel: OwnedFd) -> Self {
        Self {
            handle,
            process,
            channel,
            network: None,
        }
    }

    /// It, as it waits for its start.
    pub(crate) fn waiting(&self) -> Waiting<'_> {
        Waiting {
            handle: self.handle,
            process: self.process.as_fd(),
            channel: self.channel.as_fd(),
        }
    }

    /// What a process that was just born is found again by; a short program may have ended by now, but nobody has taken its
    /// remains away.
    pub(crate) fn of(born: Spawned, channel: OwnedFd) -> Result<Self, BackendError> {
        let handle = Handle::of(born.pid, born.pidfd.as_fd())?;
        Ok(Self::new(handle, born.pidfd, channel))
    }
}

/// A first process that waits for its start.
#[derive(Debug, Clone, Copy)]
pub struct Waiting<'a> {
    /// How it is found again.
    pub handle: Handle,
    /// The process itself.
    pub process: BorrowedFd<'a>,
    /// Where it waits and reports.
    pub channel: BorrowedFd<'a>,
}

/// What can be put in an enclosure: a process tree on this kernel, or a machine with a kernel of its own.
pub trait Backend {
    /// Builds the workspace, up to the point where its program would start.
    ///
    /// # Errors
    ///
    /// [`BackendError`]; nothing of it is left then.
    fn create(
        &self,
        plan: &Plan,
        supplies: Supplies<'_>,
        attendant: &mut dyn Attendant,
    ) -> Result<Made, BackendError>;

    /// Starts the program of a workspace that was created, over the socket where it waits.
    ///
    /// # Errors
    ///
    /// [`BackendError::Step`] when a step between start and program fails.
    fn start(
        &self,
        plan: &Plan,
        waiting: &Waiting<'_>,
        attendant: &mut dyn Attendant,
    ) -> Result<(), BackendError>;

    /// Runs one more program in a workspace.
    ///
    /// # Errors
    ///
    /// [`BackendError`]; nothing of the program is left then.
    fn exec(
        &self,
        target: &Target<'_>,
        plan: &ProcessPlan,
        supplies: Supplies<'_>,
        attendant: &mut dyn Attendant,
    ) -> Result<Made, BackendError>;

    /// Sends a signal to the first process.
    ///
    /// # Errors
    ///
    /// `ESRCH` when it has ended.
    fn signal(&self, process: BorrowedFd<'_>, number: i32) -> Result<(), BackendError>;

    /// Waits until a program that this process has made ends.
    ///
    /// # Errors
    ///
    /// `ECHILD` when another process made it.
    fn wait(&self, process: BorrowedFd<'_>) -> Result<Exit, BackendError>;

    /// What only somebody behind a kernel of its own can do; none where this kernel sees everything.
    fn inside(&self) -> Option<&dyn Inside> {
        None
    }
}

/// What is asked of somebody inside, because the host's kernel does not see what is there.
pub trait Inside {
    /// Sends a signal to every process of the workspace.
    ///
    /// # Errors
    ///
    /// [`BackendError`] when nobody inside answers.
    fn signal_all(&self, number: i32) -> Result<(), BackendError>;

    /// Whether the kernel inside keeps a signal from the workspace's program, which has not asked for it.
    ///
    /// # Errors
    ///
    /// As [`Inside::signal_all`]; nobody is waited for long.
    fn is_deaf_to(&self, number: i32) -> Result<bool, BackendError>;

    /// The processes of the workspace, as the kernel inside sees them.
    ///
    /// # Errors
    ///
    /// As [`Inside::signal_all`].
    fn processes(&self) -> Result<Vec<wire::Process>, BackendError>;

    /// Changes limits that hold inside.
    ///
    /// # Errors
    ///
    /// As [`Inside::signal_all`]; besides, when the kernel inside refuses one.
    fn limit(&self, limits: GuestLimits) -> Result<(), BackendError>;

    /// What the kernel inside finds about itself and the workspace.
    ///
    /// # Errors
    ///
    /// As [`Inside::signal_all`].
    fn usage(&self) -> Result<wire::Usage, BackendError>;

    /// Waits until the kernel inside has ended more than `seen` processes because memory was short; gives how many.
    ///
    /// # Errors
    ///
    /// As [`Inside::signal_all`]; so too when the machine ends.
    fn out_of_memory(&self, seen: u64) -> Result<u64, BackendError>;

    /// Sets the clock inside by the host's: it stood still while everything did.
    ///
    /// # Errors
    ///
    /// As [`Inside::signal_all`].
    fn set_time(&self) -> Result<(), BackendError>;
}

/// The workspace that one more program goes into.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Its first process.
    pub process: BorrowedFd<'a>,
    /// That process's number.
    pub pid: i32,
    /// The `CLONE_NEW*` kinds that it does not share with the host.
    pub namespaces: u64,
    /// Whether the caller has no privileges over the machine.
    pub rootless: bool,
}
