//! The standard streams of a monitor: a program's while one is made, and nobody's otherwise.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::Mode;
use rustix::fs::OFlags;

use crate::monitor::MonitorError;
use crate::monitor::failed;
use crate::monitor::outlet;
use crate::sys::Errno;

/// Points this process's output to these pipes, for a program to inherit, and its input to nowhere unless it is `kept`.
pub(super) fn lead_into(pipes: &[PathBuf; 2], kept: bool) -> Result<(), MonitorError> {
    let pointed = || -> Result<(), Errno> {
        if !kept {
            rustix::stdio::dup2_stdin(nowhere()?)?;
        }
        let [out, err] = pipes;
        rustix::stdio::dup2_stdout(outlet::near_end(out)?)?;
        rustix::stdio::dup2_stderr(outlet::near_end(err)?)
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
