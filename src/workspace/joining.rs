//! Runs one more program in a workspace that is there.

use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;

use crate::backend::Attendant;
use crate::backend::BackendError;
use crate::backend::Made;
use crate::backend::Supplies;
use crate::backend::Target;
use crate::enclosure::Enclosure;
use crate::enclosure::Place;
use crate::enclosure::rdt;
use crate::plan;
use crate::plan::ProcessPlan;
use crate::plan::machine;
use crate::plan::namespaces;
use crate::spec::Spec;
use crate::spec::process::Process;
use crate::spec::state::Status;
use crate::sys::Errno;
use crate::sys::process::Exit;
use crate::sys::signal::Signals;
use crate::workspace::agent;
use crate::workspace::blueprint;
use crate::workspace::document;
use crate::workspace::error::WorkspaceError;
use crate::workspace::found::Workspace;
use crate::workspace::handing;
use crate::workspace::handing::Descriptors;
use crate::workspace::lifecycle;
use crate::workspace::lifecycle::Event;
use crate::workspace::lifecycle::NotNow;
use crate::workspace::making;
use crate::workspace::making::Receipts;
use crate::workspace::running::Console;
use crate::workspace::store;
use crate::workspace::terminal::Foreground;
use crate::workspace::wall;

/// One more program for a workspace.
#[derive(Debug, Clone)]
pub struct Errand {
    /// The program.
    pub process: Process,
    /// A cgroup below the workspace's own.
    pub cgroup: Option<PathBuf>,
    /// How many descriptors from 3 on are handed in.
    pub preserve_fds: u32,
    /// Do it in a paused workspace too.
    pub ignore_paused: bool,
    /// Return as soon as the program runs.
    pub detach: bool,
    /// Whether to do without the rights of root; `None` is as the caller is found.
    pub rootless: Option<bool>,
    /// Print the time of each step.
    pub timed: bool,
}

impl Workspace {
    /// The configuration that it was made from.
    ///
    /// # Errors
    ///
    /// Fails when the copy of it is gone or damaged.
    pub fn spec(&self) -> Result<Spec, WorkspaceError> {
        let missing = || WorkspaceError::Unreadable {
            path: self.home.path().join(store::CONFIG),
            source: std::io::ErrorKind::NotFound.into(),
        };
        Ok(Spec::parse(
            &self.home.read(store::CONFIG)?.ok_or_else(missing)?,
        )?)
    }

    /// Runs one more program; gives how it ended, or nothing when it goes on without this command.
    ///
    /// # Errors
    ///
    /// [`NotNow`] unless the workspace lives; [`BackendError::Step`] when a step before the program fails.
    pub fn exec(
        &self,
        spec: &Spec,
        mut errand: Errand,
        receipts: &Receipts,
    ) -> Result<Option<Exit>, WorkspaceError> {
        self.may_enter(errand.ignore_paused)?;
        let descriptors = Descriptors::preserved(errand.preserve_fds)?;
        if self.record.machine.is_some() {
            machine::foreign_to_exec(&errand.process, descriptors.count)?;
            machine::unlabelled(&mut errand.process);
        }
        let plan = self.exec_plan(spec, &errand, descriptors.count)?;
        let callers = making::terminal_of(&errand.process, receipts)?;
        let console = Console::choose(callers, errand.process.terminal, errand.detach)?;
        let signals = if errand.detach {
            None
        } else {
            Some(Signals::hold().map_err(WorkspaceError::probe)?)
        };
        let made = self.join(spec, &plan, &errand, &console)?;
        let handed = hand_back(&made, receipts).and_then(|()| console.master());
        let terminal = handed.inspect_err(|_| {
            crate::sys::process::signal(made.process.as_fd(), 9).unwrap_or_default();
        })?;
        let Some(signals) = signals else {
            return Ok(None);
        };
        let foreground = Foreground {
            program: made.process.as_fd(),
            pid: made.handle.pid,
            signals: &signals,
            terminal,
            notify: None,
        };
        Ok(Some(foreground.stay()?))
    }

    fn may_enter(&self, ignore_paused: bool) -> Result<(), WorkspaceError> {
        let status = self.status()?;
        if status == Status::Paused && ignore_paused {
            return Ok(());
        }
        lifecycle::after(status, Event::Enter)?;
        Ok(())
    }

    fn exec_plan(
        &self,
        spec: &Spec,
        errand: &Errand,
        preserved: u32,
    ) -> Result<ProcessPlan, WorkspaceError> {
        let options = plan::Options {
            id: self.record.id.to_string(),
            bundle: self.record.bundle.clone(),
            preserved,
            apparmor: blueprint::apparmor(&errand.process),
            selinux: blueprint::selinux(spec, &errand.process),
            ..plan::Options::default()
        };
        Ok(plan::exec(spec, &errand.process, &options)?)
    }

    fn join(
        &self,
        spec: &Spec,
        plan: &ProcessPlan,
        errand: &Errand,
        console: &Console,
    ) -> Result<Made, WorkspaceError> {
        let ended = NotNow {
            state: Status::Stopped,
            event: Event::Enter,
        };
        let init = self.record.init.as_ref().ok_or(ended)?;
        let process = self.open_first()?.ok_or(ended)?;
        let wanted = namespaces::of(spec);
        let caller = crate::host::Caller::look();
        let target = Target {
            process: process.as_fd(),
            pid: init.pid,
            namespaces: wanted
                .join
                .iter()
                .fold(wanted.new, |kinds, join| kinds | join.kind),
            rootless: caller.uid != 0,
        };
        let unprivileged = caller.uid != 0 || caller.in_user_namespace;
        if errand.cgroup.is_some() {
            self.only_container("--cgroup")?;
        }
        let enclosure = self.enclosure_for(errand.cgroup.as_deref())?;
        let joiner = Joiner {
            workspace: self,
            target,
            plan,
            console,
            timed: errand.timed,
        };
        if let Some(class) = &self.record.rdt {
            // The program inherits the class from its first moment on.
            let own = i32::try_from(std::process::id()).unwrap_or_default();
            rdt::join(class, own)?;
        }
        match joiner.born_in(&enclosure) {
            // A cgroup with children that have limits cannot have processes of its own: go where the first one went.
            Err(BackendError::Kernel {
                source: Errno::BUSY,
                ..
            }) if errand.cgroup.is_none() => {
                Ok(joiner.born_in(&self.enclosure_of_init(&enclosure)?)?)
            }
            // A user may not move from elsewhere into a cgroup of the user's own. The program is then not counted with
            // the others, but its pid namespace ends it with them.
            Err(BackendError::Kernel {
                source: Errno::ACCESS | Errno::PERM,
                ..
            }) if unprivileged && errand.cgroup.is_none() && !self.record.shared_pids => {
                Ok(joiner.born_in(&Enclosure::open(&Place::Nowhere)?)?)
            }
            answer => Ok(answer?),
        }
    }

    fn enclosure_for(&self, below: Option<&Path>) -> Result<Enclosure, WorkspaceError> {
        let enclosure = self.enclosure()?;
        match below {
            Some(path) => Ok(enclosure.below(path)?),
            None => Ok(enclosure),
        }
    }

    /// The cgroup in which the first process is now.
    fn enclosure_of_init(&self, whole: &Enclosure) -> Result<Enclosure, WorkspaceError> {
        let pid = self.record.init.as_ref().map_or(0, |init| init.pid);
        let lines =
            String::from_utf8_lossy(&blueprint::read(Path::new(&format!("/proc/{pid}/cgroup")))?)
                .into_owned();
        let now = lines
            .lines()
            .find_map(|line| line.strip_prefix("0::/"))
            .unwrap_or_default();
        let own = whole.place().directory().unwrap_or_default();
        let below = Path::new(now)
            .components()
            .skip_while(|part| !own.ends_with(part.as_os_str()));
        Ok(whole.below(&below.skip(1).collect::<PathBuf>())?)
    }
}

/// One attempt to bring a program into a workspace.
struct Joiner<'a> {
    workspace: &'a Workspace,
    target: Target<'a>,
    plan: &'a ProcessPlan,
    console: &'a Console,
    timed: bool,
}

impl Joiner<'_> {
    fn born_in(&self, enclosure: &Enclosure) -> Result<Made, BackendError> {
        let console = self
            .console
            .sent_to
            .as_ref()
            .map(OwnedFd::try_clone)
            .transpose();
        let console = console.map_err(|error| BackendError::Attendant(error.into()))?;
        let supplies = Supplies {
            birthplace: enclosure.birthplace(),
            console,
            listener: None,
            network: None,
            lock: None,
            timed: self.timed,
        };
        let mut attendant = Guide {
            workspace: self.workspace,
        };
        let workspace = self.workspace;
        let backend = wall::behind(workspace.record.isolation, workspace.home.as_fd(), None);
        backend.exec(&self.target, self.plan, supplies, &mut attendant)
    }
}

fn hand_back(made: &Made, receipts: &Receipts) -> Result<(), WorkspaceError> {
    if let Some(path) = &receipts.pidfd_socket {
        handing::send_pidfd(path, made.process.as_fd())?;
    }
    if let Some(path) = &receipts.pid_file {
        handing::write_pid_file(path, made.handle.pid)?;
    }
    Ok(())
}

/// Attends to a program on its way in.
#[derive(Debug)]
struct Guide<'a> {
    workspace: &'a Workspace,
}

impl Attendant for Guide<'_> {
    fn place(&mut self, _pid: i32) -> anyhow::Result<()> {
        Ok(())
    }

    fn hooks(&mut self, _pid: i32) -> anyhow::Result<()> {
        Ok(())
    }

    fn notify(&mut self, pid: i32, listener: OwnedFd) -> anyhow::Result<()> {
        let record = &self.workspace.record;
        let state = document::for_hooks(record, Status::Running);
        agent::introduce(record.agent.as_ref(), pid, &listener, &state)
    }
}
