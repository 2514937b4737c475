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
/// The group of the kernel's threads for its devices.
pub const VHOST: &str = "vhost";

/// The parts of a cgroup.
#[derive(Debug)]
pub struct Parts {
    /// Its processors.
    pub vcpu: Part,
    /// Its other threads.
    pub vmm: Part,
    /// Its file server.
    pub files: Part,
}

/// A part of a cgroup.
#[derive(Debug)]
pub struct Part {
    /// Its directory, for a process to be born in.
    pub directory: OwnedFd,
    /// Its `cgroup.threads`, open for writing.
    pub threads: OwnedFd,
}

/// Divides a cgroup. Nothing when its kernel or its place does not let it: what is in it is then counted as one.
#[must_use]
pub fn divide(whole: BorrowedFd<'_>) -> Option<Parts> {
    let parts = || {
        Ok::<_, Errno>(Parts {
            files: part(whole, FILES)?,
            vcpu: part(whole, VCPU)?,
            vmm: part(whole, VMM)?,
        })
    };
    parts().ok()
}

fn part(whole: BorrowedFd<'_>, name: &str) -> Result<Part> {
    match rustix::fs::mkdirat(whole, name, Mode::from(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(whole, name, flags, Mode::empty())?;
    let kind = open(directory.as_fd(), "cgroup.type")?;
    rustix::io::write(&kind, b"threaded")?;
    let threads = open(directory.as_fd(), "cgroup.threads")?;
    Ok(Part { directory, threads })
}

fn open(part: BorrowedFd<'_>, file: &str) -> Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(part, file, flags, Mode::empty())
}
