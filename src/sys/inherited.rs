//! Descriptors that a process was started with and is told of by number.

use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;

use crate::sys::Errno;
use crate::sys::Result;

/// A copy of an inherited descriptor, closed on exec and by its owner.
///
/// The number itself stays open: whoever was told of it by mistake closes nothing of somebody else's.
///
/// # Errors
///
/// `EBADF` when no such descriptor is open.
pub fn copy(number: RawFd) -> Result<OwnedFd> {
    if number < 0 {
        return Err(Errno::BADF);
    }
    // SAFETY: the borrow lasts for one call, which fails with EBADF when the number is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_dupfd_cloexec(borrowed, libc::STDERR_FILENO + 1)
}
