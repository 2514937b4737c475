//! What is asked of a workspace behind a kernel of its own, because this kernel does not see what is inside.

use std::os::fd::AsFd;

use serde::Serialize;

use crate::backend::Backend;
use crate::plan::machine::GuestLimits;
use crate::spec::state::Status;
use crate::workspace::error::WorkspaceError;
use crate::workspace::found::Workspace;
use crate::workspace::lifecycle;
use crate::workspace::lifecycle::Event;
use crate::workspace::wall;

/// A process of a workspace, as the kernel inside sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Process {
    /// Its number inside.
    pub pid: i32,
    /// That of its parent.
    pub parent: i32,
    /// Its user.
    pub uid: u32,
    /// When it was started, in milliseconds since the kernel inside was.
    pub started_ms: u64,
    /// How long it has run, in milliseconds of processor time.
    pub cpu_ms: u64,
    /// What it was called with; its name in brackets where that is not known.
    pub command: String,
}

impl Workspace {
    /// The wall that it is behind.
    pub(super) fn wall(&self) -> Box<dyn Backend + '_> {
        wall::behind(self.record.isolation, self.home.as_fd(), None)
    }

    /// Its processes, as the kernel inside sees them; nothing when that is this kernel.
    ///
    /// # Errors
    ///
    /// [`crate::workspace::lifecycle::NotNow`] unless it lives; else when nobody inside answers.
    pub fn inside(&self) -> Result<Option<Vec<Process>>, WorkspaceError> {
        let wall = self.wall();
        let Some(inside) = wall.inside() else {
            return Ok(None);
        };
        if self.status()? == Status::Stopped {
            return Ok(Some(Vec::new()));
        }
        lifecycle::after(self.status()?, Event::Enter)?;
        let found = inside.processes()?.into_iter().map(|one| Process {
            pid: one.pid,
            parent: one.parent,
            uid: one.uid,
            started_ms: one.started_ms,
            cpu_ms: one.cpu_ms,
            command: match one.arguments.is_empty() {
                true => format!("[{}]", one.name),
                false => one.arguments.join(" "),
            },
        });
        Ok(Some(found.collect()))
    }

    /// Puts limits in force inside; nothing where this kernel keeps all of them.
    pub(super) fn limit_inside(&self, limits: GuestLimits) -> Result<(), WorkspaceError> {
        let wall = self.wall();
        let Some(inside) = wall.inside() else {
            return Ok(());
        };
        Ok(inside.limit(limits)?)
    }

    /// Refuses what only this kernel can do to a workspace.
    pub(super) fn only_container(&self, what: &'static str) -> Result<(), WorkspaceError> {
        match self.record.machine {
            None => Ok(()),
            Some(_) => Err(WorkspaceError::OnlyContainer { what }),
        }
    }
}
