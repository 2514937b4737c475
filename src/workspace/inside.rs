//! What is asked of a workspace behind a kernel of its own, because this kernel does not see what is inside.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;

use serde::Serialize;

use crate::backend::Backend;
use crate::backend::microvm;
use crate::enclosure::Enclosure;
use crate::enclosure::counters::machine::LastWord;
use crate::enclosure::counters::machine::MachineCounters;
use crate::plan::machine::GuestLimits;
use crate::spec::state::Status;
use crate::sys::process;
use crate::workspace::error::WorkspaceError;
use crate::workspace::found::Workspace;
use crate::workspace::lifecycle;
use crate::workspace::lifecycle::Event;
use crate::workspace::record::Record;
use crate::workspace::store::Home;
use crate::workspace::wall;

/// What the machine of a workspace has cost so far: as it is now, or as it was when its program had ended. None without a
/// machine, and for one that has ended and left no word.
#[must_use]
pub fn counted(home: &Home, record: &Record, enclosure: &Enclosure) -> Option<MachineCounters> {
    record.machine?;
    let last = last_word(home, record).and_then(|word| word.counters);
    // While a machine ends, both can be had: who has more has it later.
    let all = enclosure.machine().into_iter().chain(last);
    all.max_by_key(|one| one.exits)
}

/// What was written down when the program in a machine ended; none before, without a machine, and when that was killed.
#[must_use]
pub fn last_word(home: &Home, record: &Record) -> Option<LastWord> {
    record.machine?;
    let bytes = home.read(microvm::LAST_WORD).ok().flatten()?;
    serde_json::from_slice(&bytes).ok()
}

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

/// What a workspace uses, as the kernel inside finds: to look at, never to bill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// How much it may be; none is all of the machine's.
    pub memory_limit_bytes: Option<u64>,
    /// Processes and threads.
    pub tasks: u64,
    /// How many there may be.
    pub tasks_limit: Option<u64>,
    /// How often a process was ended because memory was short.
    pub oom_kills: u64,
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
        lifecycle::after(self.status()?, Event::Ask)?;
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

    /// What it uses, as the kernel inside finds, within the limits that hold there; nothing when that is this kernel, or when
    /// nobody inside could answer.
    #[must_use]
    pub fn used_inside(&self) -> Option<Used> {
        let limits = self.record.machine?.limits;
        let wall = self.wall();
        let answers = matches!(self.status(), Ok(Status::Created | Status::Running));
        let usage = wall.inside().filter(|_| answers)?.usage().ok()?;
        Some(Used {
            memory_bytes: usage.memory_bytes,
            memory_limit_bytes: limits.memory_bytes,
            tasks: usage.tasks,
            tasks_limit: limits.pids,
            oom_kills: usage.oom_kills,
        })
    }

    /// Whether the kernel that it runs on keeps a signal from its `first` process, which has not asked for it. Of one that
    /// cannot be looked at that is not known, and not said.
    #[must_use]
    pub fn is_deaf_to(&self, first: BorrowedFd<'_>, number: i32) -> bool {
        let wall = self.wall();
        let Some(inside) = wall.inside() else {
            let pid = process::number_in_proc(first);
            return pid.is_ok_and(|pid| process::is_deaf_to(pid, number));
        };
        self.answers().is_ok() && inside.is_deaf_to(number).unwrap_or(false)
    }

    /// Whether the kernel inside has ended any of its processes because memory was short, as is known of one that has ended.
    #[must_use]
    pub fn was_short_inside(&self) -> bool {
        last_word(&self.home, &self.record).is_some_and(|word| word.oom_kills > 0)
    }

    /// Waits until the kernel inside has ended more than `seen` of its processes because memory was short; gives how many.
    ///
    /// # Errors
    ///
    /// Fails when its machine ends, or this kernel is its own.
    pub fn out_of_memory(&self, seen: u64) -> Result<u64, WorkspaceError> {
        let wall = self.wall();
        let inside = wall.inside().ok_or(WorkspaceError::OnlyMachine)?;
        Ok(inside.out_of_memory(seen)?)
    }

    /// Puts limits in force inside; nothing where this kernel keeps all of them.
    pub(super) fn limit_inside(&self, limits: GuestLimits) -> Result<(), WorkspaceError> {
        let wall = self.wall();
        let Some(inside) = wall.inside() else {
            return Ok(());
        };
        self.answers()?;
        Ok(inside.limit(limits)?)
    }

    /// Whether somebody inside can answer: nobody does in a machine that stands still or has ended.
    pub(super) fn answers(&self) -> Result<(), WorkspaceError> {
        lifecycle::after(self.status()?, Event::Ask)?;
        Ok(())
    }

    /// Refuses what only this kernel can do to a workspace.
    pub(super) fn only_container(&self, what: &'static str) -> Result<(), WorkspaceError> {
        match self.record.machine {
            None => Ok(()),
            Some(_) => Err(WorkspaceError::OnlyContainer { what }),
        }
    }
}
