//! The running thing: its state on disk, its lifecycle, and the orchestration of everything below.

pub mod agent;
pub mod blueprint;
pub mod document;
pub mod error;
pub mod found;
pub mod handing;
pub mod hooks;
pub mod interfaces;
pub mod joining;
pub mod late;
pub mod life;
pub mod lifecycle;
pub mod limiting;
pub mod making;
pub mod notify;
pub mod record;
pub mod removing;
pub mod report;
pub mod root;
pub mod running;
pub mod starting;
pub mod store;
pub mod terminal;
