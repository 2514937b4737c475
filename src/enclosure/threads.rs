//! The parts of a machine's cgroup: its processors, its devices and its file server, each counted for itself.
//!
//! They are groups of threads (`cgroup.type` is `threaded`): limits of memory and of the disk stay those of the whole.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use rustix::fs::Mode;
use rustix::fs::OFlags;

use crate::sys::Errno;
use crate::sys::Result;

/// The group of the threads that are processors of the guest.
pub const VCPU: &str = "vcpu";
/// The group of the VMM's other threads.
pub const VMM: &str = "vmm";
/// The group of the file server.
pub const FILES: &str = "files";

/// The parts of a cgroup.
#[derive(Debug)]
pub struct Parts {
    /// The `cgroup.threads` of the processors, open for writing.
    pub vcpu: OwnedFd,
    /// The same of the VMM.
    pub vmm: OwnedFd,
    /// The directory of the file server's group, to be born in.
    pub files: OwnedFd,
}

/// Divides a cgroup. Nothing when its kernel or its place does not let it: what is in it is then counted as one.
#[must_use]
pub fn divide(whole: BorrowedFd<'_>) -> Option<Parts> {
    let parts = || {
        let files = part(whole, FILES)?;
        Ok::<_, Errno>(Parts {
            vcpu: threads_of(&part(whole, VCPU)?)?,
            vmm: threads_of(&part(whole, VMM)?)?,
            files,
        })
    };
    parts().ok()
}

fn part(whole: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    match rustix::fs::mkdirat(whole, name, Mode::from(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let part = rustix::fs::openat(whole, name, flags, Mode::empty())?;
    let kind = open(part.as_fd(), "cgroup.type")?;
    rustix::io::write(&kind, b"threaded")?;
    Ok(part)
}

fn threads_of(part: &OwnedFd) -> Result<OwnedFd> {
    open(part.as_fd(), "cgroup.threads")
}

fn open(part: BorrowedFd<'_>, file: &str) -> Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(part, file, flags, Mode::empty())
}
