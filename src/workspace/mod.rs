//! The running thing: its state on disk, its lifecycle, and the orchestration of everything below.

pub mod life;
pub mod lifecycle;
pub mod record;
pub mod report;
pub mod root;
pub mod store;
