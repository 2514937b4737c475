//! Hands a program to the kernel that it runs at every system call of the caller from then on.

use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::ptr;

use rustix::process::PidfdGetfdFlags;

use crate::sys::Errno;
use crate::sys::Result;
use crate::sys::checked;
use crate::sys::opened;

/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`: the call returns a descriptor.
const NEW_LISTENER: u64 = 1 << 3;

/// Confines the calling thread, and all that it starts, by a program of classic BPF.
///
/// Each instruction is the four fields of `struct sock_filter`; `flags` are `SECCOMP_FILTER_FLAG_*`. There
/// is no way back. The listener is given where the flags ask for one; it is closed on exec.
///
/// # Errors
///
/// As `seccomp(2)`: `EACCES` without `no_new_privs` or `CAP_SYS_ADMIN`, `EINVAL` for a program that the
/// kernel does not take or a flag that it does not know, `EBUSY` where there is a listener already, and
/// `ESRCH` where another thread could not be confined too.
pub fn load(
    instructions: impl IntoIterator<Item = (u16, u8, u8, u32)>,
    flags: u64,
) -> Result<Option<OwnedFd>> {
    let mut filter: Vec<libc::sock_filter> = instructions
        .into_iter()
        .map(|(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k })
        .collect();
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(|_| Errno::INVAL)?,
        filter: filter.as_mut_ptr(),
    };
    let loaded = seccomp(libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)?;
    match loaded {
        listener if flags & NEW_LISTENER != 0 => opened(listener).map(Some),
        0 => Ok(None),
        _thread_left_out => Err(Errno::SRCH),
    }
}

/// Whether the kernel knows an action (`SECCOMP_RET_*`; `SECCOMP_GET_ACTION_AVAIL`, Linux 4.14).
#[must_use]
pub fn knows_action(action: u32) -> bool {
    seccomp(libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action).is_ok()
}

/// Whether the kernel knows a flag of [`load`]. Nothing is loaded: a known flag gets as far as the program,
/// which is missing.
#[must_use]
pub fn knows_flag(flag: u64) -> bool {
    let refused = seccomp::<libc::sock_fprog>(libc::SECCOMP_SET_MODE_FILTER, flag, ptr::null());
    refused == Err(Errno::FAULT)
}

/// A copy of another process's descriptor: how a listener leaves the process that it watches
/// (`pidfd_getfd(2)`, Linux 5.6).
///
/// # Errors
///
/// `EPERM` where the caller may not trace the process, `EBADF` where it has no such descriptor.
pub fn descriptor_of(process: impl AsFd, number: RawFd) -> Result<OwnedFd> {
    rustix::process::pidfd_getfd(process, number, PidfdGetfdFlags::empty())
}

fn seccomp<T>(operation: libc::c_uint, flags: u64, argument: *const T) -> Result<libc::c_long> {
    // SAFETY: `argument` is null or points to what the operation reads, alive for the call; the kernel
    // writes nothing through it.
    checked(unsafe { libc::syscall(libc::SYS_seccomp, operation, flags, argument) })
}

#[cfg(test)]
mod tests {
    use super::knows_action;
    use super::knows_flag;

    #[test]
    fn a_kernel_that_runs_containers_knows_user_notification() {
        assert!(knows_action(libc::SECCOMP_RET_USER_NOTIF));
        assert!(knows_flag(super::NEW_LISTENER));
    }

    #[test]
    fn an_invented_action_or_flag_is_not_known() {
        assert!(!knows_action(0x7f12_0000));
        assert!(!knows_flag(1 << 30));
    }
}
