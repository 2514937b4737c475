//! Loads what the guest's kernel has as modules: some at once, the drivers of devices that are there soon after, others
//! when the kernel asks for them.
//!
//! Beside this program lie the modules, and lists of them in the order in which they can be loaded.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;

use anyhow::Context;
use rustix::fs::Mode;
use rustix::fs::OFlags;

use crate::sys::Errno;

/// Where they are.
const DIRECTORY: &str = "/modules";
/// The list of those that are loaded at once, one a line, what others need before those.
const ORDER: &str = "order";
/// The devices of the machine.
const DEVICES: &str = "/sys/bus/virtio/devices";
/// Kinds of devices (`VIRTIO_ID_*`).
pub(super) const NETWORK: u32 = 1;
pub(super) const DISK: u32 = 2;
/// The program that the kernel runs when it lacks a module (`kernel.modprobe`).
pub(super) const PROGRAM: &str = "modprobe";

/// Loads what is loaded at once; a kernel that has everything has no list.
pub(super) fn load_first() -> anyhow::Result<()> {
    load_list(ORDER)
}

/// Loads the drivers of all devices that the machine has. Nobody waits for this who does not use one of them.
pub(super) fn load_drivers() -> anyhow::Result<()> {
    let Ok(devices) = std::fs::read_dir(DEVICES) else {
        return Ok(());
    };
    let kinds = devices.flatten().filter_map(|device| {
        let text = std::fs::read_to_string(device.path().join("device")).ok()?;
        u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
    });
    let kinds: BTreeSet<u32> = kinds.collect();
    kinds.into_iter().try_for_each(load_driver)
}

/// Loads the driver of one kind of device, if that has not been done.
pub(super) fn load_driver(kind: u32) -> anyhow::Result<()> {
    static LOADED: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if loaded.insert(kind) {
        load_list(&format!("virtio-{kind}.{ORDER}"))?;
    }
    Ok(())
}

/// Loads what the kernel asks for: `modprobe -q -- NAME`.
pub(super) fn load_asked(words: &[OsString]) -> anyhow::Result<()> {
    let name = words.last().and_then(|word| word.to_str());
    let plain = name.filter(|name| !name.contains('/'));
    let name = plain.context("the name of a module is missing")?;
    load_list(&format!("{name}.{ORDER}"))
}

fn load_list(list: &str) -> anyhow::Result<()> {
    let home = Path::new(DIRECTORY);
    let list = match std::fs::read_to_string(home.join(list)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        list => list.context("read the list of modules")?,
    };
    for name in list.lines() {
        load(&home.join(name)).with_context(|| format!("load module {name}"))?;
    }
    Ok(())
}

fn load(path: &Path) -> Result<(), Errno> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    match rustix::system::finit_module(&file, c"", 0) {
        // There already, or for a device that this machine does not have.
        Ok(()) | Err(Errno::EXIST | Errno::NODEV) => Ok(()),
        Err(errno) => Err(errno),
    }
}
