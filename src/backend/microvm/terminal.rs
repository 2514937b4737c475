//! The host's end of a program's terminal: its master goes to whoever asked for it, its slave passes every byte on to the
//! guest's terminal, whose line discipline alone counts.

use std::os::fd::AsFd;
use std::os::fd::OwnedFd;

use rustix::pty::OpenptFlags;
use rustix::termios::OptionalActions;

use crate::backend::BackendError;
use crate::plan::step::Console;
use crate::plan::step::Step;
use crate::sys::Result;
use crate::sys::socket;
use crate::sys::tty;

/// The terminal that a plan makes, if it makes one.
pub(super) fn wanted(steps: &[Step]) -> Option<Console> {
    steps.iter().find_map(|step| {
        let Step::Console(console) = step else {
            return None;
        };
        Some(*console)
    })
}

/// Makes a terminal the standard streams of this process and its session's own, and sends its master to `console`.
pub(super) fn open(console: &OwnedFd, size: Console) -> std::result::Result<(), BackendError> {
    make(console, size).map_err(BackendError::kernel("make a terminal"))
}

fn make(console: &OwnedFd, size: Console) -> Result<()> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags)?;
    rustix::pty::unlockpt(&master)?;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    if size.rows != 0 || size.columns != 0 {
        tty::set_size(&slave, size.rows, size.columns)?;
    }
    let mut raw = rustix::termios::tcgetattr(&slave)?;
    raw.make_raw();
    rustix::termios::tcsetattr(&slave, OptionalActions::Now, &raw)?;
    socket::send_with(console.as_fd(), b"/dev/ptmx", &[master.as_fd()])?;
    rustix::process::ioctl_tiocsctty(&slave)?;
    rustix::stdio::dup2_stdin(&slave)?;
    rustix::stdio::dup2_stdout(&slave)?;
    rustix::stdio::dup2_stderr(&slave)
}

/// The size of this process's terminal: rows and columns.
pub(super) fn size() -> Option<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(rustix::stdio::stdin()).ok()?;
    Some((size.ws_row, size.ws_col))
}
