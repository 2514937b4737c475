//! Namespaces: enter those of others, leave for new ones.

use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;

use crate::sys::Result;
use crate::sys::checked;

/// `CLONE_NEWNET`.
pub const NETWORK: u64 = 0x4000_0000;

/// Enters namespaces: those named by `kinds` of the process behind a pidfd (Linux 5.8), or the one
/// behind a namespace descriptor, which must then be of that kind.
///
/// # Errors
///
/// Fails as `setns(2)` does; `EINVAL` when the descriptor is a namespace of another kind.
pub fn enter(target: BorrowedFd<'_>, kinds: u64) -> Result<()> {
    let kinds = libc::c_int::try_from(kinds & 0x7fff_ffff).unwrap_or(0);
    // SAFETY: plain numbers; the descriptor is alive for the call.
    let done = unsafe { libc::setns(target.as_raw_fd(), kinds) };
    checked(done.into()).map(drop)
}

/// Leaves the namespaces of these kinds for new ones.
///
/// # Errors
///
/// Fails as `unshare(2)` does.
pub fn leave(kinds: u64) -> Result<()> {
    let kinds = libc::c_int::try_from(kinds & 0x7fff_ffff).unwrap_or(0);
    // SAFETY: plain numbers; this process has one thread, so no other is left behind.
    let done = unsafe { libc::unshare(kinds) };
    checked(done.into()).map(drop)
}

/// The `CLONE_NEW*` bit of the namespace behind a descriptor (`ioctl_ns(2)`, Linux 4.11).
///
/// # Errors
///
/// `ENOTTY` when it is no namespace.
pub fn kind(namespace: BorrowedFd<'_>) -> Result<u64> {
    /// `NS_GET_NSTYPE` of `linux/nsfs.h`: `_IO(0xb7, 3)`.
    const GET_TYPE: libc::c_ulong = 0xb703;
    // SAFETY: the request takes no argument; the descriptor is alive for the call.
    let kind = unsafe { libc::ioctl(namespace.as_raw_fd(), GET_TYPE) };
    checked(kind.into()).map(i64::cast_unsigned)
}
