//! A process that makes one program as a runtime on a host would, and leaves it to the agent.
//!
//! A container is made by a copy of the process that makes it, and that process must have one thread: the agent has
//! many. So each program has a maker of its own: the same binary again, told on a socket what to make.

use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use anyhow::Context;
use anyhow::bail;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use serde::Deserialize;
use serde::Serialize;

use crate::agent::group;
use crate::agent::session::Standard;
use crate::agent::wire;
use crate::agent::wire::Failure;
use crate::agent::wire::WireError;
use crate::backend::Attendant;
use crate::backend::Backend;
use crate::backend::BackendError;
use crate::backend::Made;
use crate::backend::Supplies;
use crate::backend::Target;
use crate::backend::container::Container;
use crate::backend::distant;
use crate::plan::Plan;
use crate::plan::ProcessPlan;
use crate::sys::Errno;
use crate::sys::process;
use crate::sys::socket;

/// What a maker is called on its command line.
pub(super) const WORD: &str = "@maker";

/// What to make.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// The workspace itself, up to its start, and then that.
    Create {
        /// How.
        plan: Box<Plan>,
        /// The cgroup that it is born in.
        group: PathBuf,
    },
    /// One more program.
    Exec {
        /// How.
        plan: Box<ProcessPlan>,
        /// The cgroup that it is born in.
        group: PathBuf,
        /// The workspace's first process.
        pid: i32,
        /// The `CLONE_NEW*` kinds that it does not share with the guest.
        namespaces: u64,
    },
}

/// What a maker says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Word {
    /// It waits for the hooks of the runtime's side.
    Hooks,
    /// The workspace stands, and waits for its start.
    Stands(i32),
    /// The program runs.
    Runs(i32),
    /// It has failed, and nothing is left.
    Failed(Failure),
}

/// What it is answered, whenever it has said something but that it failed.
#[derive(Debug, Serialize, Deserialize)]
struct Go;

/// A maker, as the agent sees it; when this is dropped before a program runs, the program is ended.
#[derive(Debug)]
pub(super) struct Maker {
    socket: UnixStream,
    console: Option<OwnedFd>,
}

impl Maker {
    /// Sets one to work.
    pub(super) fn begin(
        order: &Order,
        standard: &Standard,
        terminal: bool,
    ) -> Result<Self, Failure> {
        let begun = Self::spawn(order, standard, terminal);
        begun.map_err(|error| Failure::Other(format!("cannot begin to make a program: {error:#}")))
    }

    fn spawn(order: &Order, standard: &Standard, terminal: bool) -> anyhow::Result<Self> {
        let (near, far) = UnixStream::pair()?;
        Command::new("/proc/self/exe")
            .arg(WORD)
            .stdin(OwnedFd::from(far))
            .stdout(Stdio::null())
            .spawn()?;
        wire::send(&near, order)?;
        let (console, theirs) = match terminal {
            true => socket::pair().map(|(ours, theirs)| (Some(ours), Some(theirs)))?,
            false => (None, None),
        };
        let mut handed: Vec<_> = standard.iter().map(AsFd::as_fd).collect();
        handed.extend(theirs.as_ref().map(AsFd::as_fd));
        socket::send_with(near.as_fd(), b"d", &handed)?;
        Ok(Self {
            socket: near,
            console,
        })
    }

    /// What it says next.
    pub(super) fn hear(&self) -> Word {
        match wire::receive(&self.socket) {
            Ok(Some(word)) => word,
            Ok(None) => Word::Failed(Failure::Other("the maker of the program ended".to_owned())),
            Err(error) => Word::Failed(Failure::Other(error.to_string())),
        }
    }

    /// Lets it go on.
    pub(super) fn go(&self) {
        // One that has gone is heard of when it is listened to.
        wire::send(&self.socket, &Go).unwrap_or_default();
    }

    /// The master of the program's terminal, once it runs or stands.
    pub(super) fn terminal(&self) -> Result<Option<OwnedFd>, Failure> {
        let Some(console) = &self.console else {
            return Ok(None);
        };
        let got = socket::receive_with(console.as_fd(), &mut [0; 256]);
        let (_, descriptors) =
            got.map_err(|errno| group::refused("take the terminal".to_owned(), errno))?;
        let master = descriptors.into_iter().next();
        let missing = || Failure::Other("the plan makes no terminal".to_owned());
        master.map(Some).ok_or_else(missing)
    }
}

/// The life of a maker.
///
/// # Errors
///
/// Fails when nobody says what to make; what fails later is told.
pub(super) fn run() -> anyhow::Result<()> {
    let socket = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3)?;
    let socket = UnixStream::from(socket);
    let order: Order = wire::receive(&socket)?.context("there is no order")?;
    let (_, descriptors) = socket::receive_with(socket.as_fd(), &mut [0; 1])?;
    let mut descriptors = descriptors.into_iter();
    let (Some(input), Some(output), Some(error)) =
        (descriptors.next(), descriptors.next(), descriptors.next())
    else {
        bail!("there are no standard streams");
    };
    rustix::stdio::dup2_stdin(&input)?;
    rustix::stdio::dup2_stdout(&output)?;
    rustix::stdio::dup2_stderr(&error)?;
    drop((input, output, error));
    let work = Work {
        socket,
        console: descriptors.next(),
    };
    if let Err(failure) = work.carry_out(&order) {
        wire::send(&work.socket, &Word::Failed(failure)).unwrap_or_default();
    }
    Ok(())
}

/// What a maker has.
struct Work {
    socket: UnixStream,
    console: Option<OwnedFd>,
}

impl Work {
    fn carry_out(&self, order: &Order) -> Result<(), Failure> {
        match order {
            Order::Create { plan, group } => self.create(plan, group),
            Order::Exec {
                plan,
                group,
                pid,
                namespaces,
            } => {
                let process = process::open(*pid)
                    .map_err(|errno| group::refused("find the workspace".to_owned(), errno))?;
                let target = Target {
                    process: process.as_fd(),
                    pid: *pid,
                    namespaces: *namespaces,
                    rootless: false,
                };
                self.exec(&target, plan, group)
            }
        }
    }

    fn create(&self, plan: &Plan, group: &Path) -> Result<(), Failure> {
        let birthplace = group::open(group)?;
        let supplies = self.supplies(&birthplace)?;
        let mut waiter = Waiter { work: self };
        let made = Container
            .create(plan, supplies, &mut waiter)
            .map_err(distant::tell)?;
        if !self.may_start(&made) {
            return Ok(());
        }
        Container
            .start(plan, &made.waiting(), &mut waiter)
            .map_err(distant::tell)?;
        self.hand_over(&made);
        Ok(())
    }

    fn exec(&self, target: &Target<'_>, plan: &ProcessPlan, group: &Path) -> Result<(), Failure> {
        let attempt = |birthplace: &OwnedFd| -> Result<Made, BackendError> {
            let supplies = self.supplies(birthplace);
            let supplies = supplies.map_err(|_| BackendError::OutOfTurn)?;
            Container.exec(target, plan, supplies, &mut Waiter { work: self })
        };
        let made = match attempt(&group::open(group)?) {
            // A cgroup whose children have limits cannot have processes of its own: go where the first one went.
            Err(BackendError::Kernel {
                source: Errno::BUSY,
                ..
            }) => {
                let own = group::of_process(target.pid, group);
                attempt(&group::open(own.as_deref().unwrap_or(group))?)
            }
            answer => answer,
        };
        self.hand_over(&made.map_err(distant::tell)?);
        Ok(())
    }

    fn supplies<'a>(&'a self, birthplace: &'a OwnedFd) -> Result<Supplies<'a>, Failure> {
        let console = self.console.as_ref().map(OwnedFd::try_clone).transpose();
        Ok(Supplies {
            birthplace: Some(birthplace.as_fd()),
            console: console.map_err(group::failed("hand on the terminal's socket"))?,
            listener: None,
            network: None,
            lock: Some(self.socket.as_fd()),
            timed: false,
        })
    }

    /// Says that the workspace stands, and waits for its start; gives whether it is to be started. One that ends while
    /// it waits is left to the agent to collect; one that nobody waits for any more is ended.
    fn may_start(&self, made: &Made) -> bool {
        if wire::send(&self.socket, &Word::Stands(made.handle.pid)).is_err() {
            end(made);
            return false;
        }
        let mut watched = [
            PollFd::new(&self.socket, PollFlags::IN),
            PollFd::new(&made.process, PollFlags::IN),
        ];
        loop {
            match rustix::event::poll(&mut watched, None) {
                Err(Errno::INTR) => {}
                Err(_) => return false,
                Ok(_) if watched[1].revents().is_empty() => break,
                Ok(_) => return false,
            }
        }
        let goes_on = self.answered();
        if !goes_on {
            end(made);
        }
        goes_on
    }

    /// Says that the program runs, and stays until the agent knows it; one that nobody knows is ended.
    fn hand_over(&self, made: &Made) {
        let said = wire::send(&self.socket, &Word::Runs(made.handle.pid));
        if said.is_err() || !self.answered() {
            end(made);
        }
    }

    fn answered(&self) -> bool {
        let answer: Result<Option<Go>, WireError> = wire::receive(&self.socket);
        matches!(answer, Ok(Some(Go)))
    }
}

fn end(made: &Made) {
    // It can only have ended already.
    process::signal(made.process.as_fd(), libc::SIGKILL).unwrap_or_default();
}

/// Attends to a program on behalf of the host.
struct Waiter<'a> {
    work: &'a Work,
}

impl Attendant for Waiter<'_> {
    fn place(&mut self, _pid: i32) -> anyhow::Result<()> {
        Ok(())
    }

    fn hooks(&mut self, _pid: i32) -> anyhow::Result<()> {
        wire::send(&self.work.socket, &Word::Hooks)?;
        if self.work.answered() {
            Ok(())
        } else {
            bail!("the hooks of the runtime's side did not run")
        }
    }

    fn notify(&mut self, _pid: i32, _listener: OwnedFd) -> anyhow::Result<()> {
        bail!("linux.seccomp.listenerPath: an agent on the host cannot decide in a machine")
    }
}
