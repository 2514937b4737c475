//! The running thing: its state on disk, its lifecycle, and the orchestration of everything below.

pub mod document;
pub mod handing;
pub mod hooks;
pub mod life;
pub mod lifecycle;
pub mod notify;
pub mod record;
pub mod report;
pub mod root;
pub mod store;
pub mod terminal;
