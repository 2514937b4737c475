//! What will be done: a spec and a host, turned into data.

pub mod cgroup;
pub mod step;
