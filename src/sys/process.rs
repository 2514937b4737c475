//! Processes by their pidfd: signal them, wait for them, tell one life of a number from another.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use rustix::process::Pid;
use rustix::process::PidfdFlags;
use rustix::process::WaitId;
use rustix::process::WaitIdOptions;
use serde::Deserialize;
use serde::Serialize;

use crate::defence::Defence;
use crate::sys::Errno;
use crate::sys::Result;
use crate::sys::checked;
use crate::sys::pseudo;

/// The number of `SIGKILL`.
pub const KILL: i32 = 9;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// It returned or called `exit(3)` with this status, 0 to 255.
    Status(i32),
    /// This signal killed it.
    Signal(i32),
}

impl Exit {
    /// The status that a shell would report: the status itself, or 128 + the signal.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::Status(status) => status,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// Waits until a child of this process has ended, and removes its remains.
///
/// # Errors
///
/// `ECHILD` when the process is not a child of the caller (`waitid(2)`, `P_PIDFD`, Linux 5.4).
pub fn wait(child: BorrowedFd<'_>) -> Result<Exit> {
    wait_with(child, WaitIdOptions::EXITED)?.ok_or(Errno::AGAIN)
}

/// Like [`wait`], but gives `None` at once while the child still runs.
///
/// # Errors
///
/// As [`wait`].
pub fn try_wait(child: BorrowedFd<'_>) -> Result<Option<Exit>> {
    wait_with(child, WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
}

fn wait_with(child: BorrowedFd<'_>, options: WaitIdOptions) -> Result<Option<Exit>> {
    loop {
        match rustix::process::waitid(WaitId::PidFd(child), options) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
            Ok(None) => return Ok(None),
            Ok(Some(status)) => {
                let ended = status.exit_status().map(Exit::Status);
                return Ok(ended.or_else(|| status.terminating_signal().map(Exit::Signal)));
            }
        }
    }
}

/// Ends a child that must not go on, and takes its remains away.
pub fn end(child: BorrowedFd<'_>) {
    // Neither can fail in a way that leaves anything to do: the process is gone, or is not our child.
    signal(child, libc::SIGKILL).unwrap_or_default();
    wait(child).map(drop).unwrap_or_default();
}

/// Removes the remains of children that have ended, of all but the one with the number `but`.
pub fn collect_but(but: Option<i32>) {
    use nix::sys::wait::Id;
    use nix::sys::wait::WaitPidFlag;
    use nix::sys::wait::waitid;
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    let take = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
    while let Some(pid) = waitid(Id::All, look).ok().and_then(|ended| ended.pid()) {
        if Some(pid.as_raw()) == but || waitid(Id::Pid(pid), take).is_err() {
            return;
        }
    }
}

/// Removes the remains of any child that has ended, and gives its number and how it ended; `None` when there is none now.
///
/// # Errors
///
/// None is known; the kernel's answer is passed on.
pub fn collect() -> Result<Option<(i32, Exit)>> {
    loop {
        let status = match rustix::process::wait(rustix::process::WaitOptions::NOHANG) {
            Err(Errno::INTR) => continue,
            Err(Errno::CHILD) | Ok(None) => return Ok(None),
            Err(errno) => return Err(errno),
            Ok(Some(status)) => status,
        };
        let (pid, status) = status;
        let ended = status.exit_status().map(Exit::Status);
        if let Some(exit) = ended.or_else(|| status.terminating_signal().map(Exit::Signal)) {
            return Ok(Some((pid.as_raw_pid(), exit)));
        }
    }
}

/// The number under which `/proc` knows the process behind a pidfd. It is another one than the process's maker knows where
/// `/proc` belongs to a PID namespace further out.
///
/// # Errors
///
/// `ESRCH` when the process has ended, or `/proc` does not know it.
pub fn number_in_proc(process: BorrowedFd<'_>) -> Result<i32> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fdinfo/{}", process.as_raw_fd());
    let text = pseudo::record(path)?;
    let number = String::from_utf8_lossy(&text);
    let number = number.lines().find_map(|line| line.strip_prefix("Pid:"));
    number
        .and_then(|number| number.trim().parse().ok())
        .filter(|number| *number > 0)
        .ok_or(Errno::SRCH)
}

/// Opens a handle to the process that has this number now.
///
/// # Errors
///
/// `ESRCH` when there is none (`pidfd_open(2)`, Linux 5.3).
pub fn open(pid: i32) -> Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or(Errno::SRCH)?;
    rustix::process::pidfd_open(pid, PidfdFlags::empty())
}

/// `PIDFS_MAGIC`: the file system that handles to processes belong to (Linux 6.9).
const HANDLES: i64 = 0x5049_4446;

/// The number that a handle to this process has and no other ever will in this uptime; none from a kernel where all
/// handles have the same.
///
/// # Errors
///
/// Fails as `fstat(2)` does.
pub fn identity(process: impl AsFd) -> Result<Option<u64>> {
    let known = rustix::fs::fstatfs(&process)?.f_type == HANDLES;
    let number = rustix::fs::fstat(&process)?.st_ino;
    Ok(known.then_some(number))
}

/// Sends a signal by its number, real-time signals included.
///
/// # Errors
///
/// `ESRCH` when the process has ended, `EINVAL` for a number that is no signal (`pidfd_send_signal(2)`).
pub fn signal(process: BorrowedFd<'_>, number: i32) -> Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: plain numbers and a null pointer, which asks for the default siginfo.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            number,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    checked(sent).map(drop)
}

/// When a process was started, in clock ticks since boot: with the number it names one life.
///
/// # Errors
///
/// `ESRCH` when there is no such process; `EIO` when its `stat` cannot be read (`proc_pid_stat(5)`, field 22).
pub fn start_time(pid: i32) -> Result<u64> {
    Ok(stat(pid)?.start_time)
}

/// What `/proc/PID/stat` says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// The state letter: `R`, `S`, `D`, `T`, `Z`, `X`.
    pub state: char,
    /// What the kernel marks it with (`PF_*` of `linux/sched.h`).
    pub flags: u32,
    /// Clock ticks since boot at which it was started.
    pub start_time: u64,
    /// The processor that it runs on or ran on last, where the kernel tells.
    pub processor: Option<usize>,
}

impl Stat {
    /// Whether it has executed no program since it was born, also while it ends.
    #[must_use]
    pub fn is_without_program(&self) -> bool {
        /// `PF_FORKNOEXEC`.
        const NO_PROGRAM: u32 = 0x40;
        self.flags & NO_PROGRAM != 0
    }
}

/// Reads what the kernel says of a process in one line.
///
/// # Errors
///
/// As [`start_time`].
pub fn stat(pid: i32) -> Result<Stat> {
    let text = pseudo::record(format!("/proc/{pid}/stat")).map_err(|errno| match errno {
        Errno::NOENT => Errno::SRCH,
        other => other,
    })?;
    parse_stat(&text).ok_or(Errno::IO)
}

/// Whether the kernel keeps a signal from a process that did not ask for that: it is the first of its PID namespace, has no
/// handler for the signal and neither holds it back nor ignores it (`pid_namespaces(7)`). Of a process that cannot be looked at that is not known, and not said.
#[must_use]
pub fn is_deaf_to(pid: i32, number: i32) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    deaf(&text, number).unwrap_or_default()
}

fn deaf(status: &str, number: i32) -> Option<bool> {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let numbers: Vec<&str> = field("NSpid:")?.split_ascii_whitespace().collect();
    let set = |name| u64::from_str_radix(field(name)?.trim(), 16).ok();
    let heard = set("SigCgt:")? | set("SigBlk:")? | set("SigIgn:")?;
    let bit = 1_u64.checked_shl(u32::try_from(number - 1).ok()?)?;
    Some(numbers.len() > 1 && numbers.last() == Some(&"1") && heard & bit == 0)
}

/// From here on a panic of any thread ends the whole process, as in a release build: a copy of the process must not unwind
/// into what its parent was doing, and no thread goes on without another.
pub fn abort_on_panic() {
    #[cfg(panic = "unwind")]
    {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |why| {
            usual(why);
            std::process::abort();
        }));
    }
}

/// Fits the heap to a command, which lives for milliseconds (`mallopt(3)`): one for all threads, which wait for the kernel and
/// hardly allocate, so that making a heap for each would be most of what they cost; and it grows by a megabyte at a time,
/// of which the kernel gives what is touched.
pub fn fit_heap() {
    #[cfg(target_env = "gnu")]
    for (setting, value) in [(libc::M_ARENA_MAX, 1), (libc::M_TOP_PAD, 1 << 20)] {
        // SAFETY: plain numbers, before there is a second thread.
        unsafe { libc::mallopt(setting, value) };
    }
}

/// The name may hold anything, brackets too, so fields are counted from the last bracket on.
fn parse_stat(text: &[u8]) -> Option<Stat> {
    let close = text.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(text.get(close + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let flags = fields.nth(5)?.parse().ok()?;
    let start_time = fields.nth(12)?.parse().ok()?;
    let processor = fields.nth(16).and_then(|number| number.parse().ok());
    Some(Stat {
        state,
        flags,
        start_time,
        processor,
    })
}

/// The numbers of a process's children; none where `/proc` does not list them (`CONFIG_PROC_CHILDREN`).
#[must_use]
pub fn children(pid: i32) -> Vec<i32> {
    let list =
        std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_ascii_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

/// The threads of this process but the one that asks; none where `/proc` does not list them.
#[must_use]
pub fn other_threads() -> Vec<Pid> {
    let own = rustix::thread::gettid();
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten();
    threads
        .filter_map(|thread| Pid::from_raw(thread.ok()?.file_name().to_str()?.parse().ok()?))
        .filter(|thread| *thread != own)
        .collect()
}

/// Makes this process unreadable to others of its user: no core dump, no `ptrace(2)`, no `/proc/PID/fd`.
///
/// # Errors
///
/// None is known; the kernel's answer is passed on.
pub fn hide() -> Result<()> {
    if Defence::Hidden.is_out() {
        return Ok(());
    }
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
}

/// Marks every descriptor from `first` on as closed at the next `execve(2)` (`close_range(2)`, Linux 5.11).
///
/// # Errors
///
/// `EINVAL` on a kernel that does not know `CLOSE_RANGE_CLOEXEC`.
pub fn close_on_exec_from(first: u32) -> Result<()> {
    if Defence::Descriptors.is_out() {
        return Ok(());
    }
    // SAFETY: only flags of descriptors change; none is closed.
    let done = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    checked(done).map(drop)
}

/// Whether descriptor `number` is open and was handed over by whoever started this program: what the program itself
/// opens is close-on-exec from birth, and `execve(2)` leaves nothing open that is.
#[must_use]
pub fn is_handed_over(number: u32) -> bool {
    let Ok(number) = libc::c_int::try_from(number) else {
        return false;
    };
    // SAFETY: only flags are read; a descriptor that is not open is an error.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    flags >= 0 && flags & libc::FD_CLOEXEC == 0
}

/// Waits until the process behind `process` has ended, child or not, or `timeout` has passed.
///
/// Gives whether it has ended.
///
/// # Errors
///
/// Fails as `poll(2)` does.
pub fn ended_within(process: impl AsFd, timeout: Option<std::time::Duration>) -> Result<bool> {
    use rustix::event::PollFd;
    use rustix::event::PollFlags;
    let deadline = timeout.map(|timeout| std::time::Instant::now() + timeout);
    loop {
        let left = deadline.map(|end| end.saturating_duration_since(std::time::Instant::now()));
        let left = left
            .map(rustix::time::Timespec::try_from)
            .transpose()
            .map_err(|_| Errno::INVAL)?;
        let mut watched = [PollFd::new(&process, PollFlags::IN)];
        match rustix::event::poll(&mut watched, left.as_ref()) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
            Ok(ready) => return Ok(ready > 0),
        }
    }
}

/// Gives signals back what a program expects to find: none blocked and none ignored.
///
/// The language's start-up code ignores `SIGPIPE`, a caller may ignore others (`nohup(1)`, a shell's background
/// jobs), and ignored signals stay so over `execve(2)`.
///
/// # Errors
///
/// None is known; the kernel's answer is passed on.
pub fn default_signals() -> Result<()> {
    use nix::sys::signal::SigSet;
    use nix::sys::signal::SigmaskHow;
    use nix::sys::signal::sigprocmask;
    // The kernel's `struct sigaction`: handler, flags, restorer and mask, all of them none, for all 64 signals.
    let default = [0_u64; 4];
    let none = std::ptr::null_mut::<u64>();
    for number in 1..=64 {
        // SAFETY: the structure is as long as the kernel's, and the default disposition runs no code of ours. The C library
        // is passed over: it refuses some for its own sake, which its own posix_spawn(3) may have set to be ignored.
        // For SIGKILL and SIGSTOP the kernel refuses, and they need no change.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, number, &raw const default, none, 8) };
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
        .map_err(|errno| Errno::from_raw_os_error(errno as i32))
}

/// Becomes the program at `path`; returns only when that failed.
///
/// # Errors
///
/// Fails as `execve(2)` does.
pub fn execute(
    path: &std::ffi::CStr,
    arguments: &[std::ffi::CString],
    environment: &[std::ffi::CString],
) -> Errno {
    let pointers = |strings: &[std::ffi::CString]| -> Vec<*const libc::c_char> {
        strings
            .iter()
            .map(|text| text.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let (argv, envp) = (pointers(arguments), pointers(environment));
    // SAFETY: both lists end with a null pointer and their strings outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    crate::sys::last_errno()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_a_namespace_hears_what_it_has_asked_for() {
        let status = |numbers: &str, held: &str, caught: &str| {
            format!("NSpid:\t{numbers}\nSigBlk:\t{held}\nSigIgn:\t2\nSigCgt:\t{caught}\n")
        };
        assert_eq!(deaf(&status("77\t1", "0", "0"), 15), Some(true));
        assert_eq!(deaf(&status("77\t1", "0", "4000"), 15), Some(false));
        assert_eq!(deaf(&status("77\t1", "4000", "0"), 15), Some(false));
        assert_eq!(deaf(&status("77\t1", "0", "4000"), 1), Some(true));
        assert_eq!(deaf(&status("77\t1", "0", "4000"), 2), Some(false));
        assert_eq!(deaf(&status("77\t8", "0", "0"), 15), Some(false));
        assert_eq!(deaf(&status("77", "0", "0"), 15), Some(false));
        assert_eq!(deaf("", 15), None);
    }

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let text = b"42 (a) b) (c) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 17 1 0";
        assert_eq!(
            parse_stat(text),
            Some(Stat {
                state: 'S',
                flags: 4_194_560,
                start_time: 98765,
                processor: Some(1)
            })
        );
    }

    #[test]
    fn who_is_killed_before_its_program_is_told_from_who_had_one() {
        use crate::sys::clone;
        let is_without = |pid| stat(pid).unwrap().is_without_program();
        let is_ended_without = |pid| {
            let child = open(pid).unwrap();
            signal(child.as_fd(), 9).unwrap();
            assert!(ended_within(&child, None).unwrap());
            is_without(pid)
        };
        let waits = || loop {
            std::thread::park();
        };
        let copy = clone::spawn(clone::Birth::default(), waits).unwrap();
        assert!(is_without(copy.pid));
        assert!(is_ended_without(copy.pid));
        let mut program = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .unwrap();
        assert!(!is_ended_without(i32::try_from(program.id()).unwrap()));
        program.wait().unwrap();
        wait(copy.pidfd.as_fd()).unwrap();
    }

    #[test]
    fn other_threads_are_all_but_the_one_that_asks() {
        let own = rustix::thread::gettid();
        let seen = std::thread::spawn(move || (rustix::thread::gettid(), other_threads()));
        let (asker, others) = seen.join().unwrap();
        assert!(others.contains(&own));
        assert!(!others.contains(&asker));
    }

    #[test]
    fn a_signal_is_reported_as_a_shell_does() {
        assert_eq!(Exit::Signal(9).code(), 137);
    }
}
