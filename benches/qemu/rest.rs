//! What a machine uses whose program does nothing.

use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;
use std::time::Instant;

use crate::Outcome;
use crate::boot;
use crate::boot::Workspace;
use crate::processor;
use crate::theirs;
use crate::world::World;

/// How long is watched, after a while in which the guest comes to rest.
const WATCHED: Duration = Duration::from_secs(20);
const BEFORE: Duration = Duration::from_secs(5);
/// How often the guests of this kernel have come out of their processors.
const EXITS: &str = "/sys/kernel/debug/kvm/exits";

/// Prints how much of a processor each process uses, and how often the guest comes out of it: what that costs is a
/// matter of the processor, and an emulated one takes much for it.
pub(crate) fn compare(world: &World) -> Outcome<()> {
    if !Path::new(EXITS).exists() {
        let mount = ["-t", "debugfs", "debugfs", "/sys/kernel/debug"];
        Command::new("mount").args(mount).status()?;
    }
    println!("\nat rest, percent of a processor over {WATCHED:?}");
    let workspace = Workspace::run(world)?;
    let processes = workspace.processes()?;
    println!("ours: {}", watch(&processes)?);
    drop(workspace);
    let running = theirs::start(&world.home, &world.wanted(), &boot::OPTIONS)?;
    running.until_hello()?;
    boot::drive(world, |port| running.call(port), |_, _| Ok(()))?;
    let mut processes = vec![("qemu".to_owned(), running.processes.vmm.id())];
    let servers = boot::server_processes()?.into_iter();
    processes.extend(servers.map(|pid| ("virtiofsd".to_owned(), pid)));
    println!("QEMU: {}", watch(&processes)?);
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "what is measured is that nothing happens"
)]
fn watch(processes: &[(String, u32)]) -> Outcome<String> {
    sleep(BEFORE);
    let exits = || -> Outcome<f64> { Ok(std::fs::read_to_string(EXITS)?.trim().parse()?) };
    let first = exits()?;
    let before = processes.iter().map(|(_, pid)| processor::used(*pid));
    let before: Vec<_> = before.collect();
    let began = Instant::now();
    sleep(WATCHED);
    let took = began.elapsed().as_secs_f64();
    let often = (exits()? - first) / took;
    let mut whole = 0.0;
    for ((name, pid), before) in processes.iter().zip(before) {
        let used = processor::used(*pid) - before;
        let percent = used.as_secs_f64() / took * 100.0;
        println!("  {name} {percent:.3}");
        whole += percent;
    }
    Ok(format!("{whole:.3}, {often:.0} exits a second"))
}
