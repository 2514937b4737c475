//! Keeps this program's own file out of reach of what it starts.
//!
//! A process inside a container could open `/proc/PID/exe` of the runtime, wait until the runtime has
//! gone, and write to its file on the host. So before the first namespace is entered the program comes
//! to run from a detached read-only mount of its file, which nobody can write to or remount: in place
//! where the kernel lets it, and else by being run again; and where such a mount is not allowed (no
//! `CAP_SYS_ADMIN`), from a sealed copy in memory.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::sync::Mutex;

use rustix::fs::MemfdFlags;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::SealFlags;

use crate::defence::Defence;
use crate::sys::Errno;
use crate::sys::Result;
use crate::sys::last_errno;
use crate::sys::mount;
use crate::sys::mount::Change;
use crate::sys::rehome;

/// The mount that this process came to run from, while nobody has let go of it.
static MOUNT: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// Makes sure that this process runs from a file that nothing it starts can write to; returns when it
/// does, and does not return when the program has to be run again. The process must have one thread only.
///
/// # Errors
///
/// Fails as `open_tree(2)`, `memfd_create(2)` or `execveat(2)` do.
pub fn ensure() -> Result<()> {
    if Defence::Sealed.is_out() {
        return Ok(());
    }
    if MOUNT.lock().is_ok_and(|mount| mount.is_some()) {
        return Ok(());
    }
    let own = running()?;
    if is_sealed(&own)? {
        return Ok(());
    }
    let sealed = match read_only_mount(&own) {
        Ok(mount) => match run_from(&mount) {
            Ok(()) => {
                keep(Some(mount));
                return Ok(());
            }
            Err(_) => mount,
        },
        Err(_) => copy_in_memory(&own)?,
    };
    run_again(&sealed)
}

/// Lets go of the mount that this process runs from, which stays as long as the process does. The kernel waits until
/// nobody looks at it any more, 0.04 to 0.3 ms, and a child that lets go of its own mounts meanwhile waits longer than
/// both: 0.6 ms in place of 0.1. So this is for when there is nothing else to do, and no child at its mounts.
pub fn settle() {
    drop(keep(None));
}

fn keep(mount: Option<OwnedFd>) -> Option<OwnedFd> {
    let mut held = MOUNT.lock().ok()?;
    std::mem::replace(&mut *held, mount)
}

/// The file that this process runs from.
fn running() -> Result<OwnedFd> {
    rustix::fs::open(
        "/proc/self/exe",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Runs from a file of `mount` on, and looks whether it is so.
fn run_from(mount: &OwnedFd) -> Result<()> {
    let path = format!("/proc/self/fd/{}", mount.as_raw_fd());
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rehome::run_from(&file)?;
    if is_sealed(&running()?)? {
        Ok(())
    } else {
        Err(Errno::NOEXEC)
    }
}

/// Whether writes through this descriptor's file are impossible for everybody.
fn is_sealed(own: &OwnedFd) -> Result<bool> {
    let whole = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    if rustix::fs::fcntl_get_seals(own).is_ok_and(|seals| seals.contains(whole)) {
        return Ok(true);
    }
    let system = rustix::fs::fstatvfs(own)?;
    Ok(system
        .f_flag
        .contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

fn read_only_mount(own: &OwnedFd) -> Result<OwnedFd> {
    let tree = mount::copy_tree(own, false)?;
    let change = Change {
        set: mount::ATTR_RDONLY,
        ..Change::default()
    };
    mount::set_attributes(tree.as_fd(), &change, false)?;
    Ok(tree)
}

fn copy_in_memory(own: &OwnedFd) -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = rustix::fs::memfd_create("bulkhead", flags)?;
    loop {
        match rustix::fs::sendfile(&copy, own, None, 1 << 30) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&copy, seals)?;
    let path = format!("/proc/self/fd/{}", copy.as_raw_fd());
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// Executes the sealed file with this process's own arguments and environment.
fn run_again(sealed: &OwnedFd) -> Result<()> {
    let arguments = terminated(std::env::args_os().map(OsStringExt::into_vec))?;
    let environment = terminated(std::env::vars_os().map(|(key, value)| {
        let mut entry = key.into_vec();
        entry.push(b'=');
        entry.extend(value.into_vec());
        entry
    }))?;
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings
            .iter()
            .map(|string| string.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let (argv, envp) = (pointers(&arguments), pointers(&environment));
    // SAFETY: both lists end with a null pointer and their strings outlive the call; on success
    // nothing of this program is left.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            sealed.as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Err(last_errno())
}

fn terminated(strings: impl Iterator<Item = Vec<u8>>) -> Result<Vec<CString>> {
    strings
        .map(|bytes| CString::new(bytes).map_err(|_| Errno::INVAL))
        .collect()
}
