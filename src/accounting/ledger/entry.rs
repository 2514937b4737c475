//! One line of the ledger.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;

use crate::accounting::usage::Usage;
use crate::sys::process::Exit;
use crate::workspace::record::Record;

/// The version of the format that is written here, and the newest that is read.
pub const VERSION: u32 = 1;

/// What one workspace had used up to one moment of its life. Figures are cumulative, so the last line of a life says
/// all that those before it say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The version of the format.
    pub version: u32,
    /// Why it was entered.
    pub kind: Kind,
    /// How the life ended; absent before its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The status its program exited with; absent where it did not exit, or nobody saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_status: Option<i32>,
    /// The signal that killed its program; absent where none did, or nobody saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// What the workspace was made with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// What it had used.
    pub usage: Usage,
}

/// Why a line was entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The workspace was made.
    Created,
    /// Some time has gone by.
    Interval,
    /// Nothing is added to this life any more.
    Ended,
}

/// How a life ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Its program returned.
    Exited,
    /// A signal killed its program.
    Killed,
    /// It was killed because its memory had run out.
    Oom,
    /// It was removed while its program ran.
    Deleted,
    /// The host went down with it; what it used after the last line before is not known.
    LostAtReboot,
    /// Its program ended, and nobody saw how.
    Unknown,
}

impl Entry {
    /// A workspace was made.
    #[must_use]
    pub fn created(record: &Record, usage: Usage) -> Self {
        Self::new(Kind::Created, record, usage)
    }

    /// Some time has gone by.
    #[must_use]
    pub fn interval(record: &Record, usage: Usage) -> Self {
        Self::new(Kind::Interval, record, usage)
    }

    /// A workspace has ended; `exit` is how its program did, where somebody saw it.
    #[must_use]
    pub fn ended(record: &Record, usage: Usage, reason: Reason, exit: Option<Exit>) -> Self {
        let (exit_status, signal) = match exit {
            Some(Exit::Status(status)) => (Some(status), None),
            Some(Exit::Signal(signal)) => (None, Some(signal)),
            None => (None, None),
        };
        Self {
            reason: Some(reason),
            exit_status,
            signal,
            ..Self::new(Kind::Ended, record, usage)
        }
    }

    /// The last line of a life that the host went down with.
    #[must_use]
    pub fn lost(last: Self) -> Self {
        Self {
            kind: Kind::Ended,
            reason: Some(Reason::LostAtReboot),
            ..last
        }
    }

    fn new(kind: Kind, record: &Record, usage: Usage) -> Self {
        Self {
            version: VERSION,
            kind,
            reason: None,
            exit_status: None,
            signal: None,
            annotations: record.annotations.clone(),
            usage,
        }
    }

    /// What tells its life from all others.
    #[must_use]
    pub fn life(&self) -> (String, String) {
        (self.usage.id.to_string(), self.usage.created.clone())
    }
}
