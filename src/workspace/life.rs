//! One life of a process: a number alone may belong to somebody else by now.

use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use serde::Deserialize;
use serde::Serialize;

use crate::sys::Errno;
use crate::sys::process;
use crate::sys::pseudo;

/// A process by its number, when it was started, and in which uptime of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Life {
    /// Its number in the runtime's pid namespace.
    pub pid: i32,
    /// Clock ticks from boot to its start.
    pub start_time: u64,
    /// The kernel's id of that uptime.
    pub boot: String,
}

impl Life {
    /// The life that this number stands for now.
    ///
    /// # Errors
    ///
    /// `ESRCH` when it stands for none.
    pub fn of(pid: i32) -> Result<Self, Errno> {
        Self::begun(pid, process::start_time(pid)?)
    }

    /// The life in this uptime that is known to have begun then.
    ///
    /// # Errors
    ///
    /// As [`boot_id`].
    pub fn begun(pid: i32, start_time: u64) -> Result<Self, Errno> {
        Ok(Self {
            pid,
            start_time,
            boot: boot_id()?,
        })
    }

    /// It as one line, for [`Life::from_text`].
    #[must_use]
    pub fn text(&self) -> String {
        format!("{} {} {}", self.pid, self.start_time, self.boot)
    }

    /// Reads what [`Life::text`] gave; nothing when it is something else.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        Some(Self {
            pid: words.next()?.parse().ok()?,
            start_time: words.next()?.parse().ok()?,
            boot: words.next()?.to_owned(),
        })
    }

    /// Whether it still goes on; a process whose remains only wait to be collected has ended.
    ///
    /// # Errors
    ///
    /// Fails when the kernel does not tell: for want of descriptors, say.
    pub fn lives(&self) -> Result<bool, Errno> {
        let stat = self.stat()?;
        Ok(stat.is_some_and(|stat| !matches!(stat.state, 'Z' | 'X')))
    }

    /// The same for those who had better take for alive what they cannot find out about.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        self.lives().unwrap_or(true)
    }

    /// A handle to it, or to its remains; nothing when it is gone.
    ///
    /// The number is looked at again after the handle was made: only then is the handle known to be of this life.
    ///
    /// # Errors
    ///
    /// As [`Life::lives`].
    pub fn open(&self) -> Result<Option<OwnedFd>, Errno> {
        let opened = process::open(self.pid);
        if self.stat()?.is_none() {
            return Ok(None);
        }
        match opened {
            Err(Errno::SRCH) => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// Sends it a signal.
    ///
    /// # Errors
    ///
    /// `ESRCH` when it has ended; `EINVAL` for a number that is no signal; `EPERM`.
    pub fn signal(&self, number: i32) -> Result<(), Errno> {
        let pidfd = self.open()?.ok_or(Errno::SRCH)?;
        if !self.lives()? {
            return Err(Errno::SRCH);
        }
        process::signal(pidfd.as_fd(), number)
    }

    fn stat(&self) -> Result<Option<process::Stat>, Errno> {
        let stat = match process::stat(self.pid) {
            Err(Errno::SRCH) => return Ok(None),
            answer => answer?,
        };
        let same = stat.start_time == self.start_time && self.boot == boot_id()?;
        Ok(same.then_some(stat))
    }
}

/// Where the kernel says in which uptime this is.
pub const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The kernel's id of this uptime; empty where `/proc` does not have it.
///
/// # Errors
///
/// Fails when it is there and cannot be read: then nothing can be said about lives.
pub fn boot_id() -> Result<String, Errno> {
    static ID: OnceLock<String> = OnceLock::new();
    if let Some(id) = ID.get() {
        return Ok(id.clone());
    }
    let id = match pseudo::text(BOOT_ID) {
        Err(Errno::NOENT) => String::new(),
        answer => answer?,
    };
    Ok(ID.get_or_init(|| id.trim_end().to_owned()).clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Life {
        Life::of(i32::try_from(std::process::id()).unwrap()).unwrap()
    }

    #[test]
    fn a_life_is_read_from_its_text() {
        assert_eq!(Life::from_text(&own().text()), Some(own()));
        assert_eq!(Life::from_text("1 2"), None);
        assert_eq!(Life::from_text("/sys/fs/cgroup x y"), None);
    }

    #[test]
    fn this_process_is_alive() {
        assert!(own().goes_on());
        own().signal(0).unwrap();
    }

    #[test]
    fn another_process_with_the_same_number_is_not_believed() {
        let forged = Life {
            start_time: own().start_time + 1,
            ..own()
        };
        assert!(!forged.goes_on());
        assert_eq!(forged.signal(0), Err(Errno::SRCH));
    }

    #[test]
    fn a_number_from_before_the_last_boot_is_not_believed() {
        let forged = Life {
            boot: "another".to_owned(),
            ..own()
        };
        assert!(!forged.goes_on());
    }
}
