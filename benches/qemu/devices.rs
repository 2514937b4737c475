//! Disk, network and files in a guest whose first process measures them, in our machine and in QEMU's in turn.

use std::collections::BTreeMap;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use bulkhead::sys::process;

use crate::Outcome;
use crate::figures;
use crate::figures::Pair;
use crate::inside;
use crate::ours;
use crate::theirs;
use crate::world::Wanted;
use crate::world::World;

/// The size of the disk.
const DISK: usize = 16 << 20;
/// How long the host sends.
const SPAN: Duration = Duration::from_millis(700);
/// How long a machine may take for all of it, in one that is emulated.
const LONGEST: Duration = Duration::from_secs(240);
/// The interface on the host's side.
const TAP: &str = "bench0";

/// Figures by their names, as the guest says them.
type Figures = BTreeMap<String, f64>;

/// Measures both in turn and prints the figures; more is better in all of them.
pub(crate) fn compare(world: &World, runs: usize) -> Outcome<()> {
    let initramfs = initramfs(world)?;
    let disk = world.path("disk");
    std::fs::write(&disk, vec![7; DISK])?;
    let tree = world.path("tree");
    std::fs::create_dir_all(&tree)?;
    let listener = TcpListener::bind(("0.0.0.0", inside::PORT))?;
    std::thread::spawn(move || {
        listener
            .incoming()
            .flatten()
            .for_each(|caller| drop(std::thread::spawn(move || drop(answer(caller)))))
    });
    for (kernel_moves, title) in [
        (true, "devices, vhost-net"),
        (false, "devices, frames by the VMM"),
    ] {
        let words = match kernel_moves {
            true => "bench.disk bench.net bench.files",
            false => "bench.net",
        };
        let wanted = Wanted {
            initramfs: initramfs.clone(),
            cmdline: format!("{} printk.devkmsg=on {words}", world.cmdline),
            memory: 256 << 20,
            share: Some(tree.clone()),
            disk: Some(disk.clone()),
            tap: Some((TAP.to_owned(), kernel_moves)),
            vsock: false,
            ..world.wanted()
        };
        rounds(world, &wanted, runs, title)?;
    }
    Ok(())
}

fn rounds(world: &World, wanted: &Wanted, runs: usize, title: &str) -> Outcome<()> {
    let mut pairs: BTreeMap<String, Pair> = BTreeMap::new();
    for round in 0..runs {
        for side in [round % 2 == 0, round % 2 != 0] {
            let what = if side { "ours" } else { "QEMU" };
            figures::next(title, what, round, runs);
            for (name, value) in measure(world, wanted, side)? {
                pairs.entry(name).or_default().push(side, value);
            }
        }
    }
    figures::head(title);
    for (name, pair) in &pairs {
        pair.print(name, "per s");
    }
    Ok(())
}

/// One machine, from its start to its end.
fn measure(world: &World, wanted: &Wanted, ours: bool) -> Outcome<Figures> {
    std::fs::write(&wanted.serial, "")?;
    if ours {
        let home = &world.home;
        let mut running = ours::start(&world.bulkhead, home, wanted)?;
        running.until_running()?;
        set_up_tap()?;
        until_off(&mut running.processes.vmm, &wanted.serial)?;
    } else {
        tap(&["tuntap", "add", "mode", "tap", "vnet_hdr", "name", TAP])?;
        set_up_tap()?;
        let options = ["-M", theirs::LEAN, "-bios", "qboot.rom"];
        let mut running = theirs::start(&world.home, wanted, &options)?;
        until_off(&mut running.processes.vmm, &wanted.serial)?;
        tap(&["link", "del", TAP])?;
    }
    figures_of(&wanted.serial)
}

/// Waits until a machine has switched itself off; one that does not come to its end is told of with what it has said.
fn until_off(vmm: &mut Child, serial: &Path) -> Outcome<()> {
    let process = process::open(i32::try_from(vmm.id())?)?;
    if process::ended_within(&process, Some(LONGEST))? {
        vmm.wait()?;
        return Ok(());
    }
    let text = String::from_utf8_lossy(&std::fs::read(serial)?).into_owned();
    Err(format!("the guest is not done after {LONGEST:?}: {text}").into())
}

fn figures_of(serial: &Path) -> Outcome<Figures> {
    let text = String::from_utf8_lossy(&std::fs::read(serial)?).into_owned();
    if text.contains("FAILED") || !text.contains(inside::MARK) {
        return Err(format!("the guest has failed: {text}").into());
    }
    let figures = text
        .lines()
        .filter_map(|line| line.split_once(inside::MARK))
        .filter_map(|(_, figure)| figure.trim().split_once('='));
    let read = figures.map(|(name, value)| Ok((name.to_owned(), value.parse()?)));
    read.collect()
}

fn set_up_tap() -> Outcome<()> {
    tap(&["addr", "add", &format!("{}/24", inside::HOST), "dev", TAP])?;
    tap(&["link", "set", TAP, "up"])
}

fn tap(words: &[&str]) -> Outcome<()> {
    let status = Command::new("ip").args(words).status()?;
    status.success().then_some(()).ok_or("ip has failed")?;
    Ok(())
}

/// The host's side of the network: what a guest asks for in its first byte.
fn answer(mut caller: TcpStream) -> Outcome<()> {
    caller.set_nodelay(true)?;
    let mut what = [0];
    caller.read_exact(&mut what)?;
    let mut block = vec![0; 128 << 10];
    match what {
        [b'p'] => {
            while caller.read(&mut what)? == 1 {
                caller.write_all(&what)?;
            }
        }
        [b'u'] => {
            while caller.read(&mut block)? > 0 {}
            caller.write_all(&what)?;
        }
        _ => {
            let began = Instant::now();
            while began.elapsed() < SPAN {
                caller.write_all(&block)?;
            }
        }
    }
    Ok(())
}

/// The guest's first files, with this program in place of the agent: a second archive behind the first, whose files
/// take the place of those of the same name.
fn initramfs(world: &World) -> Outcome<std::path::PathBuf> {
    let place = world.path("inside");
    std::fs::create_dir_all(&place)?;
    std::fs::copy("/proc/self/exe", place.join("init"))?;
    let mut archiver: Child = Command::new("busybox")
        .args(["cpio", "-o", "-H", "newc"])
        .current_dir(&place)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    archiver
        .stdin
        .take()
        .ok_or("no input")?
        .write_all(b"init\n")?;
    let second = archiver.wait_with_output()?.stdout;
    let mut whole = std::fs::read(&world.initramfs)?;
    whole.resize(whole.len().next_multiple_of(512), 0);
    whole.extend(second);
    let path = world.path("initramfs");
    std::fs::write(&path, whole)?;
    Ok(path)
}
