//! The bill of a workspace while its monitor lives: a look every ten seconds and an entry in the ledger every minute.
//! Its end is entered by whoever releases it. That it began is entered when its program runs, or a moment later where that
//! would be in the way of one that is over by then: its last line says all.

use std::time::Duration;
use std::time::Instant;

use crate::accounting::Meter;
use crate::accounting::bill;
use crate::accounting::moment::Moment;
use crate::monitor::line::Line;
use crate::monitor::remarks::Remarks;
use crate::spec::asked::Asked;
use crate::workspace::found::Workspace;
use crate::workspace::store::Store;

/// How often the counters are looked at.
const LOOK: Duration = Duration::from_secs(10);
/// After so many looks an entry is made.
const LOOKS: u32 = 6;

/// How long a program runs before the line of its beginning is entered, where that can wait.
const FIRST: Duration = Duration::from_millis(20);

/// How long after a program has been started the line of its beginning may be on the way to the disk.
const WAY: Duration = Duration::from_millis(200);

/// The bill of one workspace. What cannot be read or written now is tried again the next time: a workspace does not
/// depend on whether it can be billed.
#[derive(Debug)]
pub(super) struct Billing {
    meter: Option<Meter>,
    next: Instant,
    looks: u32,
    /// When to enter the first line, and what the host had done when the program began.
    first: Option<(Instant, Moment)>,
    /// When to wait for the disk to have the first line.
    sync_at: Option<Instant>,
}

impl Billing {
    /// Begins, if the workspace is billed at all.
    pub(super) fn of(workspace: &Workspace) -> Self {
        let asked = Asked::of(&workspace.record().annotations).unwrap_or_default();
        let meter = asked.billed.then(|| Meter::new(workspace));
        let now = Instant::now();
        Self {
            sync_at: meter.as_ref().map(|_| now + WAY),
            meter,
            next: now + LOOK,
            looks: 0,
            first: None,
        }
    }

    /// Enters the first line, of a program that has just begun, only if it goes on.
    pub(super) fn wait(&mut self, since: Moment) {
        self.first = self.meter.as_ref().map(|_| (Instant::now() + FIRST, since));
    }

    /// When the program began, if that has not been entered.
    pub(super) fn begun(&mut self) -> Option<Moment> {
        self.first.take().map(|(_, moment)| moment)
    }

    /// When to look next, or to wait for the disk.
    pub(super) fn next(&self) -> Option<Instant> {
        let look = self.meter.as_ref().map(|_| self.next);
        let first = self.first.as_ref().map(|(at, _)| *at);
        look.into_iter().chain(first).chain(self.sync_at).min()
    }

    /// Looks, when it is time to; who listens on the `line` is told if there is no bill.
    pub(super) fn look(&mut self, store: &Store, workspace: &Workspace, line: Option<&Line>) {
        let root = store.places();
        if self
            .first
            .as_ref()
            .is_some_and(|(at, _)| *at <= Instant::now())
        {
            let remarks = Remarks::over(line, store).since(self.begun());
            workspace.tell_begun(&remarks);
            self.meter = Some(Meter::new(workspace));
        }
        if self.sync_at.is_some_and(|at| at <= Instant::now()) {
            self.sync_at = None;
            bill::sync(root).unwrap_or_default();
        }
        let Some(meter) = self.meter.as_mut().filter(|_| self.next <= Instant::now()) else {
            return;
        };
        self.next = Instant::now() + LOOK;
        self.looks += 1;
        let looked = if self.looks.is_multiple_of(LOOKS) {
            bill::interval(root, meter, workspace).map(drop)
        } else {
            meter.sample(workspace).and_then(|_| meter.keep(workspace))
        };
        looked.unwrap_or_default();
    }
}
