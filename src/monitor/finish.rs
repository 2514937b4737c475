//! The last moments of a monitor: what the host lent is given back, the rest of the output is passed on, and who looks
//! on is told how it ended.

use rustix::event::PollFd;
use rustix::event::PollFlags;

use crate::monitor::line::Line;
use crate::monitor::line::Word;
use crate::monitor::outlet::Outlet;
use crate::monitor::remarks::Remarks;
use crate::monitor::watch::Over;
use crate::monitor::watch::Watch;
use crate::sys::Errno;
use crate::workspace::error::WorkspaceError;
use crate::workspace::estate::Estate;
use crate::workspace::found::Workspace;
use crate::workspace::held::Farewell;
use crate::workspace::store::Store;

impl Watch<'_> {
    /// Ends the work; gives the exit status of the monitor.
    pub(super) fn finish(mut self, over: Over) -> i32 {
        let exit = match over {
            Over::Ended(exit) => exit,
            Over::Removed => None,
        };
        if !self.keeps && over != Over::Removed {
            // Who made it sees to the rest.
            return 0;
        }
        let remarks = Remarks::none(self.store).since(self.billing.begun());
        let mut program = self.program.take();
        let held = program.as_mut().map(|it| std::mem::take(&mut it.held));
        let mut farewell = Farewell {
            exit,
            held: held.unwrap_or_default(),
            ..Farewell::default()
        };
        // Who has removed it meanwhile has done this too; what cannot be given back now `down` and `gc` try again.
        let released = self.workspace.release(&remarks, &mut farewell);
        if let Some(program) = program {
            program.collect();
        }
        if !self.passing {
            self.line = self.line.take().filter(|_| over == Over::Removed);
        }
        if over != Over::Removed {
            self.drain();
        }
        let removes = self.removes(over);
        let line = self.line.take();
        let unbilled = remarks.unbilled();
        if let Some(text) = &unbilled {
            self.remark(text);
        }
        let finished = match (removes, released) {
            (true, released) => remove(self.store, self.workspace, released.is_ok(), &remarks),
            (false, Ok(())) => self.workspace.note_settled().map(|()| None),
            (false, Err(error)) => Err(error),
        };
        farewell.held.await_mounts();
        if let Some(line) = line {
            if let Some(text) = unbilled {
                say_at_last(&line, &Word::Warning(text));
            }
            say_at_last(&line, &Word::Ended(exit));
        }
        // What the kernel still takes apart is waited for at the very end, as is the disk, when who looks on has gone; its
        // files go then.
        drop((remarks, farewell));
        let whole = finished.and_then(|rest| Ok(rest.map_or(Ok(()), Estate::remove)?));
        i32::from(whole.is_err())
    }

    /// Whether nothing shall be left of it, as things are now: who looks on may go meanwhile.
    fn removes(&self, over: Over) -> bool {
        over == Over::Removed || (self.passing && self.line.is_some())
    }

    /// Passes on what is still in the pipes; who looks on may take its time, unless this monitor is told to end.
    fn drain(&mut self) {
        loop {
            let mut more = false;
            for outlet in &mut self.outlets {
                more |= outlet.carry(self.journal.as_mut(), &mut self.line);
            }
            if self.outlets.iter().any(Outlet::waits) {
                self.make_room();
            } else if !more {
                return;
            }
        }
    }

    fn make_room(&mut self) {
        if !self.wait_for_room() {
            self.line = None;
        }
        for outlet in &mut self.outlets {
            outlet.offer(&mut self.line);
        }
    }

    /// Waits until who looks on takes more; gives `false` when that is not waited for any more.
    fn wait_for_room(&self) -> bool {
        let Some(line) = &self.line else { return false };
        let mut watched = [
            PollFd::new(line, PollFlags::OUT),
            PollFd::new(&self.signals, PollFlags::IN),
        ];
        match rustix::event::poll(&mut watched, None) {
            Ok(_) | Err(Errno::INTR) => !self.told_to_hurry(),
            Err(_) => false,
        }
    }
}

/// Removes what is left of a workspace but its files, and gives those; what could not be released is tried once more.
fn remove(
    store: &Store,
    workspace: Workspace,
    released: bool,
    remarks: &Remarks<'_>,
) -> Result<Option<Estate>, WorkspaceError> {
    let id = workspace.record().id.clone();
    match released {
        true => workspace.erase(remarks)?,
        false => workspace.raze(remarks)?,
    }
    Ok(Estate::retire(store, &id)?)
}

/// Says the last word; who has gone does not hear it.
fn say_at_last(line: &Line, word: &Word) {
    while line.say(word) == Err(Errno::AGAIN) {
        let mut watched = [PollFd::new(line, PollFlags::OUT)];
        if rustix::event::poll(&mut watched, None).is_err() {
            return;
        }
    }
}
