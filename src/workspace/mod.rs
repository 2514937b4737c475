//! The running thing: its state on disk, its lifecycle, and the orchestration of everything below.

pub mod report;
