//! What passes between the one who does the steps and the one who started it: a few bytes at a time.

use std::fmt;
use std::os::fd::AsFd;

use rustix::net::RecvFlags;

use crate::plan::step::Barrier;
use crate::sys::Errno;
use crate::sys::Result;

/// The longest message, in bytes: a failure with its detail.
const LONGEST: usize = 2048;

/// Why a step failed, as far as the error number does not say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Reason {
    /// The error number says all.
    Plain = 0,
    /// No file of that name stands in `PATH`.
    NotInPath = 1,
    /// The path of the program leads to nothing.
    NoProgram = 2,
    /// The program may not be executed.
    NotExecutable = 3,
    /// `/proc` or `/sys` of the image is a link or no directory.
    NotOrdinary = 4,
    /// The working directory lies outside the root.
    OutsideRoot = 5,
    /// A file is not the device that it should be.
    WrongDevice = 6,
    /// A mount inside `/proc` that would hide what the kernel says.
    InsideProc = 7,
    /// A hook ended badly; the detail says how.
    Hook = 8,
    /// A hook did not end in time.
    HookTimeout = 9,
    /// The other side went away.
    Abandoned = 10,
    /// A step needs one that has not been done: the plan is wrong.
    Order = 11,
    /// The file system said why.
    Filesystem = 12,
    /// The detail says all.
    Words = 13,
}

impl Reason {
    const ALL: [Self; 14] = [
        Self::Plain,
        Self::NotInPath,
        Self::NoProgram,
        Self::NotExecutable,
        Self::NotOrdinary,
        Self::OutsideRoot,
        Self::WrongDevice,
        Self::InsideProc,
        Self::Hook,
        Self::HookTimeout,
        Self::Abandoned,
        Self::Order,
        Self::Filesystem,
        Self::Words,
    ];

    /// The reason of this number; one that is not known says nothing.
    #[must_use]
    pub fn from_number(number: u16) -> Self {
        Self::ALL
            .into_iter()
            .find(|reason| *reason as u16 == number)
            .unwrap_or(Self::Plain)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain | Self::Words => "",
            Self::NotInPath => "executable file not found in $PATH",
            Self::NoProgram => "no such file or directory",
            Self::NotExecutable => "permission denied",
            Self::NotOrdinary => "must be mounted on ordinary directory",
            Self::OutsideRoot => {
                "current working directory is outside of the root of the container"
            }
            Self::WrongDevice => "what the image has there is not the device that it should be",
            Self::InsideProc => "cannot be mounted because it is inside /proc",
            Self::Hook => "the hook failed",
            Self::HookTimeout => "the hook did not end within its timeout and was killed",
            Self::Abandoned => "the runtime went away",
            Self::Order => "a step that it depends on was not done",
            Self::Filesystem => "the file system refused",
        })
    }
}

/// Why a step failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// The kernel's error number.
    pub errno: Errno,
    /// What the number does not say.
    pub reason: Reason,
    /// Words of a third party: a hook, a file system.
    pub detail: String,
}

impl Trouble {
    /// A failure that the number alone does not explain.
    #[must_use]
    pub fn because(reason: Reason, errno: Errno) -> Self {
        Self {
            errno,
            reason,
            detail: String::new(),
        }
    }
}

impl From<Errno> for Trouble {
    fn from(errno: Errno) -> Self {
        Self::because(Reason::Plain, errno)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let system = std::io::Error::from(self.errno);
        match (self.reason, self.detail.is_empty()) {
            (Reason::Plain, true) => write!(f, "{}", lower(&system.to_string())),
            (Reason::Plain, false) => write!(f, "{}: {}", self.detail, lower(&system.to_string())),
            (Reason::Words, _) => f.write_str(&self.detail),
            (Reason::Hook | Reason::Filesystem, false) => {
                write!(f, "{}: {}", self.reason, self.detail)
            }
            (reason, true) => write!(f, "{reason}"),
            (reason, false) => write!(f, "{reason}: {}", self.detail),
        }
    }
}

/// Callers match the kernel's words in lower case.
fn lower(text: &str) -> String {
    let mut letters = text.chars();
    letters
        .next()
        .map(|first| first.to_lowercase().chain(letters).collect())
        .unwrap_or_default()
}

/// What the one who does the steps says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// It waits at a barrier; one byte lets it go on.
    Reached(Barrier),
    /// A step failed, and it ends.
    Failed {
        /// Which step, counted from 0.
        index: usize,
        /// Why.
        trouble: Trouble,
    },
    /// The process that was made in a second generation, by its number outside.
    Born(i32),
    /// A seccomp filter waits for a listener: the descriptor's number in the sender.
    Listener(i32),
}

impl Message {
    /// Sends it as one record.
    ///
    /// # Errors
    ///
    /// `EPIPE` when nobody listens any more.
    pub fn send(&self, channel: impl AsFd) -> Result<()> {
        let mut bytes = Vec::with_capacity(16);
        let (kind, number, extra): (u16, i32, &str) = match self {
            Self::Reached(Barrier::Outside) => (1, 0, ""),
            Self::Reached(Barrier::RuntimeHooks) => (1, 1, ""),
            Self::Reached(Barrier::Start) => (1, 2, ""),
            Self::Born(pid) => (3, *pid, ""),
            Self::Listener(fd) => (4, *fd, ""),
            Self::Failed { trouble, .. } => (2, trouble.errno.raw_os_error(), &trouble.detail),
        };
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(number.to_ne_bytes());
        if let Self::Failed { index, trouble } = self {
            bytes.extend(u32::try_from(*index).unwrap_or(u32::MAX).to_ne_bytes());
            bytes.extend((trouble.reason as u16).to_ne_bytes());
        }
        bytes.extend(extra.bytes().take(LONGEST - 16));
        // `write(2)` and no other call: under a filter it may be the only one that is allowed.
        loop {
            match rustix::io::write(channel.as_fd(), &bytes) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Receives one record; `None` when the other side has closed.
    ///
    /// # Errors
    ///
    /// `EBADMSG` for bytes that are no message.
    pub fn receive(channel: impl AsFd) -> Result<Option<Self>> {
        let mut bytes = [0u8; LONGEST];
        let length = loop {
            match rustix::net::recv(channel.as_fd(), &mut bytes, RecvFlags::empty()) {
                Ok((length, _)) => break length,
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET) => break 0,
                Err(errno) => return Err(errno),
            }
        };
        if length == 0 {
            return Ok(None);
        }
        Self::decode(bytes.get(..length).unwrap_or_default())
            .map(Some)
            .ok_or(Errno::BADMSG)
    }

    /// Reads a message; none for bytes that are none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first_chunk::<2>()?;
        let (number, rest) = rest.split_first_chunk::<4>()?;
        let number = i32::from_ne_bytes(*number);
        match (u16::from_ne_bytes(*kind), number) {
            (1, 0) => Some(Self::Reached(Barrier::Outside)),
            (1, 1) => Some(Self::Reached(Barrier::RuntimeHooks)),
            (1, 2) => Some(Self::Reached(Barrier::Start)),
            (3, pid) => Some(Self::Born(pid)),
            (4, fd) => Some(Self::Listener(fd)),
            // The numbers that the kernel gives errors; another is none, and makes no message.
            (2, errno @ 1..=4095) => {
                let (index, rest) = rest.split_first_chunk::<4>()?;
                let (reason, detail) = rest.split_first_chunk::<2>()?;
                let trouble = Trouble {
                    errno: Errno::from_raw_os_error(errno),
                    reason: Reason::from_number(u16::from_ne_bytes(*reason)),
                    detail: String::from_utf8_lossy(detail).into_owned(),
                };
                Some(Self::Failed {
                    index: u32::from_ne_bytes(*index) as usize,
                    trouble,
                })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_arrives_as_it_was_sent() {
        let (here, there) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::SEQPACKET,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let trouble = Trouble {
            errno: Errno::PERM,
            reason: Reason::Hook,
            detail: "exit status 1".to_owned(),
        };
        let sent = Message::Failed { index: 7, trouble };
        sent.send(&here).unwrap();
        assert_eq!(Message::receive(&there).unwrap(), Some(sent));
    }

    #[test]
    fn words_of_the_kernel_are_in_lower_case() {
        let trouble = Trouble::from(Errno::NOENT);
        assert_eq!(
            trouble.to_string(),
            "no such file or directory (os error 2)"
        );
    }
}
