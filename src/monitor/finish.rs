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
use crate::workspace::estate;

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
        let remarks = Remarks::none(self.store);
        self.billing
            .close(self.store.places(), &self.workspace, exit);
        // Who has removed it meanwhile has done this too; what cannot be given back now `down` and `gc` try again.
        let settled = self.workspace.settle(exit, &remarks).is_ok();
        if let Some(program) = self.program.take() {
            program.collect();
        }
        if !self.passing {
            self.line = self.line.take().filter(|_| over == Over::Removed);
        }
        if over != Over::Removed {
            self.drain();
        }
        let removes = over == Over::Removed || (self.passing && self.line.is_some());
        let id = self.workspace.record().id.clone();
        let line = self.line.take();
        let removed = match removes {
            true => {
                self.workspace.raze(&remarks).is_ok() && estate::discard(self.store, &id).is_ok()
            }
            false => true,
        };
        if let Some(line) = line {
            say_at_last(&line, &Word::Ended(exit));
        }
        i32::from(!settled || !removed)
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

/// Says the last word; who has gone does not hear it.
fn say_at_last(line: &Line, word: &Word) {
    while line.say(word) == Err(Errno::AGAIN) {
        let mut watched = [PollFd::new(line, PollFlags::OUT)];
        if rustix::event::poll(&mut watched, None).is_err() {
            return;
        }
    }
}
