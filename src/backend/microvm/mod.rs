//! The second wall: a machine of its own, with a kernel of its own, around the same program.
//!
//! ```text
//! enclosure ─ keeper (its number is the workspace's) ─┬─ file server: sees the shares and nothing else
//!                                                     └─ VMM: guest memory, processors, devices
//!                                                         └─ guest: kernel ─ agent ─ the workspace, as a container
//! ```

mod balloon;
mod birth;
mod disk;
mod exec;
pub mod files;
pub mod keeper;
mod lower;
mod pump;
mod report;
mod signals;
mod talk;
mod terminal;
mod users;
pub mod vmm;

use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

pub use balloon::ORDERS;

use crate::agent::wire;
use crate::agent::wire::Event;
use crate::agent::wire::Request;
use crate::backend::Attendant;
use crate::backend::Backend;
use crate::backend::BackendError;
use crate::backend::Inside;
use crate::backend::Made;
use crate::backend::Supplies;
use crate::backend::Target;
use crate::backend::Waiting;
use crate::backend::dialogue;
use crate::backend::dialogue::Dialogue;
use crate::backend::microvm::vmm::config::Discovery;
use crate::plan::Plan;
use crate::plan::ProcessPlan;
use crate::plan::machine::GuestLimits;
use crate::plan::machine::MachinePlan;
use crate::sys::process;
use crate::sys::process::Exit;

/// The socket through which a machine is talked to, in the workspace's directory.
pub const SOCKET: &str = "vm.sock";
/// The file in the workspace's directory that says why its machine ended, when its program had not.
pub const ENDED: &str = "machine.ended";
/// The file in the workspace's directory that has the [`LastWord`](crate::enclosure::counters::machine::LastWord) of its
/// machine, as JSON.
pub const LAST_WORD: &str = "machine.last";

/// Puts a workspace into a machine. It keeps nothing between commands.
#[derive(Debug, Clone, Copy)]
pub struct MicroVm<'a> {
    /// The workspace's directory.
    pub home: BorrowedFd<'a>,
    /// What is to be made; none for one that is there.
    pub machine: Option<&'a Machine>,
}

/// A machine that is to be made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// What it is.
    pub plan: MachinePlan,
    /// What boots in it.
    pub boot: Boot,
}

/// What boots in a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// The kernel: ELF or bzImage.
    pub kernel: PathBuf,
    /// The initial RAM disk, which has the agent in it.
    pub initramfs: PathBuf,
    /// The words with which this kernel boots fastest and says least.
    pub cmdline: String,
    /// How this kernel finds its devices.
    pub discovery: Discovery,
}

/// Signals that the process which stands for a machine cannot get, or has a meaning of its own for: the program gets them
/// from the agent. The last two are the C library's.
const NOT_PASSED_ON: [i32; 16] = [
    libc::SIGSTOP,
    libc::SIGCONT,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGABRT,
    libc::SIGCHLD,
    libc::SIGPIPE,
    libc::SIGURG,
    libc::SIGWINCH,
    32,
    33,
];

/// Whether a signal is one that only the agent brings to the program.
#[must_use]
pub fn is_told_inside(number: i32) -> bool {
    NOT_PASSED_ON.contains(&number)
}

impl Backend for MicroVm<'_> {
    fn create(
        &self,
        _plan: &Plan,
        supplies: Supplies<'_>,
        attendant: &mut dyn Attendant,
    ) -> Result<Made, BackendError> {
        birth::create(self, &supplies, attendant)
    }

    fn start(
        &self,
        plan: &Plan,
        waiting: &Waiting<'_>,
        attendant: &mut dyn Attendant,
    ) -> Result<(), BackendError> {
        dialogue::release(waiting.channel)?;
        attendant.let_go();
        Dialogue::with(waiting, &plan.steps).until_program(attendant)
    }

    fn exec(
        &self,
        _target: &Target<'_>,
        plan: &ProcessPlan,
        supplies: Supplies<'_>,
        attendant: &mut dyn Attendant,
    ) -> Result<Made, BackendError> {
        exec::exec(self.home, plan, supplies, attendant)
    }

    fn signal(&self, process: BorrowedFd<'_>, number: i32) -> Result<(), BackendError> {
        if is_told_inside(number) {
            return talk::order(
                self.home,
                &Request::Signal {
                    session: wire::WORKLOAD,
                    number,
                    all: false,
                },
            );
        }
        process::signal(process, number)
            .map_err(BackendError::kernel(format!("send signal {number}")))
    }

    fn wait(&self, process: BorrowedFd<'_>) -> Result<Exit, BackendError> {
        process::wait(process).map_err(BackendError::kernel("wait for the process"))
    }

    fn inside(&self) -> Option<&dyn Inside> {
        Some(self)
    }
}

impl Inside for MicroVm<'_> {
    fn signal_all(&self, number: i32) -> Result<(), BackendError> {
        talk::order(
            self.home,
            &Request::Signal {
                session: wire::WORKLOAD,
                number,
                all: true,
            },
        )
    }

    fn is_deaf_to(&self, number: i32) -> Result<bool, BackendError> {
        let asked = Request::IsDeaf {
            session: wire::WORKLOAD,
            number,
        };
        let Event::Deaf(deaf) = talk::ask_soon(self.home, &asked)? else {
            return Err(BackendError::OutOfTurn);
        };
        Ok(deaf)
    }

    fn processes(&self) -> Result<Vec<wire::Process>, BackendError> {
        let Event::Processes(found) = talk::ask(self.home, &Request::Processes)? else {
            return Err(BackendError::OutOfTurn);
        };
        Ok(found)
    }

    fn limit(&self, limits: GuestLimits) -> Result<(), BackendError> {
        talk::order(
            self.home,
            &Request::Update {
                limits: talk::limits(limits, true),
            },
        )?;
        balloon::order(self.home, limits.spare_bytes)
    }

    fn usage(&self) -> Result<wire::Usage, BackendError> {
        let Event::Usage(found) = talk::ask(self.home, &Request::Usage)? else {
            return Err(BackendError::OutOfTurn);
        };
        Ok(found)
    }

    fn out_of_memory(&self, seen: u64) -> Result<u64, BackendError> {
        let Event::OutOfMemory { kills } =
            talk::wait_for(self.home, &Request::AwaitOutOfMemory { seen })?
        else {
            return Err(BackendError::OutOfTurn);
        };
        Ok(kills)
    }

    fn set_time(&self) -> Result<(), BackendError> {
        talk::order(
            self.home,
            &Request::SetTime {
                unix_ns: talk::now(),
            },
        )
    }
}
