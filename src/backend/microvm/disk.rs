//! Opens the disks of a machine, and sees to it that nobody who asks writes to one that somebody else has.

use std::os::fd::OwnedFd;

use rustix::fs::FileType;
use rustix::fs::FlockOperation;
use rustix::fs::Mode;
use rustix::fs::OFlags;

use crate::backend::BackendError;
use crate::plan::machine::Disk;
use crate::sys::Errno;
use crate::sys::Result;

/// Opens a disk. Two kernels that write to one file system destroy it, so a writer has it alone: among machines by a lock
/// (`flock(2)`), which lasts as long as any copy of the descriptor, and on a block device among all by `O_EXCL`, which a
/// mount holds too.
pub(super) fn open(wanted: &Disk) -> std::result::Result<OwnedFd, BackendError> {
    let path = wanted.path.display();
    opened(wanted).map_err(|errno| match errno {
        Errno::BUSY | Errno::AGAIN => BackendError::Machine(format!(
            "mounts[].source: {path} is in use; a machine that writes to a disk has it alone"
        )),
        errno => BackendError::kernel(format!("open {path} as a disk"))(errno),
    })
}

fn opened(wanted: &Disk) -> Result<OwnedFd> {
    let found = rustix::fs::stat(&wanted.path)?;
    let block = FileType::from_raw_mode(found.st_mode) == FileType::BlockDevice;
    let (how, lock) = match wanted.read_only {
        true => (OFlags::RDONLY, FlockOperation::NonBlockingLockShared),
        false if block => (
            OFlags::RDWR | OFlags::EXCL,
            FlockOperation::NonBlockingLockExclusive,
        ),
        false => (OFlags::RDWR, FlockOperation::NonBlockingLockExclusive),
    };
    let file = rustix::fs::open(&wanted.path, how | OFlags::CLOEXEC, Mode::empty())?;
    rustix::fs::flock(&file, lock)?;
    Ok(file)
}
