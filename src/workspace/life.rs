//! One life of a process: a number alone may belong to somebody else by now.

use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use crate::backend::Handle;
use crate::sys::Errno;
use crate::sys::process;
use crate::sys::uptime;

/// A process by its number, when it was started, and in which uptime of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Life {
    /// Its number in the runtime's pid namespace.
    pub pid: i32,
    /// Clock ticks from boot to its start; 0 where what follows tells it from others and nobody asks for this.
    #[serde(default)]
    pub start_time: u64,
    /// The kernel's id of that uptime.
    pub boot: String,
    /// What its handles alone have in that uptime, where the kernel tells ([`process::identity`]): it is found out sooner than
    /// when a process was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<u64>,
}

impl Life {
    /// The life that this number stands for now.
    ///
    /// # Errors
    ///
    /// `ESRCH` when it stands for none.
    pub fn of(pid: i32) -> Result<Self, Errno> {
        Self::begun(Handle {
            pid,
            start_time: process::start_time(pid)?,
            identity: None,
        })
    }

    /// That of this process, by its identity where the kernel tells that.
    ///
    /// # Errors
    ///
    /// Fails when the kernel does not tell: for want of descriptors, say.
    pub fn own() -> Result<Self, Errno> {
        let pid = rustix::process::getpid().as_raw_pid();
        match process::identity(process::open(pid)?)? {
            None => Self::of(pid),
            identity => Self::begun(Handle {
                pid,
                start_time: 0,
                identity,
            }),
        }
    }

    /// The life in this uptime that is known by this.
    ///
    /// # Errors
    ///
    /// As [`boot_id`].
    pub fn begun(known: Handle) -> Result<Self, Errno> {
        Ok(Self {
            pid: known.pid,
            start_time: known.start_time,
            boot: boot_id()?,
            identity: known.identity,
        })
    }

    /// What it is known by in its uptime.
    #[must_use]
    pub fn known(&self) -> Handle {
        Handle {
            pid: self.pid,
            start_time: self.start_time,
            identity: self.identity,
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
            identity: None,
        })
    }

    /// Whether it still goes on; a process whose remains only wait to be collected has ended.
    ///
    /// # Errors
    ///
    /// Fails when the kernel does not tell: for want of descriptors, say.
    pub fn lives(&self) -> Result<bool, Errno> {
        if let Some(identity) = self.identity {
            let found = self.handle(identity)?;
            let ended = found.map(|pidfd| process::ended_within(pidfd, Some(Duration::ZERO)));
            return Ok(!ended.transpose()?.unwrap_or(true));
        }
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
        if let Some(identity) = self.identity {
            return self.handle(identity);
        }
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

    /// A handle with this identity; nothing when the number is nobody's any more, or that of somebody else or of a thread.
    fn handle(&self, identity: u64) -> Result<Option<OwnedFd>, Errno> {
        if self.boot != boot_id()? {
            return Ok(None);
        }
        let pidfd = match process::open(self.pid) {
            Err(Errno::SRCH | Errno::NOENT | Errno::INVAL) => return Ok(None),
            opened => opened?,
        };
        let same = rustix::fs::fstat(&pidfd)?.st_ino == identity;
        Ok(same.then_some(pidfd))
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

/// The kernel's id of this uptime; empty where `/proc` does not have it.
///
/// # Errors
///
/// Fails when it is there and cannot be read: then nothing can be said about lives.
pub fn boot_id() -> Result<String, Errno> {
    match uptime::id() {
        Err(Errno::NOENT) => Ok(String::new()),
        answer => answer,
    }
}

#[cfg(test)]
mod tests {
    use rustix::thread::NanosleepRelativeResult;
    use rustix::thread::Timespec;

    use super::*;
    use crate::sys::clone;
    use crate::sys::clone::Birth;

    fn own() -> Life {
        Life::of(i32::try_from(std::process::id()).unwrap()).unwrap()
    }

    #[test]
    fn a_process_finds_itself_alive_and_no_other_by_its_number() {
        let life = Life::own().unwrap();
        assert!(life.goes_on());
        let other = Life { pid: 1, ..life };
        assert!(!other.goes_on());
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

    /// By what its handles have, where this kernel tells.
    fn known(pid: i32) -> Option<Life> {
        let identity = process::identity(process::open(pid).unwrap()).unwrap()?;
        Some(Life {
            identity: Some(identity),
            ..Life::of(pid).unwrap()
        })
    }

    #[test]
    fn a_process_is_known_by_its_handles_until_it_ends() {
        let child = clone::spawn(Birth::default(), || {
            let long = Timespec {
                tv_sec: 1000,
                tv_nsec: 0,
            };
            i32::from(matches!(
                rustix::thread::nanosleep(&long),
                NanosleepRelativeResult::Ok
            ))
        });
        let child = child.unwrap();
        let Some(life) = known(child.pid) else {
            process::end(child.pidfd.as_fd());
            return;
        };
        assert!(life.goes_on());
        let forged = Life {
            identity: life.identity.map(|number| number + 1),
            ..life.clone()
        };
        assert!(!forged.goes_on());
        assert!(forged.open().unwrap().is_none());
        let earlier = Life {
            boot: "another".to_owned(),
            ..life.clone()
        };
        assert!(!earlier.goes_on());
        life.signal(9).unwrap();
        process::ended_within(&child.pidfd, None).unwrap();
        // Nobody has collected its remains.
        assert!(!life.goes_on());
        assert!(life.open().unwrap().is_some());
        process::wait(child.pidfd.as_fd()).unwrap();
        assert!(life.open().unwrap().is_none());
    }
}
