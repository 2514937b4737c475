//! Lets the program of a workspace run, and runs what belongs after that.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use rustix::fs::AtFlags;

use crate::backend::Attendant;
use crate::backend::BackendError;
use crate::backend::Waiting;
use crate::enclosure::Enclosure;
use crate::plan::Plan;
use crate::spec::id::ContainerId;
use crate::spec::state::Status;
use crate::sys::socket;
use crate::workspace::agent;
use crate::workspace::document;
use crate::workspace::error::WorkspaceError;
use crate::workspace::found::Workspace;
use crate::workspace::hooks::Moment;
use crate::workspace::lifecycle;
use crate::workspace::lifecycle::Event;
use crate::workspace::lifecycle::NotNow;
use crate::workspace::notify;
use crate::workspace::notify::Notify;
use crate::workspace::record::Record;
use crate::workspace::report::Report;
use crate::workspace::store;
use crate::workspace::store::Home;
use crate::workspace::store::Store;
use crate::workspace::wall;

/// Starts the program of a workspace that was created.
///
/// # Errors
///
/// [`NotNow`] unless it is created; [`BackendError::Step`] when a step between start and program fails; the error of a
/// poststart hook, after which the workspace has been ended.
pub fn start(store: &Store, id: &ContainerId, report: &dyn Report) -> Result<(), WorkspaceError> {
    let workspace = Workspace::find_locked(store, id)?;
    lifecycle::after(workspace.status()?, Event::Start)?;
    let ended = NotNow {
        state: Status::Stopped,
        event: Event::Start,
    };
    let init = workspace.record.init.as_ref().ok_or(ended)?;
    let process = workspace.open_first()?.ok_or(ended)?;
    let notify = open_notify(&workspace.home)?;
    let channel = socket::connect(workspace.home.as_fd(), store::START).map_err(|source| {
        WorkspaceError::Kernel {
            what: "reach the first process",
            source,
        }
    })?;
    let let_go = let_go(
        &Plan::default(),
        &workspace.home,
        &workspace.record,
        &Waiting {
            handle: init.known(),
            process: process.as_fd(),
            channel: channel.as_fd(),
        },
        &mut || {},
    );
    let_go.map_err(|error| workspace.record.late.explain(error))?;
    // Who asks for the state finds out sooner; a socket nobody listens on says the same.
    rustix::fs::unlinkat(&workspace.home, store::START, AtFlags::empty()).unwrap_or_default();
    workspace.home.unlock()?;
    poststart(&workspace.record, process.as_fd())?;
    report.started(&workspace.record);
    if let Some(notify) = notify {
        notify
            .wait(process.as_fd(), init.pid)
            .map_err(WorkspaceError::probe)?;
    }
    Ok(())
}

/// The socket on which a workspace says that it is ready, where somebody wants to know.
pub(super) fn open_notify(home: &Home) -> Result<Option<Notify>, WorkspaceError> {
    let Some(manager) = notify::manager() else {
        return Ok(None);
    };
    Notify::open(home, manager).map_err(|source| WorkspaceError::Kernel {
        what: "make the notify socket",
        source,
    })
}

/// Lets the program go, and hears whether it came to run; something may be done `meanwhile`.
pub(super) fn let_go(
    plan: &Plan,
    home: &Home,
    record: &Record,
    waiting: &Waiting<'_>,
    meanwhile: &mut dyn FnMut(),
) -> Result<(), BackendError> {
    let backend = wall::behind(record.isolation, home.as_fd(), None);
    let mut starter = Starter { record, meanwhile };
    backend.start(plan, waiting, &mut starter)
}

/// Runs the poststart hooks; when one fails, the workspace is ended (runtime-spec, "Lifecycle", step 9).
pub(super) fn poststart(record: &Record, process: BorrowedFd<'_>) -> Result<(), WorkspaceError> {
    if record.poststart.is_empty() {
        return Ok(());
    }
    let state = document::for_hooks(record, Status::Running);
    let outcome = Moment {
        kind: "poststart",
        hooks: &record.poststart,
    }
    .run(&state);
    if outcome.is_err() {
        crate::sys::process::signal(process, 9).unwrap_or_default();
        Enclosure::open(&record.place)
            .and_then(|enclosure| enclosure.kill())
            .map_err(WorkspaceError::from)?;
    }
    Ok(outcome?)
}

/// Attends to a workspace while its program is started.
struct Starter<'a> {
    record: &'a Record,
    meanwhile: &'a mut dyn FnMut(),
}

impl Attendant for Starter<'_> {
    fn place(&mut self, _pid: i32) -> anyhow::Result<()> {
        Ok(())
    }

    fn hooks(&mut self, _pid: i32) -> anyhow::Result<()> {
        Ok(())
    }

    fn let_go(&mut self) {
        (self.meanwhile)();
    }

    fn notify(&mut self, _pid: i32, listener: OwnedFd) -> anyhow::Result<()> {
        let state = document::for_hooks(self.record, Status::Created);
        let pid = self.record.init.as_ref().map_or(0, |init| init.pid);
        agent::introduce(self.record.agent.as_ref(), pid, &listener, &state)
    }
}
