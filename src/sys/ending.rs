//! How a process ended that is nobody's child here: read from what it leaves, not collected.

use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;

use netlink_sys::Socket;
use netlink_sys::SocketAddr;

use crate::sys::Errno;
use crate::sys::Result;
use crate::sys::checked;
use crate::sys::process::Exit;

/// `struct pidfd_info` of `linux/pidfd.h` in its first size.
#[repr(C)]
#[derive(Debug, Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// `PIDFD_INFO_EXIT`: ask for, and be given, how the process ended (Linux 6.15).
const INFO_EXIT: u64 = 1 << 3;
/// `PIDFD_GET_INFO`: `_IOWR(0xFF, 11, struct pidfd_info)` with the structure's 64 bytes.
const GET_INFO: libc::Ioctl = 0xC040_FF0B_u32 as libc::Ioctl;

/// How the process behind `process` ended, after its parent has collected it.
///
/// Gives nothing while it has not been collected, and on kernels before 6.15.
///
/// # Errors
///
/// `ENOTTY` on kernels before 6.13, `ESRCH` when nothing is known of it.
pub fn collected(process: BorrowedFd<'_>) -> Result<Option<Exit>> {
    let mut info = PidfdInfo {
        mask: INFO_EXIT,
        ..PidfdInfo::default()
    };
    // SAFETY: the request number carries the size of `PidfdInfo`, which outlives the call and holds plain numbers only.
    let answer = unsafe { libc::ioctl(process.as_raw_fd(), GET_INFO, &raw mut info) };
    checked(answer.into())?;
    Ok((info.mask & INFO_EXIT != 0).then(|| decoded(info.exit_code)))
}

/// How process `pid`, started at `start_time`, ended, while its parent has not collected it.
///
/// Gives nothing when it has not ended, or is there no more.
///
/// # Errors
///
/// `EIO` when its `stat` has another form than `proc_pid_stat(5)` says (field 52).
pub fn uncollected(pid: i32, start_time: u64) -> Result<Option<Exit>> {
    let Ok(text) = std::fs::read(format!("/proc/{pid}/stat")) else {
        return Ok(None);
    };
    let fields = after_name(&text).ok_or(Errno::IO)?;
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let same = number(19).ok_or(Errno::IO)? == start_time;
    let ended = matches!(fields.first(), Some(&"Z" | &"X"));
    let code = number(49)
        .and_then(|code| i32::try_from(code).ok())
        .ok_or(Errno::IO)?;
    Ok((same && ended).then(|| decoded(code)))
}

/// Hears of the end of every process of the machine: for kernels whose pidfds do not tell (before 6.15), where a parent
/// may collect a process before anybody else has looked.
#[derive(Debug)]
pub struct Obituaries {
    socket: Socket,
}

/// `NETLINK_CONNECTOR`.
const CONNECTOR: isize = 11;
/// `CN_IDX_PROC`, which is its `CN_VAL_PROC` too.
const PROC: u32 = 1;
/// `PROC_CN_MCAST_LISTEN`.
const LISTEN: u32 = 1;
/// `PROC_EVENT_EXIT`.
const EVENT_EXIT: u32 = 0x8000_0000;
/// Where an event begins in a message: after the headers of netlink and of the connector.
const EVENT: usize = 16 + 20;

impl Obituaries {
    /// Begins to listen.
    ///
    /// # Errors
    ///
    /// `EPERM` without `CAP_NET_ADMIN` over the machine; `EPROTONOSUPPORT` without `CONFIG_PROC_EVENTS`.
    pub fn begin() -> Result<Self> {
        let mut socket = Socket::new(CONNECTOR).map_err(|error| errno_of(&error))?;
        socket
            .bind(&SocketAddr::new(0, PROC))
            .map_err(|error| errno_of(&error))?;
        socket
            .set_non_blocking(true)
            .map_err(|error| errno_of(&error))?;
        socket
            .send(&listen_request(), 0)
            .map_err(|error| errno_of(&error))?;
        Ok(Self { socket })
    }

    /// The end of process `pid`, if it is among those heard of since the last call.
    #[must_use]
    pub fn of(&self, pid: i32) -> Option<Exit> {
        let mut found = None;
        let mut message = Vec::with_capacity(256);
        while self.socket.recv(&mut message, 0).is_ok() {
            found = found.or(obituary(&message)
                .filter(|(of, _)| *of == pid)
                .map(|(_, exit)| exit));
            message.clear();
        }
        found
    }
}

impl AsFd for Obituaries {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A netlink message of 40 bytes: its header, the connector's, and the operation.
fn listen_request() -> Vec<u8> {
    const DONE: u16 = 3;
    let mut request = Vec::with_capacity(40);
    request.extend(40u32.to_ne_bytes());
    request.extend(DONE.to_ne_bytes());
    request.extend([0; 10]);
    request.extend(PROC.to_ne_bytes());
    request.extend(PROC.to_ne_bytes());
    request.extend([0; 8]);
    request.extend(4u16.to_ne_bytes());
    request.extend([0; 2]);
    request.extend(LISTEN.to_ne_bytes());
    request
}

/// Whose end a message tells, if it tells of one: the number of the whole process stands behind that of the thread.
fn obituary(message: &[u8]) -> Option<(i32, Exit)> {
    let word = |at: usize| {
        let bytes = message.get(EVENT + at..EVENT + at + 4)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    };
    let (thread, process, code) = (word(16)?, word(20)?, word(24)?);
    let leader = word(0)? == EVENT_EXIT && thread == process;
    leader.then_some((
        i32::try_from(process).ok()?,
        decoded(i32::try_from(code).ok()?),
    ))
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// The fields after the name, which may hold anything.
fn after_name(text: &[u8]) -> Option<Vec<&str>> {
    let close = text.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(text.get(close + 1..)?).ok()?;
    Some(rest.split_ascii_whitespace().collect())
}

/// Reads a status in the form of `wait(2)`.
fn decoded(status: i32) -> Exit {
    match status & 0x7f {
        0 => Exit::Status((status >> 8) & 0xff),
        signal => Exit::Signal(signal),
    }
}

#[cfg(test)]
mod tests {
    use crate::sys::clone;
    use crate::sys::clone::Birth;
    use crate::sys::process;

    use super::*;

    #[test]
    fn a_status_of_wait_is_read() {
        assert_eq!(decoded(0x0300), Exit::Status(3));
        assert_eq!(decoded(9), Exit::Signal(9));
        assert_eq!(decoded(0x8b), Exit::Signal(11));
    }

    #[test]
    fn an_ending_is_seen_before_it_is_collected() {
        let child = clone::spawn(Birth::default(), || 7).unwrap();
        assert!(process::ended_within(&child.pidfd, None).unwrap());
        let start_time = process::start_time(child.pid).unwrap();
        assert_eq!(
            uncollected(child.pid, start_time).unwrap(),
            Some(Exit::Status(7))
        );
        assert_eq!(uncollected(child.pid, start_time + 1).unwrap(), None);
        process::wait(child.pidfd.as_fd()).unwrap();
        assert_eq!(uncollected(child.pid, start_time).unwrap(), None);
    }
}
