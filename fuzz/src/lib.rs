//! What hostile bytes are let at: each target makes of any bytes a guest, or a message, and ends in a panic when
//! something happens that never may.
//!
//! `cargo fuzz` chooses bytes by what they reach, for hours; the suite takes the same targets through bytes that are the
//! same each time, for seconds, and through those in `regressions/`, which have found something before.

pub mod devices;
mod guest;
mod source;
pub mod vsock;
pub mod wire;
