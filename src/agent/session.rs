//! A program that was started for the host: its process, its streams, and who waits for its end.
//!
//! It has ended for those who wait when the process has, and when all that it wrote is on its way to the host.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use rustix::event::EventfdFlags;

use crate::agent::connection::Writer;
use crate::agent::group;
use crate::agent::pump;
use crate::agent::wire::Event;
use crate::agent::wire::Failure;
use crate::agent::wire::Output;
use crate::agent::wire::Stream;
use crate::agent::wire::Streams;
use crate::sys::Errno;
use crate::sys::Result;
use crate::sys::process;
use crate::sys::process::Exit;
use crate::sys::tty;

/// The three descriptors that a program begins with.
pub(super) type Standard = [OwnedFd; 3];

/// The host's ends of a program's streams, by name.
pub(super) type Ends = BTreeMap<Stream, OwnedFd>;

/// Makes what a program reads from and writes to: its own ends, and those that the host will be attached to.
pub(super) fn streams(wanted: Streams) -> Result<(Standard, Ends)> {
    let mut ends = Ends::new();
    let Streams::Pipes {
        input,
        output,
        error,
    } = wanted
    else {
        return Ok(([null()?, null()?, null()?], ends));
    };
    let input = match input {
        true => {
            let (reads, writes) = pump::pipe()?;
            ends.insert(Stream::Input, writes);
            reads
        }
        false => null()?,
    };
    let mut out = |stream, wanted| match wanted {
        Output::Stream => {
            let (reads, writes) = pump::pipe()?;
            ends.insert(stream, reads);
            Ok(writes)
        }
        Output::Nowhere | Output::WithOutput => null(),
    };
    let output_end = out(Stream::Output, output)?;
    let error_end = match error {
        Output::WithOutput => rustix::io::fcntl_dupfd_cloexec(&output_end, 3)?,
        Output::Nowhere | Output::Stream => out(Stream::Error, error)?,
    };
    Ok(([input, output_end, error_end], ends))
}

fn null() -> Result<OwnedFd> {
    rustix::fs::open(
        "/dev/null",
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
}

/// A program.
#[derive(Debug)]
pub(super) struct Session {
    /// How the host calls it.
    pub(super) number: u32,
    /// Its number in the guest.
    pub(super) pid: i32,
    process: OwnedFd,
    terminal: Option<OwnedFd>,
    /// Can be read once the process has ended.
    ended: OwnedFd,
    progress: Mutex<Progress>,
}

/// What has become of it.
#[derive(Debug, Default)]
struct Progress {
    exit: Option<Exit>,
    /// Streams that nobody is attached to yet.
    free: Ends,
    /// Output that is not yet on its way.
    due: BTreeSet<Stream>,
    /// Connections that are read from; they end with the program.
    inputs: Vec<UnixStream>,
    /// Who is told.
    waiting: Vec<Arc<Writer>>,
    told: bool,
}

impl Session {
    /// Takes charge of a program that runs or stands.
    pub(super) fn new(
        number: u32,
        pid: i32,
        process: OwnedFd,
        mut free: Ends,
        terminal: Option<OwnedFd>,
    ) -> Result<Self> {
        if let Some(master) = &terminal {
            let copy = rustix::io::fcntl_dupfd_cloexec(master, 3)?;
            free.insert(Stream::Terminal, copy);
        }
        let due = free.keys().copied();
        let due = due.filter(|stream| *stream != Stream::Input).collect();
        Ok(Self {
            number,
            pid,
            process,
            terminal,
            ended: rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?,
            progress: Mutex::new(Progress {
                free,
                due,
                ..Progress::default()
            }),
        })
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it has ended, and how.
    pub(super) fn exit(&self) -> Option<Exit> {
        self.progress().exit
    }

    /// Notes how the process has ended.
    pub(super) fn over(&self, exit: Exit) {
        let mut progress = self.progress();
        progress.exit = Some(exit);
        for input in progress.inputs.drain(..) {
            // A connection that is gone already is what is wanted.
            input.shutdown(std::net::Shutdown::Read).unwrap_or_default();
        }
        progress.free.remove(&Stream::Input);
        drop(progress);
        rustix::io::write(&self.ended, &1u64.to_ne_bytes())
            .map(drop)
            .unwrap_or_default();
        self.tell();
    }

    /// Tells `writer` when it has ended; at once if it has.
    pub(super) fn subscribe(&self, writer: Arc<Writer>) {
        let mut progress = self.progress();
        if progress.told
            && let Some(exit) = progress.exit
        {
            drop(progress);
            writer.send(&self.exited(exit));
            return;
        }
        progress.waiting.push(writer);
    }

    /// Does not tell `writer` any more.
    pub(super) fn unsubscribe(&self, writer: &Arc<Writer>) {
        let mut progress = self.progress();
        progress.waiting.retain(|one| !Arc::ptr_eq(one, writer));
    }

    /// Tells everybody who waits, once there is nothing more to come.
    fn tell(&self) {
        let mut progress = self.progress();
        let Some(exit) = progress.exit.filter(|_| progress.due.is_empty()) else {
            return;
        };
        progress.told = true;
        let waiting = std::mem::take(&mut progress.waiting);
        drop(progress);
        for writer in waiting {
            writer.send(&self.exited(exit));
        }
    }

    fn exited(&self, exit: Exit) -> Event {
        Event::Exited {
            session: self.number,
            exit,
        }
    }

    /// Ends it without waiting for what it has written: nobody is there to take it.
    pub(super) fn abandon(&self) {
        // It may have ended by itself.
        process::signal(self.process.as_fd(), libc::SIGKILL).unwrap_or_default();
        let mut progress = self.progress();
        let free = std::mem::take(&mut progress.free);
        for stream in free.keys() {
            progress.due.remove(stream);
        }
        drop(progress);
        self.tell();
    }

    /// Sends its process a signal.
    pub(super) fn signal(&self, number: i32) -> std::result::Result<(), Failure> {
        let sent = process::signal(self.process.as_fd(), number);
        sent.map_err(|errno| group::refused(format!("send signal {number}"), errno))
    }

    /// Sets the size of its terminal.
    pub(super) fn resize(&self, rows: u16, columns: u16) -> std::result::Result<(), Failure> {
        let terminal = self.terminal.as_ref().ok_or(Errno::NOTTY);
        let set = terminal.and_then(|terminal| tty::set_size(terminal, rows, columns));
        set.map_err(|errno| group::refused("set the size of the terminal".to_owned(), errno))
    }

    /// Takes the end of a stream, for somebody to be attached to it; each is there once.
    pub(super) fn take(&self, stream: Stream) -> Option<OwnedFd> {
        self.progress().free.remove(&stream)
    }

    /// Carries a stream that was taken, until it is over.
    pub(super) fn carry(&self, stream: Stream, end: &OwnedFd, connection: &UnixStream) {
        match stream {
            Stream::Input => self.carry_in(end, connection),
            Stream::Output | Stream::Error => {
                pump::outward(end, connection, &self.ended);
            }
            Stream::Terminal => std::thread::scope(|scope| {
                // Without a thread for it nothing can be typed, and what is written is still shown.
                std::thread::Builder::new()
                    .stack_size(super::STACK)
                    .spawn_scoped(scope, || self.carry_in(end, connection))
                    .map(drop)
                    .unwrap_or_default();
                pump::outward(end, connection, &self.ended);
                connection
                    .shutdown(std::net::Shutdown::Both)
                    .unwrap_or_default();
            }),
        }
    }

    fn carry_in(&self, end: &OwnedFd, connection: &UnixStream) {
        let Ok(copy) = connection.try_clone() else {
            return;
        };
        let mut progress = self.progress();
        if progress.exit.is_some() {
            return;
        }
        progress.inputs.push(copy);
        drop(progress);
        pump::inward(connection, end);
    }

    /// Notes that all of a stream is on its way, and that no more will come.
    pub(super) fn carried(&self, stream: Stream, connection: &UnixStream) {
        if stream != Stream::Input {
            connection
                .shutdown(std::net::Shutdown::Write)
                .unwrap_or_default();
        }
        self.progress().due.remove(&stream);
        self.tell();
    }
}
