//! Making a process: one `clone3(2)` that places, contains and names it at birth.

use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;

use crate::sys::Result;
use crate::sys::checked;
use crate::sys::seal;

/// A process that this one has just made.
#[derive(Debug)]
pub struct Spawned {
    /// Its number in the namespace of the caller.
    pub pid: i32,
    /// The handle that stays true when the number is used again.
    pub pidfd: OwnedFd,
}

/// Where and how a process is born.
#[derive(Debug, Clone, Copy, Default)]
pub struct Birth<'a> {
    /// `CLONE_NEW*` flags: namespaces that are made for it.
    pub namespaces: u64,
    /// The cgroup that it is charged to from its first page on (`CLONE_INTO_CGROUP`, Linux 5.7).
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Whether the caller's parent becomes its parent (`CLONE_PARENT`).
    pub sibling: bool,
    /// Whether the copy itself comes to run from a file that nobody can write to ([`seal::enter`]), before anybody whom that
    /// file is to be kept from can see it; otherwise its maker does, before it makes the copy.
    pub seals: bool,
    /// Descriptors of the caller's that the copy closes at once: one whose other end shall be able to tell when
    /// the caller has gone, a lock that shall end with the caller. The copy never comes back to the frames that
    /// own them.
    pub leave: &'a [BorrowedFd<'a>],
}

/// Runs `child` in a copy of this process and ends that copy with the status that `child` returns.
///
/// Moving a process after it started would charge its first pages and its first microseconds to the
/// caller, so the kernel is asked to place it before it runs at all. The caller must have one thread
/// only: a second one could hold a lock that the copy would wait for without end.
///
/// # Errors
///
/// Fails as `clone3(2)` and [`seal::enter`] do; `EBUSY` means that the cgroup is not a leaf, `EPERM` that a namespace
/// needs privileges.
pub fn spawn(birth: Birth<'_>, child: impl FnOnce() -> i32) -> Result<Spawned> {
    if !birth.seals {
        seal::enter()?;
    }
    let mut pidfd: RawFd = -1;
    // SAFETY: `clone_args` is plain numbers, for which all zeros is a valid value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = birth.namespaces | u64::from(libc::CLONE_PIDFD.unsigned_abs());
    args.pidfd = (&raw mut pidfd) as u64;
    if birth.sibling {
        args.flags |= u64::from(libc::CLONE_PARENT.unsigned_abs());
    } else {
        args.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    }
    if let Some(cgroup) = birth.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    // SAFETY: `args` is a valid `clone_args` of the size passed, `pidfd` is alive for the call, and
    // without CLONE_VM the child has its own copy of this stack.
    let made = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const args,
            size_of::<libc::clone_args>(),
        )
    };
    let pid = checked(made)?;
    if pid == 0 {
        seal::leave_to_maker();
        for descriptor in birth.leave {
            // SAFETY: this copy of the descriptor belongs to a frame that is never returned to, because the
            // process ends below.
            unsafe { libc::close(descriptor.as_raw_fd()) };
        }
        let status = child();
        // SAFETY: ends the child without running what the parent had set up for its own exit.
        unsafe { libc::_exit(status) }
    }
    // SAFETY: the kernel has just stored a descriptor here, and nothing else knows of it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Spawned {
        pid: i32::try_from(pid).unwrap_or(i32::MAX),
        pidfd,
    })
}

/// Runs `child` in a copy of this process that goes on when this one has ended: in a session of its own, without any
/// descriptor from `first` on but those in `keep`.
///
/// What a caller has open must not stay open in a process that outlives the command it called: it would wait for the
/// end of a pipe that never comes. The descriptors are closed, not marked: the copy never executes another program.
/// Those below `first` (the standard streams, and what is to be handed on) are left to `child`. The caller must have
/// one thread only.
///
/// # Errors
///
/// Fails as `clone3(2)` does.
pub fn spawn_apart(
    first: u32,
    keep: &[BorrowedFd<'_>],
    child: impl FnOnce() -> i32,
) -> Result<Spawned> {
    let mut kept: Vec<u32> = keep
        .iter()
        .map(|fd| fd.as_raw_fd().unsigned_abs())
        .filter(|fd| *fd >= first)
        .collect();
    kept.sort_unstable();
    spawn(Birth::default(), || {
        let mut from = first;
        for fd in kept.iter().copied().chain([u32::MAX]) {
            if from < fd {
                // SAFETY: the frames that own what is closed are never returned to, because this copy ends in
                // `spawn`; `child` was told which descriptors it has.
                unsafe { libc::syscall(libc::SYS_close_range, from, fd.saturating_sub(1), 0) };
            }
            from = fd.saturating_add(1);
        }
        // It is no leader of a group here, so it can lead a session.
        rustix::process::setsid().map(|_| ()).unwrap_or_default();
        child()
    })
}

/// `CLONE_INTO_CGROUP`, which libc declares only as a truncated `c_int`.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::Exit;
    use crate::sys::process::wait;
    use std::os::fd::AsFd;

    #[test]
    fn a_child_ends_with_the_status_its_closure_gave() {
        let child = spawn(Birth::default(), || 7).unwrap();
        assert_eq!(wait(child.pidfd.as_fd()).unwrap(), Exit::Status(7));
    }

    #[test]
    fn a_copy_that_is_apart_has_only_what_it_is_given() {
        let kept = tempfile::tempfile().unwrap();
        let other = tempfile::tempfile().unwrap();
        let numbers = [kept.as_raw_fd(), other.as_raw_fd()];
        let child = spawn_apart(3, &[kept.as_fd()], || {
            let open =
                numbers.map(|fd| std::fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_ok());
            let leads = rustix::process::getsid(None) == Ok(rustix::process::getpid());
            i32::from(open == [true, false] && leads)
        })
        .unwrap();
        assert_eq!(wait(child.pidfd.as_fd()).unwrap(), Exit::Status(1));
    }
}
