//! All tests that look at the program from outside, in one binary.
//!
//! What belongs to one function is tested beside it; here is what crosses modules, reads the documents beside the
//! code, or asks a real kernel.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod accounting;
mod agent;
mod architecture;
mod attack;
mod both;
mod callers;
mod cgroup;
mod checkpoint;
mod cli;
mod container;
mod crash;
mod document;
mod events;
mod examples;
mod exec;
mod files;
mod fuzz;
mod guarantee;
mod guest;
mod handing;
mod hooks;
mod host;
mod hot_mounts;
mod image;
mod lifecycle;
mod machine;
mod network;
mod plan;
mod remount;
mod removal;
mod rootless;
mod run;
mod seccomp;
mod soak;
mod spec;
mod support;
mod systemd;
mod up;
mod update;
mod vmm;
mod wall;
