//! A machine that stands: waits for the start of its program, and then for its end.

use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::PollFd;
use rustix::event::PollFlags;

use super::Result;
use super::process::Vmm;
use crate::agent::client::Client;
use crate::agent::wire;
use crate::agent::wire::Event;
use crate::agent::wire::Request;
use crate::backend::BackendError;
use crate::backend::distant;
use crate::backend::microvm::ENDED;
use crate::backend::microvm::LAST_WORD;
use crate::backend::microvm::pump::Pumps;
use crate::backend::microvm::report::Reporter;
use crate::backend::microvm::talk;
use crate::enclosure::counters::machine::LastWord;
use crate::enclosure::counters::machine::MachineWatch;
use crate::init;
use crate::sys::Errno;
use crate::sys::process::Exit;
use crate::sys::socket;

/// The status of a workspace whose machine ended before its program did: as one that was killed.
const LOST: i32 = 128 + libc::SIGKILL;
/// How long a machine may take to be gone that was told to switch itself off.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same for one whose agent has hung up: it is off already, or its guest has something else in mind.
const HUNG_UP: Duration = Duration::from_millis(700);

/// A machine in which the program waits for its start.
pub(super) struct Standing {
    pub(super) home: OwnedFd,
    pub(super) start: Option<OwnedFd>,
    pub(super) vmm: Vmm,
    pub(super) counters: Option<MachineWatch>,
    pub(super) agent: Client,
    pub(super) pumps: Pumps,
}

impl Standing {
    /// Stays until the end; gives the status of the program.
    pub(super) fn stay(mut self, mut reporter: Reporter) -> i32 {
        match self.begin(&mut reporter) {
            Ok(true) => {}
            Ok(false) => return self.leave(None),
            Err(error) => {
                reporter.failed(self.vmm.explain(error));
                return init::FAILED;
            }
        }
        drop(reporter);
        let session = wire::WORKLOAD;
        let exit = match self.agent.ask(&Request::Wait { session }) {
            Ok(Event::Exited { exit, .. }) => Some(exit),
            // Without an answer the machine has ended, or will.
            _ => None,
        };
        self.leave(exit)
    }

    /// Waits until it is told to start the program, and starts it; false when the machine ended before.
    fn begin(&mut self, reporter: &mut Reporter) -> Result<bool> {
        if !self.await_start(reporter)? {
            return Ok(false);
        }
        match self.agent.ask(&Request::Start) {
            Ok(Event::Started { .. }) => {}
            Ok(Event::Failed(failure)) => return Err(distant::understand(failure, &[])),
            Ok(_) => return Err(BackendError::OutOfTurn),
            Err(error) => return Err(talk::failed(&error)),
        }
        // From here on nobody listens, and everybody can see that it runs.
        self.start = None;
        reporter.close();
        Ok(true)
    }

    /// As long as the socket listens the workspace is created and does not run.
    fn await_start(&self, reporter: &mut Reporter) -> Result<bool> {
        let Some(listener) = &self.start else {
            return reporter.wait().map(|()| true);
        };
        reporter.close();
        loop {
            let mut watched = [
                PollFd::new(listener, PollFlags::IN),
                PollFd::from_borrowed_fd(self.vmm.process(), PollFlags::IN),
            ];
            match rustix::event::poll(&mut watched, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(BackendError::kernel("wait for the start")(errno)),
            }
            if !watched[1].revents().is_empty() {
                return Ok(false);
            }
            if watched[0].revents().is_empty() {
                continue;
            }
            let caller = socket::accept(listener.as_fd())
                .map_err(BackendError::kernel("hear of the start"))?;
            reporter.over(caller);
            // Who connects and goes away has changed its mind.
            if reporter.wait().is_ok() {
                return Ok(true);
            }
        }
    }

    /// Passes on what is left, waits for the machine, and writes down why it ended when that was not as it should.
    fn leave(mut self, exit: Option<Exit>) -> i32 {
        if let Some(exit) = exit {
            self.pumps.finish();
            let word = last_word(exit, self.counters.as_ref(), &mut self.agent);
            if let Ok(text) = serde_json::to_vec(&word) {
                note(&self.home, LAST_WORD, &text);
            }
            self.counters = None;
            // Others who talk to the agent must not keep the machine on. When there is no answer it is off already, or
            // will be.
            let bounded = self.agent.connection().set_read_timeout(Some(PATIENCE));
            drop(bounded.map(|()| self.agent.ask(&Request::Shutdown)));
        }
        let patience = exit.map_or(HUNG_UP, |_| PATIENCE);
        let why = self.vmm.finish(patience);
        let Some(exit) = exit else {
            let why = why.unwrap_or_else(|| "the guest switched its machine off".to_owned());
            note(&self.home, ENDED, why.as_bytes());
            return LOST;
        };
        exit.code()
    }
}

/// What nobody can find out when the machine has ended: what it has cost, and how its program ended.
fn last_word(exit: Exit, counters: Option<&MachineWatch>, agent: &mut Client) -> LastWord {
    let oom_kills = match agent.ask(&Request::Usage) {
        Ok(Event::Usage(usage)) => usage.oom_kills,
        _ => 0,
    };
    LastWord {
        exit,
        counters: counters.and_then(|counters| counters.read().ok()),
        oom_kills,
    }
}

/// Writes something down about a machine that ends; that it cannot be written keeps nobody from ending.
fn note(home: &OwnedFd, name: &str, words: &[u8]) {
    use rustix::fs::Mode;
    use rustix::fs::OFlags;
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(home, name, flags, Mode::from(0o600));
    file.and_then(|file| rustix::io::write(&file, words))
        .map(drop)
        .unwrap_or_default();
}
