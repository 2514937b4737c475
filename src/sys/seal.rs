//! Keeps this program's own file out of reach of what it starts.
//!
//! A process inside a container could open `/proc/PID/exe` of the runtime, wait until the runtime has
//! gone, and write to its file on the host. So before anybody in there can see it the program comes
//! to run from a detached read-only mount of its file, which nobody can write to or remount: in place
//! where the kernel lets it, and else by being run again; and where such a mount is not allowed (no
//! `CAP_SYS_ADMIN`), from a sealed copy in memory.
//!
//! A command that only makes a copy of itself which goes in leaves the step to that copy ([`prepare`], [`enter`]): the copy
//! does it while the command does something else.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

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

/// How far this process has come.
static STATE: Mutex<State> = Mutex::new(State::Open);

#[derive(Debug)]
enum State {
    /// It runs from wherever it was started, and nobody has asked for more.
    Open,
    /// It can come to run from the file, which is on the mount.
    Ready {
        mount: Option<OwnedFd>,
        file: OwnedFd,
    },
    /// It could have, until it was let go of the mount.
    Late,
    /// It runs from a file that nobody can write to: on the mount, while that is held.
    Sealed(Option<OwnedFd>),
}

/// Makes sure that this process runs from a file that nothing it starts can write to; returns when it
/// does, and does not return when the program has to be run again. The process must have one thread only.
///
/// # Errors
///
/// Fails as `open_tree(2)`, `memfd_create(2)` or `execveat(2)` do.
pub fn ensure() -> Result<()> {
    prepare()?;
    enter().or_else(|_| run_again(&read_only_mount(&running()?)?))
}

/// Makes ready what [`enter`] needs; does not return when the program has to be run again for it. The process must have one
/// thread only.
///
/// # Errors
///
/// As [`ensure`].
pub fn prepare() -> Result<()> {
    let mut state = state();
    if Defence::Sealed.is_out() || !matches!(*state, State::Open) {
        return Ok(());
    }
    let own = running()?;
    if is_sealed(&own)? {
        *state = State::Sealed(None);
        return Ok(());
    }
    let sealed = match read_only_mount(&own) {
        Ok(mount) => match rehome::is_possible().and_then(|()| file_of(&mount)) {
            Ok(file) => {
                let mount = Some(mount);
                *state = State::Ready { mount, file };
                return Ok(());
            }
            Err(_) => mount,
        },
        Err(_) => copy_in_memory(&own)?,
    };
    run_again(&sealed)
}

/// Runs from the file that nobody can write to from here on, where that has been prepared. The process must have one thread
/// only.
///
/// # Errors
///
/// Fails as `mmap(2)`, `mremap(2)` and `prctl(2)` (`PR_SET_MM_MAP`) do; it runs from both files then.
pub fn enter() -> Result<()> {
    let mut state = state();
    let (mount, file) = match std::mem::replace(&mut *state, State::Late) {
        State::Ready { mount, file } => (mount, file),
        State::Late => {
            let mount = read_only_mount(&running()?)?;
            let file = file_of(&mount)?;
            (Some(mount), file)
        }
        other @ (State::Open | State::Sealed(_)) => {
            *state = other;
            return Ok(());
        }
    };
    rehome::run_from(&file)?;
    *state = State::Sealed(mount);
    Ok(())
}

/// Lets go of the mount that this process runs from, which stays as long as somebody runs from it. The kernel waits until
/// nobody looks at it any more, 0.04 to 0.3 ms, and a child that lets go of its own mounts meanwhile waits longer than
/// both: 0.6 ms in place of 0.1. So this is for when there is nothing else to do, and no child at its mounts.
pub fn settle() {
    let mut state = state();
    let rest = match *state {
        State::Ready { .. } => State::Late,
        State::Sealed(_) => State::Sealed(None),
        State::Open | State::Late => return,
    };
    drop(std::mem::replace(&mut *state, rest));
}

/// In a copy of a process: lets go of what its maker lets go of.
pub(super) fn leave_to_maker() {
    // A copy has one thread, and its maker had: somebody else could have held the lock in a test only.
    let Ok(mut state) = STATE.try_lock() else {
        return;
    };
    match &mut *state {
        State::Ready { mount, .. } | State::Sealed(mount) => drop(mount.take()),
        State::Open | State::Late => {}
    }
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The file that this process runs from.
fn running() -> Result<OwnedFd> {
    rustix::fs::open(
        "/proc/self/exe",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// The file that was mounted, opened from its mount.
fn file_of(mount: &OwnedFd) -> Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", mount.as_raw_fd());
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
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
    file_of(&copy)
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
