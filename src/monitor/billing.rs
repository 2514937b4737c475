//! The bill of a workspace while its monitor lives: a look every ten seconds, an entry in the ledger every minute, and
//! the last one at its end.

use std::time::Duration;
use std::time::Instant;

use crate::accounting::Meter;
use crate::accounting::bill;
use crate::spec::asked::Asked;
use crate::sys::process::Exit;
use crate::workspace::found::Workspace;
use crate::workspace::root::StateRoot;

/// How often the counters are looked at.
const LOOK: Duration = Duration::from_secs(10);
/// After so many looks an entry is made.
const LOOKS: u32 = 6;

/// The bill of one workspace. What cannot be read or written now is tried again the next time: a workspace does not
/// depend on whether it can be billed.
#[derive(Debug)]
pub(super) struct Billing {
    meter: Option<Meter>,
    next: Instant,
    looks: u32,
}

impl Billing {
    /// Begins, if the workspace is billed at all.
    pub(super) fn of(workspace: &Workspace) -> Self {
        let asked = Asked::of(&workspace.record().annotations).unwrap_or_default();
        let mut meter = asked.billed.then(|| Meter::new(workspace));
        if let Some(meter) = &mut meter {
            meter.hold_network(workspace);
        }
        Self {
            meter,
            next: Instant::now() + LOOK,
            looks: 0,
        }
    }

    /// When to look next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.meter.as_ref().map(|_| self.next)
    }

    /// Looks, when it is time to.
    pub(super) fn look(&mut self, root: &StateRoot, workspace: &Workspace) {
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

    /// The last look.
    pub(super) fn close(&mut self, root: &StateRoot, workspace: &Workspace, exit: Option<Exit>) {
        if let Some(mut meter) = self.meter.take() {
            bill::closed(root, &mut meter, workspace, exit)
                .map(drop)
                .unwrap_or_default();
        }
    }
}
