//! How a process ended that is nobody's child here: read from what it leaves, not collected.

use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;

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
const GET_INFO: u64 = 0xC040_FF0B;

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
    use std::os::fd::AsFd;

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
