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

/// Closes every descriptor from 3 on that is not among these numbers.
///
/// Only for a program that has just begun: nothing else of its own may be open.
pub fn close_all_but(keep: &[RawFd]) {
    let mut kept: Vec<u32> = keep.iter().map(|fd| fd.unsigned_abs()).collect();
    kept.sort_unstable();
    let mut from = 3u32;
    for fd in kept.into_iter().filter(|fd| *fd >= 3).chain([u32::MAX]) {
        if from < fd {
            // SAFETY: this program has just begun, and what it has opened is kept: nobody's descriptor is closed.
            unsafe { libc::syscall(libc::SYS_close_range, from, fd.saturating_sub(1), 0) };
        }
        from = fd.saturating_add(1);
    }
}

/// Leaves a descriptor open at the next `execve(2)`, for a program that is told of it by number.
///
/// # Errors
///
/// None is known for an open descriptor; the kernel's answer is passed on.
pub fn hand_on(fd: BorrowedFd<'_>) -> Result<()> {
    rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())
}

/// The descriptors that this process was started with, behind the three standard streams.
#[derive(Debug)]
pub struct Inherited(Vec<RawFd>);

impl Inherited {
    /// Those that are open now; to be called before the process opens any itself.
    ///
    /// # Errors
    ///
    /// Fails when `/proc` is not mounted.
    pub fn look() -> std::io::Result<Self> {
        let names = std::fs::read_dir("/proc/self/fd")?;
        let names = names.map(|entry| Ok(entry?.file_name()));
        let names: std::io::Result<Vec<_>> = names.collect();
        // The directory itself is among the names, and closed by now.
        let numbers = names?
            .into_iter()
            .filter_map(|name| name.to_str()?.parse().ok())
            .filter(|number| *number > libc::STDERR_FILENO)
            .filter(|number| copy(*number).is_ok());
        Ok(Self(numbers.collect()))
    }

    /// Closes them: what is still needed of them was copied.
    pub fn close(self) {
        for number in self.0 {
            // SAFETY: the descriptor was open before this process opened any, so nothing in it owns the number; it
            // has been open since, so the number is not somebody else's by now.
            unsafe { libc::close(number) };
        }
    }
}
