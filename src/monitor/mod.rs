//! Stays with a workspace when nobody else does: its output, its lease, its end, its samples for the bill.
//!
//! There is no daemon. `up` makes a copy of itself that makes the workspace, is its parent and outlives `up`: one
//! process for each workspace, which waits in one `poll(2)` for everything that concerns it. A workspace whose monitor
//! was killed goes on; [`adopt`] gives it another.

mod alarm;
mod billing;
mod birth;
mod finish;
mod journal;
mod line;
mod lower;
mod outlet;
mod program;
mod reader;
mod remarks;
mod remote;
mod reset;
mod streams;
mod sweep;
mod watch;

use std::os::fd::AsFd;
use std::path::Path;

use rustix::event::PollFd;
use rustix::event::PollFlags;

pub use journal::time_text;
pub use line::Stream;
pub use lower::lower;
pub use reader::Entry;
pub use reader::Reader;
pub use remote::Remote;
pub use reset::Resets;
pub use sweep::Left;
pub use sweep::clear;
pub use sweep::left;

use crate::monitor::line::Line;
use crate::spec::id::ContainerId;
use crate::sys::Errno;
use crate::sys::clone;
use crate::sys::seal;
use crate::sys::socket;
use crate::workspace::blueprint::Wish;
use crate::workspace::blueprint::Written;
use crate::workspace::error::WorkspaceError;
use crate::workspace::estate;
use crate::workspace::found::Workspace;
use crate::workspace::handing::Descriptors;
use crate::workspace::promised;
use crate::workspace::store::Store;

/// The first descriptor behind the standard streams.
const FIRST: u32 = 3;

/// Why a monitor could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// The workspace.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    /// The monitor said why.
    #[error("{0}")]
    Said(String),
    /// It was killed.
    #[error("its monitor was killed")]
    Gone,
    /// The kernel refused something.
    #[error("cannot {what}")]
    Kernel {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: Errno,
    },
}

fn failed(what: &'static str) -> impl FnOnce(Errno) -> MonitorError {
    move |source| MonitorError::Kernel { what, source }
}

/// A workspace that a monitor shall make.
#[derive(Debug)]
pub struct Launch<'a> {
    /// Where it will be.
    pub store: &'a Store,
    /// What its caller says about it; its bundle is made by the monitor.
    pub wish: &'a Wish,
    /// Its configuration.
    pub written: &'a Written,
    /// The directory that its writable layer lies over; none where it has none.
    pub lower: Option<&'a Path>,
    /// Whether its output is passed on, and it is removed at its end.
    pub attached: bool,
    /// Whether its program waits for [`Remote::go`].
    pub waits: bool,
    /// Whether the time of each step is written to its standard error.
    pub timed: bool,
}

/// Starts a monitor that makes a workspace.
///
/// The caller must have one thread only.
///
/// # Errors
///
/// [`MonitorError::Kernel`] when no process can be made; what else goes wrong the monitor says.
pub fn launch(launch: &Launch<'_>) -> Result<Remote, MonitorError> {
    let (near, far) = socket::pair().map_err(failed("make a socket for the monitor"))?;
    let handed = Descriptors::find(0).map_err(WorkspaceError::from)?.count;
    let (promise, promised) = promised::pair().map_err(failed("make a socket for the monitor"))?;
    let keep = [far.as_fd(), promised.as_fd()];
    let born = clone::spawn_apart(FIRST.saturating_add(handed), &keep, || {
        // The frame that owns these descriptors is never returned to.
        match (far.as_fd().try_clone_to_owned(), promised.try_clone()) {
            (Ok(line), Ok(network)) => birth::live(launch, Line::new(line), network),
            _ => 1,
        }
    })
    .map_err(failed("make a process for the monitor"))?;
    // It is at work now, and we only wait; where there are several, to bring up the next.
    let beside = launch.attached.then_some(born.pid);
    promise.keep(launch.wish, launch.written, beside);
    seal::settle();
    Ok(Remote::new(
        launch.store.clone(),
        launch.wish.id.clone(),
        Line::new(near),
        born.pidfd,
    ))
}

/// Gives a workspace that runs a monitor, when it needs one and has none; gives whether it did.
///
/// The caller must have one thread only.
///
/// # Errors
///
/// Fails when no process can be made, or the workspace is not there any more.
pub fn adopt(store: &Store, id: &ContainerId) -> Result<bool, MonitorError> {
    let workspace = Workspace::find(store, id)?;
    workspace.lock()?;
    if !is_alone(store, &workspace)? {
        return Ok(false);
    }
    let (near, far) = socket::pair().map_err(failed("make a socket for the monitor"))?;
    let keep = [far.as_fd()];
    let id = id.clone();
    // The lock is this process's alone: the monitor has its own way to the workspace.
    clone::spawn_apart(FIRST, &keep, || birth::live_on(store, &id, far.as_fd()))
        .map_err(failed("make a process for the monitor"))?;
    drop(far);
    // It has written down that it is there, or has gone.
    let heard = Line::new(near)
        .hear()
        .map_err(failed("hear from the monitor"))?;
    workspace.unlock()?;
    heard.map(|_| true).ok_or(MonitorError::Gone)
}

/// Whether a workspace runs that somebody should stay with, and nobody does.
///
/// # Errors
///
/// Fails when it cannot be looked at.
pub fn is_alone(store: &Store, workspace: &Workspace) -> Result<bool, WorkspaceError> {
    let record = workspace.record();
    let lives = record.init.as_ref().is_some_and(|init| init.goes_on());
    if !lives || workspace.monitor().is_some() {
        return Ok(false);
    }
    Ok(workspace.term()?.is_some() || is_kept(store, &record.id))
}

/// Whether a workspace was made by `up`.
#[must_use]
pub fn is_kept(store: &Store, id: &ContainerId) -> bool {
    estate::is_there(store.places(), id)
}

/// Waits until there may be more to read, or there will be none; gives whether more may come after that.
///
/// # Errors
///
/// Fails as `poll(2)` does.
pub fn wait_for_more(workspace: &Workspace, reader: &Reader) -> Result<bool, MonitorError> {
    let monitor = workspace.monitor();
    let monitor = monitor.map(|life| life.open()).transpose();
    let writer = match monitor.map_err(failed("look for the monitor"))?.flatten() {
        None => workspace.open_first()?,
        monitor => monitor,
    };
    let Some(writer) = writer else {
        return Ok(false);
    };
    let mut watched = [
        PollFd::new(reader, PollFlags::IN),
        PollFd::new(&writer, PollFlags::IN),
    ];
    match rustix::event::poll(&mut watched, None) {
        Ok(_) | Err(Errno::INTR) => Ok(watched[1].revents().is_empty()),
        Err(source) => Err(failed("poll")(source)),
    }
}

/// The lease of a workspace that somebody else has started begins, if it has one, and a monitor watches over it.
///
/// The caller must have one thread only.
///
/// # Errors
///
/// As [`adopt`].
pub fn begin_lease(store: &Store, id: &ContainerId) -> Result<(), MonitorError> {
    let term = Workspace::find(store, id)?.begin_term()?;
    if term.is_some() {
        adopt(store, id)?;
    }
    Ok(())
}
