//! Making a process: one `clone3(2)` that places, contains and names it at birth.

use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;

use crate::sys::Result;
use crate::sys::checked;

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
/// Fails as `clone3(2)` does; `EBUSY` means that the cgroup is not a leaf, `EPERM` that a namespace
/// needs privileges.
pub fn spawn(birth: Birth<'_>, child: impl FnOnce() -> i32) -> Result<Spawned> {
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
}
