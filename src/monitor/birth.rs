//! The first moments of a monitor: it makes a workspace and starts its program, or takes over one that runs.

use std::os::fd::BorrowedFd;

use crate::accounting::moment::Moment;
use crate::monitor::Launch;
use crate::monitor::MonitorError;
use crate::monitor::failed;
use crate::monitor::journal::Journal;
use crate::monitor::line::Line;
use crate::monitor::line::Order;
use crate::monitor::line::Stream;
use crate::monitor::line::Word;
use crate::monitor::outlet;
use crate::monitor::outlet::Outlet;
use crate::monitor::program::Program;
use crate::monitor::remarks::Remarks;
use crate::monitor::remarks::words;
use crate::monitor::streams;
use crate::monitor::watch::Watch;
use crate::spec::id::ContainerId;
use crate::sys::Errno;
use crate::sys::signal::Signals;
use crate::sys::socket;
use crate::workspace::error::WorkspaceError;
use crate::workspace::estate;
use crate::workspace::estate::Estate;
use crate::workspace::found::Workspace;
use crate::workspace::layer;
use crate::workspace::promised::Promised;
use crate::workspace::raising;
use crate::workspace::raising::Raised;
use crate::workspace::store::Store;

/// The life of a monitor that makes its workspace; gives its exit status.
pub(super) fn live(launch: &Launch<'_>, line: Line, network: Promised) -> i32 {
    name_after(&launch.wish.id);
    let made = {
        let remarks = Remarks::over(Some(&line), launch.store);
        make(launch, &line, network, &remarks)
    };
    let watch = match made {
        Ok(Some(watch)) => watch,
        Ok(None) => return 0,
        Err(error) => {
            line.say(&Word::Failed(words(&error))).unwrap_or_default();
            return 1;
        }
    };
    let line = (line.do_not_wait().is_ok()).then_some(line);
    watch.stay(line, launch.attached)
}

/// Makes the workspace and lets its program go; nothing when that is not wanted any more.
fn make<'a>(
    launch: &Launch<'a>,
    line: &Line,
    network: Promised,
    remarks: &Remarks<'_>,
) -> Result<Option<Watch<'a>>, MonitorError> {
    let signals = Signals::hold().map_err(failed("hold signals back"))?;
    let own = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(own)).map_err(failed("become a subreaper"))?;
    let id = &launch.wish.id;
    let estate = Estate::claim(launch.store, id).map_err(WorkspaceError::from)?;
    let raised = furnish(launch, &estate)
        .and_then(|outlets| Ok((outlets, raise(launch, network, remarks)?)));
    let (outlets, raised) = match raised {
        Ok(made) => made,
        Err(error) => {
            return Err(with(error, estate.remove().map_err(WorkspaceError::from)));
        }
    };
    // From here on the state directory holds what the claim held.
    drop(estate);
    let begun = begin(launch, line, raised, remarks);
    streams::lead_nowhere()?;
    let (workspace, program, since) = match begun {
        Ok(Some(begun)) => begun,
        Ok(None) => {
            discard(launch.store, id)?;
            return Ok(None);
        }
        Err(error) => return Err(with(error, discard(launch.store, id))),
    };
    let journal = Journal::open(&estate::place(launch.store.places(), id)).ok();
    let mut watch = Watch::new(launch.store, workspace, program, signals)?;
    if let Some(since) = since {
        watch.billing.wait(since);
    }
    line.say(&Word::Running).unwrap_or_default();
    if launch.attached {
        watch.prepare_for_the_end();
    }
    Ok(Some(watch.with_output(journal, outlets)))
}

/// Puts into the estate what the workspace is made from; gives our ends of its output.
fn furnish(launch: &Launch<'_>, estate: &Estate) -> Result<Vec<Outlet>, MonitorError> {
    if let Some(lower) = launch.lower {
        layer::make(launch.store.places(), &launch.wish.id, lower).map_err(WorkspaceError::from)?;
    }
    estate
        .configure(&launch.written.text)
        .map_err(WorkspaceError::from)?;
    outlets(launch.store, &launch.wish.id).map_err(failed("open the pipes of its output"))
}

/// Our ends of the pipes of workspace `id`.
fn outlets(store: &Store, id: &ContainerId) -> Result<Vec<Outlet>, Errno> {
    [Stream::Out, Stream::Err]
        .into_iter()
        .zip(estate::pipes(store.places(), id))
        .map(|(stream, pipe)| Ok(Outlet::new(stream, outlet::far_end(&pipe)?)))
        .collect()
}

fn raise(
    launch: &Launch<'_>,
    network: Promised,
    remarks: &Remarks<'_>,
) -> Result<Raised, MonitorError> {
    let pipes = estate::pipes(launch.store.places(), &launch.wish.id);
    streams::lead_into(&pipes, launch.attached)?;
    Ok(raising::raise(
        launch.store,
        launch.wish,
        launch.written.clone(),
        network,
        launch.timed,
        remarks,
    )?)
}

/// Starts the program, when it is wanted still. Its bill has begun then, or the moment is given since when it will count:
/// who waits for the program's end does not wait for that; but whoever is told that it runs is told first if it cannot be
/// billed.
fn begin(
    launch: &Launch<'_>,
    line: &Line,
    mut raised: Raised,
    remarks: &Remarks<'_>,
) -> Result<Option<(Workspace, Program, Option<Moment>)>, MonitorError> {
    if launch.waits {
        if let Err(error) = raised.show() {
            return Err(raised.undo(error, remarks).into());
        }
        let said = line.say(&Word::Raised);
        let order = said.and_then(|()| line.ordered());
        if order != Ok(Some(Order::Go)) {
            let undone = raised.undo(WorkspaceError::Unwanted, remarks);
            let whole = matches!(undone, WorkspaceError::Unwanted);
            return if whole { Ok(None) } else { Err(undone.into()) };
        }
    }
    let mut since = None;
    let mut meanwhile = || since = launch.attached.then(Moment::look);
    let (workspace, started) = raised.start(remarks, &mut meanwhile)?;
    if since.is_none() {
        workspace.tell_begun(remarks);
    }
    Ok(Some((workspace, Program::child(started), since)))
}

fn discard(store: &Store, id: &ContainerId) -> Result<(), WorkspaceError> {
    estate::discard(store, id)?;
    Ok(())
}

/// An error, and what went wrong on the way back from it.
fn with(error: MonitorError, cleaned: Result<(), WorkspaceError>) -> MonitorError {
    match cleaned {
        Ok(()) => error,
        Err(more) => MonitorError::Said(format!("{}; {}", words(&error), words(&more))),
    }
}

/// The life of a monitor that takes over a workspace; gives its exit status.
pub(super) fn live_on(store: &Store, id: &ContainerId, line: BorrowedFd<'_>) -> i32 {
    name_after(id);
    let taken = take_over(store, id);
    if let Ok(watch) = taken {
        // Who asked for it may have gone meanwhile.
        socket::send(line, b"g").unwrap_or_default();
        return watch.stay(None, false);
    }
    1
}

fn take_over<'a>(store: &'a Store, id: &ContainerId) -> Result<Watch<'a>, MonitorError> {
    streams::lead_nowhere()?;
    let signals = Signals::hold().map_err(failed("hold signals back"))?;
    let workspace = Workspace::find(store, id)?;
    let program = Program::adopted(&workspace)?;
    workspace.note_monitor()?;
    let watch = Watch::new(store, workspace, program, signals)?;
    let directory = estate::place(store.places(), id);
    match outlets(store, id) {
        Ok(outlets) => Ok(watch.with_output(Journal::open(&directory).ok(), outlets)),
        // One that `create` made has its output elsewhere.
        Err(_) => Ok(watch),
    }
}

/// Says in `ps` whose monitor this is.
fn name_after(id: &ContainerId) {
    let mut name = format!("monitor:{id}").into_bytes();
    name.truncate(15);
    if let Ok(name) = std::ffi::CString::new(name) {
        rustix::thread::set_name(&name).unwrap_or_default();
    }
}
