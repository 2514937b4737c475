//! A workspace as a process tree on this kernel.

mod birth;
pub mod criu;

mod exec;
pub mod hot;
mod interfaces;
mod outside;
mod second;

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;

use crate::backend::Attendant;
use crate::backend::Backend;
use crate::backend::BackendError;
use crate::backend::Made;
use crate::backend::Supplies;
use crate::backend::Target;
use crate::backend::Waiting;
use crate::backend::dialogue;
use crate::backend::dialogue::Dialogue;
use crate::plan::Plan;
use crate::plan::ProcessPlan;
use crate::sys::process;
use crate::sys::process::Exit;
use crate::sys::process::KILL;
use crate::sys::seal;

/// Puts workspaces on the shared kernel. It keeps nothing between commands.
#[derive(Debug, Clone, Copy, Default)]
pub struct Container;

impl Backend for Container {
    fn create(
        &self,
        plan: &Plan,
        supplies: Supplies<'_>,
        attendant: &mut dyn Attendant,
    ) -> Result<Made, BackendError> {
        birth::create(plan, supplies, attendant)
    }

    fn start(
        &self,
        plan: &Plan,
        waiting: &Waiting<'_>,
        attendant: &mut dyn Attendant,
    ) -> Result<(), BackendError> {
        dialogue::release(waiting.channel)?;
        attendant.let_go();
        // The child has let go of its old root by now, and would have waited for the same grace period of the kernel.
        seal::settle();
        Dialogue::with(waiting, &plan.steps).until_program(attendant)?;
        // The channel closes in either case, and before the process has ended in the other.
        if waiting.handle.is_without_program() {
            // Who has not made it is not told how it ended; what ends it without a word is a signal.
            let exit = process::wait(waiting.process).unwrap_or(Exit::Signal(KILL));
            return Err(BackendError::Died(exit));
        }
        Ok(())
    }

    fn exec(
        &self,
        target: &Target<'_>,
        plan: &ProcessPlan,
        supplies: Supplies<'_>,
        attendant: &mut dyn Attendant,
    ) -> Result<Made, BackendError> {
        exec::exec(target, plan, supplies, attendant)
    }

    fn signal(&self, process: BorrowedFd<'_>, number: i32) -> Result<(), BackendError> {
        process::signal(process, number)
            .map_err(BackendError::kernel(format!("send signal {number}")))
    }

    fn wait(&self, process: BorrowedFd<'_>) -> Result<Exit, BackendError> {
        process::wait(process.as_fd()).map_err(BackendError::kernel("wait for the process"))
    }
}
