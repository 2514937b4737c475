//! Loads what the guest's kernel has as modules: in the order in which they were put beside this program.

use std::path::Path;

use anyhow::Context;
use rustix::fs::Mode;
use rustix::fs::OFlags;

use crate::sys::Errno;

/// Where they are.
const DIRECTORY: &str = "/modules";
/// The list of their files, one a line, what others need before those.
const ORDER: &str = "order";

/// Loads all of them; a kernel without any has no list.
pub(super) fn load_all() -> anyhow::Result<()> {
    let home = Path::new(DIRECTORY);
    let list = match std::fs::read_to_string(home.join(ORDER)) {
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
