//! Brings a workspace down: its program is told to end, its monitor sees it to its end, and the rest is removed.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::accounting::bill;
use crate::monitor::MonitorError;
use crate::monitor::failed;
use crate::monitor::remarks;
use crate::spec::id::ContainerId;
use crate::sys::process;
use crate::sys::process::KILL;
use crate::workspace::error::WorkspaceError;
use crate::workspace::estate;
use crate::workspace::found::Workspace;
use crate::workspace::life::Life;
use crate::workspace::removing;
use crate::workspace::report::Report;
use crate::workspace::store::Store;
use crate::workspace::store::StoreError;

/// How long processes that were killed may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a monitor may take to see its workspace to the end before it is told to hurry, and after that.
const HURRY: Duration = Duration::from_secs(3);
const TERMINATE: i32 = 15;

/// Ends a workspace, however it was made, and removes everything of it, files included unless they are `kept`.
///
/// Files that were kept before, and whose workspace is not there any more, are removed too.
///
/// # Errors
///
/// [`StoreError::Missing`] when there is none; else everything that could not be removed, and the rest is.
pub fn lower(
    store: &Store,
    id: &ContainerId,
    (grace, kept): (Duration, bool),
    report: &dyn Report,
) -> Result<(), MonitorError> {
    let places = store.places();
    match Workspace::find(store, id) {
        Ok(workspace) => {
            estate::keep(places, id, kept).map_err(WorkspaceError::from)?;
            end(&workspace, grace)?;
            if let Err(error) = bill::settle(places, &workspace) {
                report.warning(&remarks::unbilled(&error));
            }
        }
        Err(WorkspaceError::Store(StoreError::Missing)) if kept || !estate::is_kept(places, id) => {
            return Err(StoreError::Missing.into());
        }
        // What cannot be read can be removed all the same, and the removal says what is wrong with it.
        Err(_) => estate::keep(places, id, kept).map_err(WorkspaceError::from)?,
    }
    Ok(removing::delete(store, id, true, report)?)
}

/// Ends the program, and waits for the monitor to have seen that.
fn end(workspace: &Workspace, grace: Duration) -> Result<(), MonitorError> {
    let init = workspace.open_first()?;
    let lived = init.is_some();
    if let Some(init) = init {
        let grace = grace_of(workspace, init.as_fd(), grace);
        // One that has ended meanwhile, or does not stand still, is what is wanted.
        workspace.signal(TERMINATE).unwrap_or_default();
        workspace.resume().unwrap_or_default();
        let ended =
            process::ended_within(&init, Some(grace)).map_err(failed("wait for the program"))?;
        if !ended {
            workspace.signal_all(KILL)?;
            process::ended_within(&init, Some(PATIENCE)).map_err(failed("wait for the program"))?;
        }
    }
    match workspace.monitor() {
        Some(monitor) => dismiss(&monitor, lived),
        None => Ok(()),
    }
}

/// How long is waited for a program that was told to end: not at all for one that the kernel keeps the signal from.
pub(super) fn grace_of(
    workspace: &Workspace,
    program: BorrowedFd<'_>,
    grace: Duration,
) -> Duration {
    match workspace.is_deaf_to(program, TERMINATE) {
        true => Duration::ZERO,
        false => grace,
    }
}

/// Waits for a monitor to end; one that waits for something else is told to, and at last made to.
fn dismiss(monitor: &Life, knows: bool) -> Result<(), MonitorError> {
    let opened = monitor.open().map_err(failed("look for the monitor"))?;
    let Some(process) = opened else {
        return Ok(());
    };
    let ended =
        || process::ended_within(&process, Some(HURRY)).map_err(failed("wait for the monitor"));
    if knows && ended()? {
        return Ok(());
    }
    process::signal(process.as_fd(), TERMINATE).unwrap_or_default();
    if !ended()? {
        process::signal(process.as_fd(), KILL).unwrap_or_default();
        ended()?;
    }
    Ok(())
}
