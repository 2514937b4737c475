//! Seccomp profiles: our programs beside libseccomp's, and both beside a real kernel.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod bpf;
mod compare;
mod corners;
mod engine;
mod generated;
mod kernel;
mod meaning;
mod oracle;
mod profiles;
mod tables;
