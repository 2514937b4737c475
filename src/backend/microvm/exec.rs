//! One more program in a machine: a process on the host that stands for it, with its streams, its signals and its status.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use crate::agent::client::Client;
use crate::agent::wire::Event;
use crate::agent::wire::Exec;
use crate::agent::wire::Request;
use crate::agent::wire::Streams;
use crate::backend::Attendant;
use crate::backend::BackendError;
use crate::backend::Made;
use crate::backend::Supplies;
use crate::backend::dialogue::Dialogue;
use crate::backend::microvm::lower;
use crate::backend::microvm::pump;
use crate::backend::microvm::pump::Pumps;
use crate::backend::microvm::report::Reporter;
use crate::backend::microvm::signals;
use crate::backend::microvm::talk;
use crate::backend::microvm::terminal;
use crate::init;
use crate::plan::ProcessPlan;
use crate::sys::clone;
use crate::sys::clone::Birth;
use crate::sys::process;
use crate::sys::process::Exit;
use crate::sys::signal::Signals;
use crate::sys::socket;

/// Runs a program in the machine of the workspace whose directory is `home`; returns when it runs.
pub(super) fn exec(
    home: BorrowedFd<'_>,
    plan: &ProcessPlan,
    supplies: Supplies<'_>,
    attendant: &mut dyn Attendant,
) -> Result<Made, BackendError> {
    let (here, there) =
        socket::pair().map_err(BackendError::kernel("make a channel to the process"))?;
    let birth = Birth {
        cgroup: supplies.birthplace,
        leave: &[here.as_fd()],
        ..Birth::default()
    };
    let errand = Errand {
        home,
        plan,
        console: supplies.console,
        reporter: Reporter::new(there),
    };
    let born =
        clone::spawn(birth, || errand.run()).map_err(BackendError::kernel("make the process"))?;
    let runs = Dialogue {
        steps: &plan.steps,
        channel: here.as_fd(),
        process: born.pidfd.as_fd(),
        pid: born.pid,
    }
    .until_program(attendant);
    if let Err(error) = runs {
        process::end(born.pidfd.as_fd());
        return Err(error);
    }
    Made::of(born, here)
}

/// What the process that stands for a program has of its maker's.
struct Errand<'a> {
    home: BorrowedFd<'a>,
    plan: &'a ProcessPlan,
    console: Option<OwnedFd>,
    reporter: Reporter,
}

impl Errand<'_> {
    fn run(mut self) -> i32 {
        match self.begin() {
            Ok(running) => running.stay(),
            Err(error) => {
                self.reporter.failed(error);
                init::FAILED
            }
        }
    }

    fn begin(&mut self) -> Result<Running, BackendError> {
        process::hide().map_err(BackendError::kernel("hide the process"))?;
        rustix::process::setsid().map(drop).unwrap_or_default();
        let held = Signals::hold().map_err(BackendError::kernel("hold signals back"))?;
        let terminal = terminal::wanted(&self.plan.steps);
        let streams = match (terminal, self.console.take()) {
            (Some(size), Some(console)) => {
                terminal::open(&console, size)?;
                Streams::Terminal
            }
            (Some(_), None) => return Err(BackendError::OutOfTurn),
            (None, _) => pump::streams(),
        };
        lower::lower()?;
        let mut agent = talk::open(self.home, talk::BOOT)?;
        let request = Request::Exec(Box::new(Exec {
            plan: self.plan.clone(),
            streams,
        }));
        let answer = talk::answered(agent.ask(&request), &self.plan.steps)?;
        let Event::Started { session, .. } = answer else {
            return Err(BackendError::OutOfTurn);
        };
        let pumps = Pumps::begin(self.home, session, streams)?;
        let second = talk::open(self.home, talk::BOOT)?;
        signals::pass_on(held, second, session, terminal.is_some())?;
        // Whoever waits hears that the program runs by the end of the channel.
        self.reporter.close();
        Ok(Running {
            agent,
            session,
            pumps,
        })
    }
}

/// A program that runs in the machine.
struct Running {
    agent: Client,
    session: u32,
    pumps: Pumps,
}

impl Running {
    /// Stays until it has ended and all that it wrote has been passed on; gives its status, 128 + n for a signal.
    fn stay(mut self) -> i32 {
        // A machine that has ended has killed the program.
        let exit = self
            .agent
            .exited(self.session)
            .unwrap_or(Exit::Signal(libc::SIGKILL));
        self.pumps.finish();
        exit.code()
    }
}
