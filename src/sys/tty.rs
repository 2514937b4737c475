//! Terminals: raw mode that ends with its guard, and window sizes.

use std::os::fd::AsFd;
use std::os::fd::OwnedFd;

use rustix::termios::OptionalActions;
use rustix::termios::Termios;
use rustix::termios::Winsize;

use crate::sys::Result;

/// A terminal that passes every byte on as it is, until this value is dropped.
#[derive(Debug)]
pub struct Raw {
    terminal: OwnedFd,
    before: Termios,
}

impl Raw {
    /// Puts `terminal` into raw mode.
    ///
    /// # Errors
    ///
    /// `ENOTTY` when it is no terminal (`tcsetattr(3)`).
    pub fn enter(terminal: impl AsFd) -> Result<Self> {
        let terminal = rustix::io::fcntl_dupfd_cloexec(&terminal, 3)?;
        let before = rustix::termios::tcgetattr(&terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(&terminal, OptionalActions::Drain, &raw)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // The terminal may be gone by now; then there is nothing to restore.
        rustix::termios::tcsetattr(&self.terminal, OptionalActions::Drain, &self.before)
            .unwrap_or_default();
    }
}

/// Whether this is a terminal.
#[must_use]
pub fn is_terminal(fd: impl AsFd) -> bool {
    rustix::termios::isatty(fd)
}

/// Gives terminal `to` the window size of terminal `from`.
///
/// # Errors
///
/// `ENOTTY` when either is no terminal.
pub fn copy_size(from: impl AsFd, to: impl AsFd) -> Result<()> {
    let size = rustix::termios::tcgetwinsize(from)?;
    rustix::termios::tcsetwinsize(to, size)
}

/// Sets the window size of a terminal.
///
/// # Errors
///
/// `ENOTTY` when it is no terminal.
pub fn set_size(terminal: impl AsFd, rows: u16, columns: u16) -> Result<()> {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(terminal, size)
}
