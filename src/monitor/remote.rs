//! A monitor as the `up` that started it sees it.

use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::PollFd;
use rustix::event::PollFlags;

use crate::monitor::MonitorError;
use crate::monitor::failed;
use crate::monitor::line::Line;
use crate::monitor::line::Order;
use crate::monitor::line::Stream;
use crate::monitor::line::Word;
use crate::spec::id::ContainerId;
use crate::sys::Errno;
use crate::sys::process;
use crate::sys::process::Exit;
use crate::sys::process::KILL;
use crate::sys::signal::Signals;
use crate::workspace::error::WorkspaceError;
use crate::workspace::estate;
use crate::workspace::removing;
use crate::workspace::report::Report;
use crate::workspace::store::Store;

/// Signals that concern this process alone: `SIGPIPE`, `SIGCHLD`, `SIGURG`, `SIGWINCH`.
const OWN: [i32; 4] = [13, 17, 23, 28];

/// How long a monitor may take to undo everything.
const PATIENCE: Duration = Duration::from_secs(20);
/// A monitor that this process has started.
#[derive(Debug)]
pub struct Remote {
    store: Store,
    id: ContainerId,
    line: Line,
    process: OwnedFd,
}

impl Remote {
    pub(super) fn new(store: Store, id: ContainerId, line: Line, process: OwnedFd) -> Self {
        Self {
            store,
            id,
            line,
            process,
        }
    }

    /// The name of its workspace.
    #[must_use]
    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    /// Waits until the workspace stands and its program waits for [`Remote::go`].
    ///
    /// # Errors
    ///
    /// [`MonitorError::Said`] says why it does not; nothing is left of it then.
    pub fn until_raised(&self, report: &dyn Report) -> Result<(), MonitorError> {
        self.until(&Word::Raised, report)
    }

    /// Lets the program go.
    pub fn go(&self) {
        // A monitor that has gone is met when it is listened to.
        self.line.order(Order::Go).unwrap_or_default();
    }

    /// Waits until the program runs.
    ///
    /// # Errors
    ///
    /// As [`Remote::until_raised`].
    pub fn until_running(&self, report: &dyn Report) -> Result<(), MonitorError> {
        self.until(&Word::Running, report)
    }

    fn until(&self, wanted: &Word, report: &dyn Report) -> Result<(), MonitorError> {
        loop {
            let heard = self.line.hear().map_err(failed("hear from the monitor"))?;
            match heard {
                Some(word) if word == *wanted => return Ok(()),
                Some(Word::Warning(text)) => report.warning(&text),
                Some(Word::Failed(why)) => {
                    self.collect();
                    return Err(MonitorError::Said(why));
                }
                Some(_) => {}
                None => return Err(self.clean_up(report)),
            }
        }
    }

    /// Undoes everything, and waits until that is done.
    pub fn undo(self, report: &dyn Report) {
        self.line.order(Order::Undo).unwrap_or_default();
        // Whatever it says now is of no interest, but it must not wait for room to say it.
        while let Ok(Some(_)) = self.line.hear() {}
        if !process::ended_within(&self.process, Some(PATIENCE)).unwrap_or(false) {
            process::signal(self.process.as_fd(), KILL).unwrap_or_default();
        }
        self.collect();
        let exists = self.store.root().join(&self.id).exists();
        if exists || estate::place(self.store.places(), &self.id).exists() {
            drop(self.clean_up(report));
        }
    }

    /// Removes what a monitor that was killed cannot remove any more.
    fn clean_up(&self, report: &dyn Report) -> MonitorError {
        self.collect();
        let removed = removing::delete(&self.store, &self.id, true, report)
            .and_then(|()| Ok(estate::discard(&self.store, &self.id).map(drop)?));
        match removed {
            Ok(()) => MonitorError::Gone,
            Err(error) => MonitorError::Workspace(error),
        }
    }

    fn collect(&self) {
        process::wait(self.process.as_fd())
            .map(drop)
            .unwrap_or_default();
    }

    /// Passes on what the program writes, and signals to it, until it has ended; gives how.
    ///
    /// # Errors
    ///
    /// [`MonitorError::Gone`] when the monitor was killed; the workspace may go on then.
    pub fn attend(self, signals: &Signals) -> Result<Option<Exit>, MonitorError> {
        let mut sinks = Sinks::default();
        loop {
            let mut watched = [
                PollFd::new(signals, PollFlags::IN),
                PollFd::new(&self.line, PollFlags::IN),
            ];
            match rustix::event::poll(&mut watched, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(source) => return Err(failed("poll")(source)),
            }
            let said = !watched[1].revents().is_empty();
            self.pass(signals)?;
            if !said {
                continue;
            }
            match self.line.hear().map_err(failed("hear from the monitor"))? {
                Some(Word::Output(stream, bytes)) => sinks.write(stream, &bytes),
                // Nothing of the workspace is left. The monitor goes when the kernel has taken apart what nobody sees.
                Some(Word::Ended(exit)) => return Ok(exit),
                Some(_) => {}
                None => return Err(MonitorError::Gone),
            }
        }
    }
}

impl Remote {
    fn pass(&self, signals: &Signals) -> Result<(), MonitorError> {
        while let Some(number) = signals.next().map_err(failed("read a signal"))? {
            if !OWN.contains(&number) {
                // A monitor that has gone is met when it is listened to.
                self.line.order(Order::Signal(number)).unwrap_or_default();
            }
        }
        Ok(())
    }
}

/// This process's own output, as far as it is wanted there.
#[derive(Debug, Default)]
struct Sinks {
    closed: [bool; 2],
}

impl Sinks {
    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let closed = &mut self.closed[usize::from(stream == Stream::Err)];
        if *closed {
            return;
        }
        let written = match stream {
            Stream::Out => write_all(std::io::stdout(), bytes),
            Stream::Err => write_all(std::io::stderr(), bytes),
        };
        *closed = written.is_err();
    }
}

fn write_all(to: impl AsFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(&to, bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut watched = [PollFd::new(&to, PollFlags::OUT)];
                rustix::event::poll(&mut watched, None)?;
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

impl From<crate::workspace::store::StoreError> for MonitorError {
    fn from(error: crate::workspace::store::StoreError) -> Self {
        WorkspaceError::from(error).into()
    }
}
