//! Why something cannot be counted or entered.

use crate::accounting::ledger::LedgerError;
use crate::enclosure::EnclosureError;
use crate::spec::asked::AskedError;
use crate::workspace::error::WorkspaceError;

/// Why a workspace cannot be billed.
#[derive(Debug, thiserror::Error)]
pub enum AccountingError {
    /// It runs in the cgroup of whoever made it, or its cgroup is gone.
    #[error("{id} has no cgroup of its own, which is what counts; see --cgroup-manager")]
    Uncounted {
        /// Which workspace.
        id: String,
    },
    /// Its counters cannot be read.
    #[error("cannot read the counters of {id}")]
    Counters {
        /// Which workspace.
        id: String,
        /// Why.
        source: EnclosureError,
    },
    /// What it asked for cannot be understood.
    #[error(transparent)]
    Asked(#[from] AskedError),
    /// It cannot be looked at.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    /// It cannot be entered.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// What the meter must remember cannot be written down.
    #[error("cannot keep the meter of {id}")]
    Keep {
        /// Which workspace.
        id: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
