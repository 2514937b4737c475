//! Measures a machine of ours beside QEMU's `microvm`, with KVM, in turn: the same kernel, first files, memory and words
//! on the command line; the same agent and the same files, ours by our file server and QEMU's by virtiofsd.
//!
//! Made for the test machine (`benches/run against-qemu`), where everything is slow and only ratios mean something. With
//! a number as the first process it is what runs in the guest when devices are measured.

#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

#[path = "qemu/boot.rs"]
mod boot;
#[path = "qemu/devices.rs"]
mod devices;
#[path = "qemu/figures.rs"]
mod figures;
#[path = "../tests/suite/vmm/guest.rs"]
#[expect(dead_code, reason = "the tests have guests that do more")]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod guest;
#[path = "qemu/inside.rs"]
mod inside;
#[path = "qemu/ours.rs"]
mod ours;
#[path = "../tests/suite/support/processor.rs"]
#[expect(
    clippy::unwrap_used,
    reason = "a measurement that cannot go on is none"
)]
mod processor;
#[path = "qemu/rest.rs"]
mod rest;
#[path = "qemu/theirs.rs"]
mod theirs;
#[path = "qemu/world.rs"]
mod world;

use std::error::Error;

use world::World;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// What can be measured.
const PARTS: [&str; 5] = ["boot", "phases", "devices", "idle", "options"];

fn main() -> Outcome<()> {
    if std::process::id() == 1 {
        return inside::live();
    }
    let mut runs = 10;
    let mut parts = Vec::new();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--runs" => runs = words.next().ok_or("--runs N")?.parse()?,
            "--bench" => {}
            part if PARTS.contains(&part) => parts.push(part.to_owned()),
            other => return Err(format!("{other:?}: expected --runs N or one of {PARTS:?}").into()),
        }
    }
    let wanted = |part: &str| match parts.is_empty() {
        true => part != "options",
        false => parts.iter().any(|one| one == part),
    };
    let world = World::prepare()?;
    if wanted("boot") {
        boot::compare(&world, runs)?;
    }
    if wanted("phases") {
        boot::phases(&world, runs)?;
    }
    if wanted("idle") {
        rest::compare(&world)?;
    }
    if wanted("devices") {
        devices::compare(&world, runs)?;
    }
    if wanted("options") {
        theirs::options(&world, runs)?;
    }
    Ok(())
}
