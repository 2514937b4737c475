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
        Ok(Self::begun(pid, process::start_time(pid)?))
    }

    /// The life in this uptime that is known to have begun then.
    #[must_use]
    pub fn begun(pid: i32, start_time: u64) -> Self {
        Self {
            pid,
            start_time,
            boot: boot_id(),
        }
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
    #[must_use]
    pub fn goes_on(&self) -> bool {
        self.stat()
            .is_some_and(|stat| !matches!(stat.state, 'Z' | 'X'))
    }

    /// Whether its remains are still there, so that its exit status can be read.
    #[must_use]
    pub fn has_remains(&self) -> bool {
        self.stat().is_some()
    }

    /// A handle to it; nothing when it has ended.
    ///
    /// The number is looked at again after the handle was made: only then is the handle known to be of this life.
    #[must_use]
    pub fn open(&self) -> Option<OwnedFd> {
        let pidfd = process::open(self.pid).ok()?;
        self.has_remains().then_some(pidfd)
    }

    /// Sends it a signal.
    ///
    /// # Errors
    ///
    /// `ESRCH` when it has ended; `EINVAL` for a number that is no signal; `EPERM`.
    pub fn signal(&self, number: i32) -> Result<(), Errno> {
        let pidfd = self.open().filter(|_| self.goes_on()).ok_or(Errno::SRCH)?;
        process::signal(pidfd.as_fd(), number)
    }

    fn stat(&self) -> Option<process::Stat> {
        let stat = process::stat(self.pid).ok()?;
        (stat.start_time == self.start_time && self.boot == boot_id()).then_some(stat)
    }
}

/// The kernel's id of this uptime; empty where `/proc` does not have it.
#[must_use]
pub fn boot_id() -> String {
    static ID: OnceLock<String> = OnceLock::new();
    let read = || {
        let id = pseudo::text("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        id.trim_end().to_owned()
    };
    ID.get_or_init(read).clone()
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
