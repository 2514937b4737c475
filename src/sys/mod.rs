//! The kernel, made safe: the only module with `unsafe` in it, without policy of its own.

use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;

pub mod bpf;
pub mod clone;
pub mod ending;
pub mod heap;
pub mod identity;
pub mod inherited;
pub mod interface;
pub mod kvm;
pub mod mapping;
pub mod mount;
pub mod mountinfo;
pub mod namespace;
pub mod path;
pub mod pattern;
pub mod probe;
pub mod process;
pub mod processor;
pub mod program;
pub mod pseudo;
mod rehome;
pub mod route;
pub mod scatter;
pub mod seal;
pub mod seccomp;
pub mod signal;
pub mod socket;
pub mod stream;
pub mod tap;
pub mod tree;
pub mod tty;
pub mod tuning;
pub mod uptime;
pub mod uring;
pub mod vanish;
pub mod vhost;
pub mod vsock;
pub mod words;

pub use rustix::io::Errno;

/// What a call to the kernel gives: a value, or the kernel's reason.
pub type Result<T> = std::result::Result<T, Errno>;

/// Turns the `-1` of a libc call into the kernel's reason.
pub(crate) fn checked(value: libc::c_long) -> Result<libc::c_long> {
    if value < 0 {
        Err(last_errno())
    } else {
        Ok(value)
    }
}

/// The descriptor that a libc call has just opened: for what such a call gave, and for nothing else.
fn opened(value: libc::c_long) -> Result<OwnedFd> {
    let number = RawFd::try_from(checked(value)?).map_err(|_| Errno::BADF)?;
    // SAFETY: the kernel has just opened it for the caller, and nothing else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The reason of the libc call that has just failed on this thread.
pub(crate) fn last_errno() -> Errno {
    Errno::from_raw_os_error(
        std::io::Error::last_os_error()
            .raw_os_error()
            .unwrap_or(libc::EIO),
    )
}
