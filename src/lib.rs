//! Bulkhead runs one workspace spec behind either of two walls: a container on the shared kernel, or a machine of its own.
//!
//! A **spec** is read; with what is known of the **host** it becomes a **plan**; an **enclosure** is made; a
//! **backend** puts a program inside it; the **workspace** is then running. Nothing flows back.
//!
//! ```text
//! bundle ─► spec ─► plan ─► enclosure ─► backend ─► workspace (state) ─► cli
//!                     ▲                   └ container: init in a child
//!                host facts
//! ```
//!
//! In reading order:

#[expect(
    unsafe_code,
    reason = "the kernel's interfaces are made safe here, and only here"
)]
pub mod sys;

pub mod defence;

pub mod spec;

pub mod host;

pub mod plan;

pub mod init;

pub mod image;

pub mod guest;

pub mod network;

pub mod enclosure;

pub mod backend;

pub mod agent;

pub mod workspace;

pub mod accounting;

pub mod monitor;

pub mod cli;

/// The heap, where musl's would be taken otherwise.
#[cfg(target_env = "musl")]
#[global_allocator]
static HEAP: sys::heap::Heap = sys::heap::Heap::new();
