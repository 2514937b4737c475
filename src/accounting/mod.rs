//! What a workspace has cost: read from its enclosure, put into one set of keys, and entered in a ledger.
//!
//! A [`meter::Meter`] looks at a workspace again and again and gives its [`usage::Usage`]; what no counter of the
//! kernel holds (the time below the guarantee, the work done on its behalf) it adds up between two looks and keeps
//! beside the record, so that whoever looks next goes on from there. [`ledger::Ledger`] keeps what was read for
//! longer than the workspace and the host's uptime; [`bill`] says when something is entered. What is counted, and how
//! exactly, stands in `runtime-spec/accounting.md`.

pub mod behalf;
pub mod bill;
pub mod energy;
mod error;
pub mod ledger;
pub mod meter;
pub mod moment;
pub mod openmetrics;
mod reading;
pub mod usage;

pub use error::AccountingError;
pub use ledger::Ledger;
pub use ledger::entry::Entry;
pub use ledger::entry::Reason;
pub use meter::Meter;
pub use meter::sample;
pub use usage::Usage;
