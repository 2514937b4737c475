//! When the lease of a workspace ends: a timer that counts suspended time too, and an eye on changes of the lease.

use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;

use rustix::fs::inotify;
use rustix::time::Itimerspec;
use rustix::time::TimerfdClockId;
use rustix::time::TimerfdFlags;
use rustix::time::TimerfdTimerFlags;
use rustix::time::Timespec;

use crate::sys::Errno;
use crate::workspace::error::WorkspaceError;
use crate::workspace::found::Workspace;
use crate::workspace::lease;
use crate::workspace::lease::Term;
use crate::workspace::store;

/// Watches over the lease of one workspace.
#[derive(Debug)]
pub(super) struct Alarm {
    /// Readable when the term may have ended.
    pub(super) timer: OwnedFd,
    /// Readable when the term may have been changed.
    pub(super) changes: OwnedFd,
    term: Option<Term>,
}

impl Alarm {
    /// Begins to watch.
    pub(super) fn of(workspace: &Workspace) -> Result<Self, Errno> {
        let timer = rustix::time::timerfd_create(
            TimerfdClockId::Boottime,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let changes = inotify::init(flags)?;
        let home = format!("/proc/self/fd/{}", workspace.directory().as_raw_fd());
        let watched = inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::DELETE_SELF;
        inotify::add_watch(&changes, home, watched)?;
        Ok(Self {
            timer,
            changes,
            term: None,
        })
    }

    /// Reads the term anew and sets the timer.
    pub(super) fn set(&mut self, workspace: &Workspace) -> Result<(), WorkspaceError> {
        self.term = workspace.term()?;
        let at = self.term.map_or(0, |term| term.expires_us.max(1));
        let when = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec {
                tv_sec: i64::try_from(at / 1_000_000).unwrap_or(i64::MAX),
                tv_nsec: i64::try_from(at % 1_000_000 * 1000).unwrap_or_default(),
            },
        };
        rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &when).map_err(
            |source| WorkspaceError::Kernel {
                what: "set the timer of the lease",
                source,
            },
        )?;
        Ok(())
    }

    /// Whether the term has ended.
    pub(super) fn has_ended(&self) -> bool {
        let mut count = [0; 8];
        // Reading only makes the timer quiet; the clock decides.
        rustix::io::read(&self.timer, &mut count).unwrap_or_default();
        self.term
            .is_some_and(|term| term.has_expired(lease::now_us()))
    }

    /// Takes note of what happened in the workspace's directory; gives whether the lease is part of it.
    pub(super) fn lease_was_changed(&self) -> bool {
        let mut space = [MaybeUninit::uninit(); 2048];
        let mut events = inotify::Reader::new(self.changes.as_fd(), &mut space);
        let mut changed = false;
        while let Ok(event) = events.next() {
            changed |= event
                .file_name()
                .is_some_and(|name| name.to_bytes() == store::LEASE.as_bytes());
        }
        changed
    }
}
