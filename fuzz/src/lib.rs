//! What hostile bytes are let at: each target makes of any bytes a guest, or a message, and ends in a panic when
//! something happens that never may.
//!
//! `make fuzz` chooses bytes by what they reach, for as long as it is let; the suite takes the same targets through bytes
//! that are the same each time, for seconds: those in `seeds/`, changed a little, and those in `regressions/`, which have
//! found something before.

pub mod accounts;
pub mod cgroup_path;
pub mod client;
pub mod config;
pub mod devices;
mod guest;
pub mod id_maps;
pub mod mount_options;
pub mod net;
pub mod overlap;
pub mod profile;
pub mod record;
pub mod registers;
pub mod report;
pub mod resolver;
pub mod server;
mod source;
pub mod vsock;
pub mod wire;
