//! Stays with a program in the foreground: passes signals in, terminal bytes both ways, and learns how it ended.
//!
//! One `poll(2)` waits for all of it at once: standard input, the terminal's master, signals, and the end.

use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use nix::sys::wait::Id;
use nix::sys::wait::WaitPidFlag;
use nix::sys::wait::waitid;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::fs::OFlags;

use crate::sys::Errno;
use crate::sys::process;
use crate::sys::process::Exit;
use crate::sys::signal::Signals;
use crate::sys::tty;
use crate::sys::tty::Raw;
use crate::workspace::notify::Notify;

/// How many bytes are passed on at once.
const CHUNK: usize = 4096;

/// Something about a program in the foreground failed.
#[derive(Debug, thiserror::Error)]
pub enum ForegroundError {
    /// A call that it depends on failed.
    #[error("cannot {what}")]
    Failed {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: Errno,
    },
}

/// A program that runs in the foreground of this process.
#[derive(Debug)]
pub struct Foreground<'a> {
    /// The handle of the program, a child of this process.
    pub program: BorrowedFd<'a>,
    /// Its number.
    pub pid: i32,
    /// Signals that arrive here.
    pub signals: &'a Signals,
    /// The master of its terminal, when it has one.
    pub terminal: Option<OwnedFd>,
    /// Whom to tell when it says that it is ready.
    pub notify: Option<Notify>,
}

impl Foreground<'_> {
    /// Stays until the program has ended and all that it wrote to its terminal has been passed on.
    ///
    /// # Errors
    ///
    /// [`ForegroundError`] when this process's own streams or signals cannot be used.
    pub fn stay(mut self) -> Result<Exit, ForegroundError> {
        let mut relay = self.terminal.take().map(Relay::new).transpose()?;
        loop {
            let happened = self.wait(relay.as_ref())?;
            if happened.signal {
                self.pass_signals(relay.as_ref())?;
            }
            if let Some(relay) = &mut relay {
                relay.pass(happened.input, happened.output);
            }
            if happened.notice
                && self
                    .notify
                    .as_ref()
                    .is_some_and(|notify| notify.pass_on(self.pid))
            {
                self.notify = None;
            }
            let ended = process::try_wait(self.program).map_err(failed("wait for the program"))?;
            if let Some(exit) = ended {
                relay.iter_mut().for_each(Relay::drain);
                return Ok(exit);
            }
        }
    }

    fn wait(&self, relay: Option<&Relay>) -> Result<Happened, ForegroundError> {
        let stdin = std::io::stdin();
        let mut watched = vec![
            PollFd::new(&self.program, PollFlags::IN),
            PollFd::new(self.signals, PollFlags::IN),
        ];
        let notify = self.notify.as_ref().map(|notify| {
            watched.push(PollFd::new(notify, PollFlags::IN));
            watched.len() - 1
        });
        let terminal = relay.filter(|relay| relay.open).map(|relay| {
            watched.push(PollFd::new(&relay.master, relay.interest()));
            watched.len() - 1
        });
        let input = relay.filter(|relay| relay.wants_input()).map(|_| {
            watched.push(PollFd::new(&stdin, PollFlags::IN));
            watched.len() - 1
        });
        match rustix::event::poll(&mut watched, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(source) => return Err(failed("poll")(source)),
        }
        let ready = |at: Option<usize>| at.is_some_and(|at| !watched[at].revents().is_empty());
        Ok(Happened {
            signal: ready(Some(1)),
            notice: ready(notify),
            output: ready(terminal),
            input: ready(input),
        })
    }

    /// Signals that concern this process's own children or terminal are dealt with here, the others passed in.
    fn pass_signals(&self, relay: Option<&Relay>) -> Result<(), ForegroundError> {
        while let Some(signal) = self.signals.next().map_err(failed("read a signal"))? {
            match signal {
                libc::SIGCHLD => self.collect_others(),
                libc::SIGPIPE | libc::SIGURG => {}
                libc::SIGWINCH if relay.is_some() => relay.iter().for_each(|relay| relay.resize()),
                // It has ended: the loop is about to see that.
                other => process::signal(self.program, other).unwrap_or_default(),
            }
        }
        Ok(())
    }

    /// Collects children that were left to this process, but not the program itself.
    fn collect_others(&self) {
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let take = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
        while let Some(pid) = waitid(Id::All, look).ok().and_then(|ended| ended.pid()) {
            if pid.as_raw() == self.pid || waitid(Id::Pid(pid), take).is_err() {
                return;
            }
        }
    }
}

/// What one wait brought.
#[derive(Debug)]
struct Happened {
    signal: bool,
    notice: bool,
    output: bool,
    input: bool,
}

/// Carries bytes between this process's streams and a terminal's master.
#[derive(Debug)]
struct Relay {
    master: OwnedFd,
    open: bool,
    input_open: bool,
    pending: Vec<u8>,
    _raw: Option<Raw>,
}

impl Relay {
    fn new(master: OwnedFd) -> Result<Self, ForegroundError> {
        rustix::fs::fcntl_setfl(&master, OFlags::NONBLOCK).map_err(failed("use the terminal"))?;
        let stdin = std::io::stdin();
        let raw = if tty::is_terminal(&stdin) {
            Some(Raw::enter(&stdin).map_err(failed("put the terminal into raw mode"))?)
        } else {
            None
        };
        let relay = Self {
            master,
            open: true,
            input_open: true,
            pending: Vec::new(),
            _raw: raw,
        };
        relay.resize();
        Ok(relay)
    }

    /// What is waited for at the master: output always, room for input when there is some.
    fn interest(&self) -> PollFlags {
        if self.pending.is_empty() {
            PollFlags::IN
        } else {
            PollFlags::IN | PollFlags::OUT
        }
    }

    fn wants_input(&self) -> bool {
        self.open && self.input_open && self.pending.is_empty()
    }

    /// The program's terminal gets the size of ours; standard input may be none.
    fn resize(&self) {
        tty::copy_size(std::io::stdin(), &self.master).unwrap_or_default();
    }

    fn pass(&mut self, input: bool, output: bool) {
        if input {
            self.take_input();
        }
        if !self.pending.is_empty() {
            self.give_input();
        }
        if output {
            self.pass_output();
        }
    }

    fn take_input(&mut self) {
        let mut buffer = [0; CHUNK];
        match rustix::io::read(std::io::stdin(), &mut buffer) {
            Ok(length) if length > 0 => self.pending.extend_from_slice(&buffer[..length]),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Ok(_) | Err(_) => self.input_open = false,
        }
    }

    fn give_input(&mut self) {
        match rustix::io::write(&self.master, &self.pending) {
            Ok(length) => drop(self.pending.drain(..length)),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => self.pending.clear(),
        }
    }

    /// Passes on one chunk. The master fails with `EIO` when no slave is open any more.
    fn pass_output(&mut self) {
        let mut buffer = [0; CHUNK];
        match rustix::io::read(&self.master, &mut buffer) {
            Ok(length) if length > 0 => write_all(&buffer[..length]),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Ok(_) | Err(_) => self.open = false,
        }
    }

    /// Passes on what is left in the terminal: until it hangs up, or nothing comes although others have it open.
    fn drain(&mut self) {
        let patience = rustix::time::Timespec {
            tv_sec: 0,
            tv_nsec: 100_000_000,
        };
        while self.open {
            let mut watched = [PollFd::new(&self.master, PollFlags::IN)];
            let ready = rustix::event::poll(&mut watched, Some(&patience)).unwrap_or_default();
            if ready == 0 {
                return;
            }
            self.pass_output();
        }
    }
}

/// Writes to standard output, as long as it is wanted there.
fn write_all(mut bytes: &[u8]) {
    let stdout = std::io::stdout();
    while !bytes.is_empty() {
        match rustix::io::write(&stdout, bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut watched = [PollFd::new(&stdout, PollFlags::OUT)];
                rustix::event::poll(&mut watched, None).unwrap_or_default();
            }
            Err(_) => return,
        }
    }
}

fn failed(what: &'static str) -> impl FnOnce(Errno) -> ForegroundError {
    move |source| ForegroundError::Failed { what, source }
}
