//! Asks a guest for memory that its workload may not use any more: orders for the balloon of its machine, through a pipe with
//! a name in the workspace's directory.

use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;

use crate::backend::BackendError;
use crate::sys::Errno;
use crate::sys::Result;

/// The pipe.
pub const ORDERS: &str = "balloon";

/// Makes the pipe, for the VMM to read from without waiting. It is open for writing too, so that it never ends.
pub(super) fn make(home: BorrowedFd<'_>) -> Result<OwnedFd> {
    let mode = Mode::RUSR | Mode::WUSR;
    match rustix::fs::mknodat(home, ORDERS, FileType::Fifo, mode, 0) {
        Ok(()) | Err(Errno::EXIST) => open(home, OFlags::RDWR),
        Err(errno) => Err(errno),
    }
}

/// Orders so many bytes to be given back, in all. The guest may take its time, or not do it.
pub(super) fn order(home: BorrowedFd<'_>, bytes: u64) -> std::result::Result<(), BackendError> {
    let failed = BackendError::kernel("order memory back from the machine");
    let written =
        open(home, OFlags::WRONLY).and_then(|pipe| rustix::io::write(&pipe, &bytes.to_le_bytes()));
    match written {
        // One that has ended holds no memory.
        Ok(_) | Err(Errno::NXIO) => Ok(()),
        Err(errno) => Err(failed(errno)),
    }
}

fn open(home: BorrowedFd<'_>, how: OFlags) -> Result<OwnedFd> {
    let flags = how | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(home, ORDERS, flags, Mode::empty())
}
