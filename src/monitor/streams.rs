//! The standard streams of a monitor: a program's while one is made, and nobody's otherwise.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::Mode;
use rustix::fs::OFlags;

use crate::monitor::MonitorError;
use crate::monitor::failed;
use crate::monitor::outlet;
use crate::sys::Errno;
use crate::workspace::estate;

/// Points this process's output to the pipes, for a program to inherit, and its input to nowhere unless it is `kept`.
pub(super) fn lead_into(directory: &Path, kept: bool) -> Result<(), MonitorError> {
    let pointed = || -> Result<(), Errno> {
        if !kept {
            rustix::stdio::dup2_stdin(nowhere()?)?;
        }
        rustix::stdio::dup2_stdout(outlet::near_end(&directory.join(estate::STDOUT))?)?;
        rustix::stdio::dup2_stderr(outlet::near_end(&directory.join(estate::STDERR))?)
    };
    pointed().map_err(failed("set up the standard streams"))
}

/// Lets go of every stream that was the caller's, or is the program's.
pub(super) fn lead_nowhere() -> Result<(), MonitorError> {
    let pointed = || -> Result<(), Errno> {
        let nowhere = nowhere()?;
        rustix::stdio::dup2_stdin(&nowhere)?;
        rustix::stdio::dup2_stdout(&nowhere)?;
        rustix::stdio::dup2_stderr(&nowhere)
    };
    pointed().map_err(failed("let go of the standard streams"))
}

/// A file that nothing comes from and everything goes to.
fn nowhere() -> Result<OwnedFd, Errno> {
    rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}
