//! Follows a command through its system calls, and spoils one of them: what `strace --inject` does, for one process.
//!
//! strace counts the calls of each process by itself, so the first calls of a child cannot be spoilt without spoiling
//! the same ones of its parent, before there is a child. Here processes and threads are told apart by the order of
//! their birth. Programs that are executed by others than the first process are not the runtime's: they are let go.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::ptrace::Options;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitPidFlag;
use nix::sys::wait::WaitStatus;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

/// How long a command may take before it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// What happens at a call instead of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The process is killed.
    Kill,
    /// The kernel refuses.
    Refuse(Errno),
}

/// One system call of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    /// Whose it is: 0 is the command itself, 1 the first process or thread that was made.
    pub(crate) who: usize,
    /// Which of that process's calls, from 0.
    pub(crate) index: usize,
    /// The kernel's number of the call.
    pub(crate) number: u64,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// With a status.
    Status(i32),
    /// By a signal.
    Signal(i32),
}

/// A command that was followed to its end.
#[derive(Debug)]
pub(crate) struct Followed {
    /// How it ended.
    pub(crate) end: End,
    /// The calls that it and its children made, as long as they were counted.
    pub(crate) calls: Vec<Call>,
    /// The call that was spoilt.
    pub(crate) spoilt: Option<Call>,
    /// Whether a program of somebody else's had been reached by then: the workspace's, or a hook.
    pub(crate) ran: bool,
    /// How long it took.
    pub(crate) took: Duration,
}

/// Which call is spoilt, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spoil {
    /// Whose call.
    pub(crate) who: usize,
    /// Which of them.
    pub(crate) index: usize,
    /// What happens instead.
    pub(crate) fault: Fault,
    /// Calls that are not to be spoilt, by the kernel's numbers.
    pub(crate) spared: &'static [i64],
}

/// A process that is followed.
#[derive(Debug)]
struct One {
    who: usize,
    calls: usize,
}

/// A command on its way.
struct Tracer {
    leader: Pid,
    wanted: Option<Spoil>,
    /// Whether the shell has become the command.
    begun: bool,
    ones: BTreeMap<Pid, One>,
    born: usize,
    calls: Vec<Call>,
    spoilt: Option<Call>,
    ran: bool,
    end: Option<End>,
}

/// Runs a command to its end, with its standard error in a file, and counts its system calls; `wanted` is spoilt.
pub(crate) fn follow(command: &Command, errors: &Path, wanted: Option<Spoil>) -> Followed {
    #[expect(
        clippy::zombie_processes,
        reason = "it is waited for as all that is traced is"
    )]
    let child = stopped(command, errors);
    let leader = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC;
    ptrace::seize(leader, options).unwrap();
    let begun = Instant::now();
    nix::sys::signal::kill(leader, Signal::SIGCONT).unwrap();
    let mut tracer = Tracer {
        leader,
        wanted,
        begun: false,
        ones: BTreeMap::new(),
        born: 0,
        calls: Vec::new(),
        spoilt: None,
        ran: false,
        end: None,
    };
    tracer.welcome(leader);
    let (over, watch) = mpsc::channel::<()>();
    let guard = std::thread::spawn(move || {
        if watch.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            nix::sys::signal::kill(leader, Signal::SIGKILL).unwrap_or_default();
        }
    });
    let end = loop {
        tracer.next();
        if let Some(end) = tracer.end {
            break end;
        }
    };
    let took = begun.elapsed();
    drop(over);
    guard.join().unwrap();
    tracer.let_go();
    Followed {
        end,
        calls: tracer.calls,
        spoilt: tracer.spoilt,
        ran: tracer.ran,
        took,
    }
}

/// A shell that waits to be followed and then becomes the command.
fn stopped(command: &Command, errors: &Path) -> Child {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "kill -STOP $$; exec \"$@\"", "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    shell.envs(
        command
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    shell
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(errors).unwrap());
    let child = shell.spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let status = waitpid(pid, Some(WaitPidFlag::WUNTRACED)).unwrap();
    assert_eq!(status, WaitStatus::Stopped(pid, Signal::SIGSTOP));
    child
}

impl Tracer {
    /// Takes up a process or thread that was made.
    fn welcome(&mut self, pid: Pid) {
        if self.ones.contains_key(&pid) {
            return;
        }
        let who = self.born;
        self.born += 1;
        self.ones.insert(pid, One { who, calls: 0 });
    }

    /// Waits for what happens next to any of them, and lets that one go on.
    fn next(&mut self) {
        // Other tests are threads of this process: what they wait for is not taken from them.
        let ours = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        let happened = match waitpid(None, Some(ours)) {
            Err(Errno::EINTR) => return,
            Err(Errno::ECHILD) if self.end.is_some() => return self.ones.clear(),
            answer => answer.unwrap(),
        };
        match happened {
            WaitStatus::Exited(pid, status) => self.bury(pid, End::Status(status)),
            WaitStatus::Signaled(pid, signal, _) => self.bury(pid, End::Signal(signal as i32)),
            WaitStatus::PtraceSyscall(pid) => self.at_call(pid),
            WaitStatus::PtraceEvent(pid, _, event) => self.at_event(pid, event),
            // The first process of a pid namespace cannot fail of its own accord as long as it is followed.
            WaitStatus::Stopped(pid, signal @ (Signal::SIGABRT | Signal::SIGSEGV)) => {
                self.leave(pid, Some(signal));
            }
            WaitStatus::Stopped(pid, signal) => self.go_on(pid, Some(signal)),
            WaitStatus::Continued(_) | WaitStatus::StillAlive => {}
        }
    }

    fn bury(&mut self, pid: Pid, end: End) {
        self.ones.remove(&pid);
        if pid == self.leader {
            self.end = Some(end);
        }
    }

    fn at_event(&mut self, pid: Pid, event: i32) {
        self.welcome(pid);
        match event {
            libc::PTRACE_EVENT_EXEC if pid == self.leader => self.begun = true,
            libc::PTRACE_EVENT_EXEC => {
                self.ran |= self.spoilt.is_none();
                return self.leave(pid, None);
            }
            libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK => {
                let made = ptrace::getevent(pid)
                    .ok()
                    .and_then(|pid| pid.try_into().ok());
                if let Some(made) = made {
                    self.welcome(Pid::from_raw(made));
                }
            }
            _ => {}
        }
        self.go_on(pid, None);
    }

    fn at_call(&mut self, pid: Pid) {
        let enters =
            ptrace::syscall_info(pid).is_ok_and(|info| info.op == libc::PTRACE_SYSCALL_INFO_ENTRY);
        if enters && self.begun && self.end.is_none() {
            self.enter(pid);
        }
        self.go_on(pid, None);
    }

    fn enter(&mut self, pid: Pid) {
        let (Some(one), Ok(registers)) = (self.ones.get_mut(&pid), ptrace::getregs(pid)) else {
            return;
        };
        let call = Call {
            who: one.who,
            index: one.calls,
            number: registers.orig_rax,
        };
        one.calls += 1;
        self.calls.push(call);
        let wanted = self
            .wanted
            .filter(|wanted| wanted.who == call.who && wanted.index <= call.index)
            // In another run another call may stand there: then it is the next that can be spoilt.
            .filter(|wanted| !wanted.spared.contains(&call.number.cast_signed()));
        let Some(wanted) = wanted else { return };
        self.wanted = None;
        self.spoilt = Some(call);
        let done = match wanted.fault {
            Fault::Kill => nix::sys::signal::kill(pid, Signal::SIGKILL),
            Fault::Refuse(errno) => refuse(pid, registers, errno),
        };
        done.unwrap();
    }

    /// Lets a process go on: to its next call as long as calls are counted.
    fn go_on(&mut self, pid: Pid, signal: Option<Signal>) {
        if self.end.is_some() {
            return self.leave(pid, signal);
        }
        let done = if self.spoilt.is_some() {
            ptrace::cont(pid, signal)
        } else {
            ptrace::syscall(pid, signal)
        };
        // Somebody may have killed it meanwhile.
        assert!(matches!(done, Ok(()) | Err(Errno::ESRCH)), "{done:?}");
    }

    fn leave(&mut self, pid: Pid, signal: Option<Signal>) {
        self.ones.remove(&pid);
        ptrace::detach(pid, signal).unwrap_or_default();
    }

    /// Leaves all that go on after the command has ended.
    fn let_go(&mut self) {
        for pid in self.ones.keys() {
            ptrace::interrupt(*pid).unwrap_or_default();
        }
        while !self.ones.is_empty() {
            self.next();
        }
    }
}

/// The call is not made, and this is its answer: without a number the kernel leaves the answer as it stands.
fn refuse(pid: Pid, mut registers: libc::user_regs_struct, errno: Errno) -> nix::Result<()> {
    registers.orig_rax = u64::MAX;
    registers.rax = i64::from(-(errno as i32)).cast_unsigned();
    ptrace::setregs(pid, registers)
}
