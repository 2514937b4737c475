//! The first process of a workspace, as its monitor has it: as a child, or taken over from a monitor that was killed.

use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::time::Instant;

use crate::monitor::MonitorError;
use crate::sys::ending;
use crate::sys::process;
use crate::sys::process::Exit;
use crate::workspace::error::WorkspaceError;
use crate::workspace::found::Workspace;
use crate::workspace::held::Held;
use crate::workspace::lifecycle::Event;
use crate::workspace::lifecycle::NotNow;
use crate::workspace::notify::Notify;
use crate::workspace::raising::Started;

/// A first process.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) process: OwnedFd,
    pub(super) pid: i32,
    /// Whom to tell when it says that it is ready.
    pub(super) ready: Option<Notify>,
    /// Since when it is known here.
    pub(super) since: Instant,
    /// When it was started, of one that is not a child.
    adopted: Option<u64>,
    /// Its namespaces.
    pub(super) held: Held,
}

impl Program {
    /// One that this process has made.
    pub(super) fn child(started: Started) -> Self {
        Self {
            process: started.process,
            pid: started.pid,
            ready: started.notify,
            since: Instant::now(),
            adopted: None,
            held: started.held,
        }
    }

    /// That of a workspace that another process has made.
    pub(super) fn adopted(workspace: &Workspace) -> Result<Self, MonitorError> {
        let ended = || {
            WorkspaceError::from(NotNow {
                state: crate::spec::state::Status::Stopped,
                event: Event::Exit,
            })
        };
        let init = workspace.record().init.as_ref().ok_or_else(ended)?;
        Ok(Self {
            process: workspace.open_first()?.ok_or_else(ended)?,
            pid: init.pid,
            ready: None,
            since: Instant::now(),
            adopted: Some(init.start_time),
            held: workspace.hold(),
        })
    }

    /// Whether this process has made it.
    pub(super) fn is_child(&self) -> bool {
        self.adopted.is_none()
    }

    /// How it ended, once it has: of one that is not a child that may not be known.
    pub(super) fn exit(&mut self) -> Option<Option<Exit>> {
        match self.adopted {
            None => process::try_wait(self.process.as_fd())
                .ok()
                .flatten()
                .map(Some),
            Some(start_time) => {
                let seen = ending::uncollected(self.pid, start_time).ok().flatten();
                let told = ending::collected(self.process.as_fd()).ok().flatten();
                Some(seen.or(told))
            }
        }
    }

    /// Removes its remains.
    pub(super) fn collect(self) {
        if self.adopted.is_none() {
            // It was collected before when it ended by itself.
            process::wait(self.process.as_fd())
                .map(drop)
                .unwrap_or_default();
        }
    }

    /// Passes on that it is ready, once.
    pub(super) fn tell_ready(&mut self) {
        let told = self
            .ready
            .as_ref()
            .is_some_and(|ready| ready.pass_on(self.pid));
        if told {
            self.ready = None;
        }
    }
}
