//! The second wall: a machine of its own, with a kernel of its own, around the same program.

pub mod files;
pub mod vmm;
