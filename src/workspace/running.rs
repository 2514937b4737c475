//! Makes a workspace, starts it, stays with it and removes it: all of its life in one command.

use std::mem::ManuallyDrop;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;

use crate::sys::Errno;
use crate::sys::process::Exit;
use crate::sys::signal::Signals;
use crate::sys::socket;
use crate::workspace::blueprint::Blueprint;
use crate::workspace::blueprint::Wish;
use crate::workspace::error::WorkspaceError;
use crate::workspace::making;
use crate::workspace::making::Arrangement;
use crate::workspace::making::Receipts;
use crate::workspace::making::Standing;
use crate::workspace::notify::Notify;
use crate::workspace::removing;
use crate::workspace::report::Report;
use crate::workspace::shortage;
use crate::workspace::starting;
use crate::workspace::store;
use crate::workspace::store::Store;
use crate::workspace::terminal::Foreground;

/// How long the command stays with the workspace, and what it leaves.
#[derive(Debug, Clone, Copy)]
pub struct Stay {
    /// Return as soon as the program runs.
    pub detach: bool,
    /// Leave the workspace, ended, in the store.
    pub keep: bool,
    /// Adopt processes that it leaves behind.
    pub adopt: bool,
    /// Print the time of each step.
    pub timed: bool,
}

/// Runs a bundle; gives how its program ended, or nothing when it goes on without this command.
///
/// # Errors
///
/// [`WorkspaceError`]; nothing of the workspace is left then.
pub fn run(
    store: &Store,
    wish: &Wish,
    receipts: &Receipts,
    stay: Stay,
    report: &dyn Report,
) -> Result<Option<Exit>, WorkspaceError> {
    // It is not taken apart: the kernel takes it back with the process, and some hundreds of small pieces would cost a copy of
    // every page that the process, a copy itself, still shares.
    let blueprint = ManuallyDrop::new(Blueprint::draw(wish, store, report)?);
    making::refuse_reset(&blueprint)?;
    let mut console = Console::arrange(
        making::connect_console(&blueprint, receipts)?,
        &blueprint,
        stay,
    )?;
    let signals = if stay.detach {
        None
    } else {
        Some(stay_signals(stay)?)
    };
    let arrangement = Arrangement {
        console: console.sent_to.take(),
        network: None,
        started_later: false,
        begun_later: false,
        timed: stay.timed,
    };
    let standing = making::build(store, wish, &blueprint, arrangement, report)?;
    let begun = begin(&standing, &blueprint, receipts, report)
        .and_then(|notify| Ok((notify, console.master()?)));
    let (notify, master) = match begun {
        Ok(begun) => begun,
        Err(error) => return making::take_back(standing, error, report).map(|()| None),
    };
    let Some(signals) = signals else {
        return ready(&standing, notify).map(|()| None);
    };
    let exit = attend(&standing, &signals, master, notify);
    let exit = match exit {
        Ok(exit) => exit,
        Err(error) => return making::take_back(standing, error, report).map(|()| None),
    };
    // Its status alone does not tell.
    if let Some(warning) = shortage::warning(&standing.record.place, exit) {
        report.warning(&warning);
    }
    leave(standing, exit, stay, report)?;
    Ok(Some(exit))
}

/// Lets the program go. The socket for its readiness is there before it can look for it.
fn begin(
    standing: &Standing,
    blueprint: &Blueprint,
    receipts: &Receipts,
    report: &dyn Report,
) -> Result<Option<Notify>, WorkspaceError> {
    let notify = starting::open_notify(&standing.home)?;
    making::hand_back(standing, receipts)?;
    let process = standing.made.process.as_fd();
    starting::let_go(
        &blueprint.plan,
        &standing.home,
        &standing.record,
        &standing.made.waiting(),
        &mut || {},
    )
    .map_err(|error| shortage::explain_at(&standing.record.place, error))?;
    starting::poststart(&standing.record, process)?;
    report.started(&standing.record);
    Ok(notify)
}

/// Waits until a program that nobody stays with is ready, where the service manager wants to know.
fn ready(standing: &Standing, notify: Option<Notify>) -> Result<(), WorkspaceError> {
    let Some(notify) = notify else {
        return Ok(());
    };
    let made = &standing.made;
    notify
        .wait(made.process.as_fd(), made.handle.pid)
        .map_err(WorkspaceError::probe)
}

pub(super) fn attend(
    standing: &Standing,
    signals: &Signals,
    terminal: Option<OwnedFd>,
    notify: Option<Notify>,
) -> Result<Exit, WorkspaceError> {
    let foreground = Foreground {
        program: standing.made.process.as_fd(),
        pid: standing.made.handle.pid,
        signals,
        terminal,
        notify,
    };
    Ok(foreground.stay()?)
}

pub(super) fn leave(
    standing: Standing,
    exit: Exit,
    stay: Stay,
    report: &dyn Report,
) -> Result<(), WorkspaceError> {
    if removing::has_been_removed(&standing.home) {
        return Ok(());
    }
    if stay.keep {
        return Ok(standing
            .home
            .write(store::EXIT, &serde_json::to_vec(&exit)?)?);
    }
    if removing::is_billed(&standing.record) {
        // The removal tells how it ended.
        let note = standing
            .home
            .write(store::EXIT, &serde_json::to_vec(&exit)?);
        note.unwrap_or_default();
    }
    let left = removing::remove(standing.home, Some(&standing.record), report);
    removing::all_or_several(left)
}

/// Signals wait from now on: one that comes while the workspace is made is passed to it when it stands.
pub(super) fn stay_signals(stay: Stay) -> Result<Signals, WorkspaceError> {
    let failed = |source| WorkspaceError::Kernel {
        what: "hold signals back",
        source,
    };
    if stay.adopt {
        let own = rustix::process::getpid();
        rustix::process::set_child_subreaper(Some(own)).map_err(failed)?;
    }
    Signals::hold().map_err(failed)
}

/// Where the master of a terminal goes: to the caller, or to this command.
#[derive(Debug)]
pub(super) struct Console {
    pub(super) sent_to: Option<OwnedFd>,
    kept: Option<OwnedFd>,
}

impl Console {
    fn arrange(
        callers: Option<OwnedFd>,
        blueprint: &Blueprint,
        stay: Stay,
    ) -> Result<Self, WorkspaceError> {
        Self::choose(callers, blueprint.spec.process.terminal, stay.detach)
    }

    /// The caller's socket, or one between the program and this command when that stays.
    pub(super) fn choose(
        callers: Option<OwnedFd>,
        terminal: bool,
        detach: bool,
    ) -> Result<Self, WorkspaceError> {
        if callers.is_some() || !terminal {
            return Ok(Self {
                sent_to: callers,
                kept: None,
            });
        }
        if detach {
            return Err(WorkspaceError::NoConsole);
        }
        let (near, far) = socket::pair().map_err(|source| WorkspaceError::Kernel {
            what: "make a socket for the terminal",
            source,
        })?;
        Ok(Self {
            sent_to: Some(far),
            kept: Some(near),
        })
    }

    /// The master, when it was sent here; our own end of the way there is closed first, so that nothing is waited for
    /// that will not come.
    pub(super) fn master(self) -> Result<Option<OwnedFd>, WorkspaceError> {
        drop(self.sent_to);
        let Some(near) = self.kept else {
            return Ok(None);
        };
        let failed = |source| WorkspaceError::Kernel {
            what: "receive the terminal",
            source,
        };
        let mut name = [0; 256];
        let (_, mut fds) = socket::receive_with(near.as_fd(), &mut name).map_err(failed)?;
        fds.pop().map(Some).ok_or(failed(Errno::BADMSG))
    }
}
