//! Whatever moment the runtime is killed at, whatever becomes of its files: `delete --force` succeeds and nothing is left.

mod around;
mod calls;
mod damage;
mod hazards;
mod identity;
mod limits;
mod races;
mod scarce;
mod stuck;
mod sweeps;

use std::process::Child;
use std::process::ExitStatus;
use std::time::Duration;
use std::time::Instant;

/// How long a command may take before it hangs.
const PATIENCE: Duration = Duration::from_secs(90);

/// Waits for a command's end, within bounds.
#[track_caller]
pub(crate) fn ended(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        let hangs = Instant::now() > deadline;
        if hangs {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert!(!hangs, "a command hangs");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// Numbers that look random and are the same each time.
pub(crate) struct Dice(u64);

impl Dice {
    /// Those that begin with this number.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit.max(1)
    }
}
