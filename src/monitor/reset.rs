//! When a workspace that needed more memory than its limit is started again, and when no more.
//!
//! The first time in a row at once, then after 1, 2, 4 seconds and so on up to a minute; the seventeenth time not any
//! more. A row ends when the program ran for five minutes.

use std::time::Duration;
use std::time::SystemTime;

use serde::Deserialize;
use serde::Serialize;

use crate::monitor::journal::time_text;
use crate::workspace::error::WorkspaceError;
use crate::workspace::found::Workspace;
use crate::workspace::store;

/// So many times in a row a workspace is started again.
const MOST: u32 = 16;
/// The longest wait before that.
const LONGEST: Duration = Duration::from_mins(1);
/// A program that ran for so long is not in a loop.
const LONG: Duration = Duration::from_mins(5);

/// How often, and when, a workspace was started again (`resets.json`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resets {
    /// How often since it was made.
    pub count: u32,
    /// When it was the last sixteen times, RFC 3339, the newest last.
    pub times: Vec<String>,
    /// How often in a row.
    row: u32,
}

impl Resets {
    /// Those of a workspace; none when nothing can be read.
    #[must_use]
    pub fn of(workspace: &Workspace) -> Self {
        let bytes = workspace.file(store::RESETS).ok().flatten();
        bytes
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    /// Counts one more after the program ran for `ran`; gives how long to wait before it is started again, and nothing
    /// when that was often enough.
    pub(super) fn next(&mut self, ran: Duration, now: SystemTime) -> Option<Duration> {
        if ran >= LONG {
            self.row = 0;
        }
        if self.row >= MOST {
            return None;
        }
        let wait = match self.row {
            0 => Duration::ZERO,
            row => Duration::from_secs(1 << (row - 1).min(6)).min(LONGEST),
        };
        self.row += 1;
        self.count += 1;
        self.times.push(time_text(now));
        let surplus = self.times.len().saturating_sub(16);
        self.times.drain(..surplus);
        Some(wait)
    }

    pub(super) fn write(&self, workspace: &Workspace) -> Result<(), WorkspaceError> {
        workspace.set_file(store::RESETS, &serde_json::to_vec(self)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_there_is_an_end() {
        let mut resets = Resets::default();
        let waits: Vec<Option<u64>> = (0..18)
            .map(|_| resets.next(Duration::ZERO, SystemTime::UNIX_EPOCH))
            .map(|wait| wait.map(|wait| wait.as_secs()))
            .collect();
        let grown = [0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60, 60, 60, 60];
        assert_eq!(waits[..16], grown.map(Some));
        assert_eq!(waits[16..], [None, None]);
        assert_eq!((resets.count, resets.times.len()), (16, 16));
    }

    #[test]
    fn a_program_that_ran_for_long_is_started_again_at_once() {
        let mut resets = Resets::default();
        for _ in 0..20 {
            resets.next(Duration::ZERO, SystemTime::UNIX_EPOCH);
        }
        let wait = resets.next(LONG, SystemTime::UNIX_EPOCH);
        assert_eq!(wait, Some(Duration::ZERO));
        assert_eq!(resets.times.len(), 16);
    }
}
