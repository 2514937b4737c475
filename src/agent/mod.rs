//! What runs inside a machine: its first process, and what it and the host say to each other.

pub mod client;
pub mod wire;
