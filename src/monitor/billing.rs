//! The bill of a workspace while its monitor lives: a look every ten seconds and an entry in the ledger every minute.
//! Its end is entered by whoever releases it.

use std::time::Duration;
use std::time::Instant;

use crate::accounting::Meter;
use crate::accounting::bill;
use crate::spec::asked::Asked;
use crate::workspace::found::Workspace;
use crate::workspace::root::StateRoot;

/// How often the counters are looked at.
const LOOK: Duration = Duration::from_secs(10);
/// After so many looks an entry is made.
const LOOKS: u32 = 6;

/// How long after a program has been started the line of its beginning may be on the way to the disk.
const WAY: Duration = Duration::from_millis(200);

/// The bill of one workspace. What cannot be read or written now is tried again the next time: a workspace does not
/// depend on whether it can be billed.
#[derive(Debug)]
pub(super) struct Billing {
    meter: Option<Meter>,
    next: Instant,
    looks: u32,
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
        }
    }

    /// When to look next, or to wait for the disk.
    pub(super) fn next(&self) -> Option<Instant> {
        let look = self.meter.as_ref().map(|_| self.next);
        look.into_iter().chain(self.sync_at).min()
    }

    /// Looks, when it is time to.
    pub(super) fn look(&mut self, root: &StateRoot, workspace: &Workspace) {
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
