//! Signals: their names, and their arrival as something that can be polled.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;

use nix::sys::signal::SigSet;
use nix::sys::signal::SigmaskHow;
use nix::sys::signal::Signal;
use nix::sys::signalfd::SfdFlags;
use nix::sys::signalfd::SignalFd;

use crate::sys::Errno;
use crate::sys::Result;

/// The highest real-time signal.
const RTMAX: i32 = 64;
/// The lowest real-time signal that the C library leaves to programs.
const RTMIN: i32 = 34;

/// The number of a signal given by name, with or without `SIG`, in any case, or by number.
#[must_use]
pub fn number(word: &str) -> Option<i32> {
    if let Ok(number) = word.parse::<i32>() {
        return (0..=RTMAX).contains(&number).then_some(number);
    }
    let upper = word.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    match name {
        "IOT" => return Some(Signal::SIGABRT as i32),
        "CLD" => return Some(Signal::SIGCHLD as i32),
        "POLL" => return Some(Signal::SIGIO as i32),
        "RTMIN" => return Some(RTMIN),
        "RTMAX" => return Some(RTMAX),
        _ => {}
    }
    let real_time = name
        .strip_prefix("RTMIN+")
        .map(|more| (RTMIN, 1, more))
        .or_else(|| name.strip_prefix("RTMAX-").map(|less| (RTMAX, -1, less)));
    if let Some((base, sign, offset)) = real_time {
        let offset: i32 = offset
            .parse()
            .ok()
            .filter(|offset| (0..=RTMAX - RTMIN).contains(offset))?;
        return Some(base + sign * offset);
    }
    format!("SIG{name}")
        .parse::<Signal>()
        .ok()
        .map(|signal| signal as i32)
}

/// All signals that can be held back, held back from this process and read here one after the other.
#[derive(Debug)]
pub struct Signals {
    source: SignalFd,
    before: SigSet,
}

impl Signals {
    /// Holds back every signal but those that tell of a fault of the program itself.
    ///
    /// # Errors
    ///
    /// Fails as `signalfd(2)` and `sigprocmask(2)` do.
    pub fn hold() -> Result<Self> {
        let mut held = SigSet::all();
        for fault in [
            Signal::SIGSEGV,
            Signal::SIGBUS,
            Signal::SIGILL,
            Signal::SIGFPE,
            Signal::SIGABRT,
        ] {
            held.remove(fault);
        }
        let before = held
            .thread_swap_mask(SigmaskHow::SIG_BLOCK)
            .map_err(errno)?;
        let source = SignalFd::with_flags(&held, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(errno)?;
        Ok(Self { source, before })
    }

    /// The next signal that has arrived, if one has.
    ///
    /// # Errors
    ///
    /// Fails as `read(2)` does.
    pub fn next(&self) -> Result<Option<i32>> {
        match self.source.read_signal() {
            Ok(signal) => Ok(signal.and_then(|signal| i32::try_from(signal.ssi_signo).ok())),
            Err(error) => Err(errno(error)),
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // Setting a mask that the kernel itself gave cannot fail.
        self.before.thread_set_mask().unwrap_or_default();
    }
}

fn errno(error: nix::errno::Errno) -> Errno {
    Errno::from_raw_os_error(error as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_known_by_name_and_number() {
        for (word, expected) in [
            ("9", 9),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("0", 0),
            ("RTMIN+3", 37),
            ("SIGRTMAX-1", 63),
            ("SIGCLD", 17),
        ] {
            assert_eq!(number(word), Some(expected), "{word}");
        }
    }

    #[test]
    fn what_is_no_signal_is_none() {
        for word in ["", "65", "-1", "SIGNONE", "SIGSIGKILL", "RTMIN+99", "9x"] {
            assert_eq!(number(word), None, "{word}");
        }
    }
}
