//! A workspace as it is found again: its record, what has become of it, and what can be done to it as it stands.

use std::os::fd::AsFd;
use std::os::fd::OwnedFd;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;

use crate::backend::microvm;
use crate::enclosure::Enclosure;
use crate::enclosure::EnclosureError;
use crate::host::Kernel;
use crate::spec::id::ContainerId;
use crate::spec::state::Status;
use crate::sys::Errno;
use crate::sys::ending;
use crate::sys::ending::Obituaries;
use crate::sys::process;
use crate::sys::process::Exit;
use crate::sys::process::KILL;
use crate::sys::socket;
use crate::workspace::document::Document;
use crate::workspace::error::WorkspaceError;
use crate::workspace::lifecycle;
use crate::workspace::lifecycle::Event;
use crate::workspace::lifecycle::NotNow;
use crate::workspace::record::Record;
use crate::workspace::record::RecordError;
use crate::workspace::store;
use crate::workspace::store::Home;
use crate::workspace::store::Store;
use crate::workspace::store::StoreError;

/// The annotation that says why a machine ended before its program did.
const LOST: &str = "dev.bulkhead.machine.ended";

/// The first kernel whose pidfds tell how a process ended after its parent has collected it.
const PIDFDS_TELL: Kernel = Kernel {
    major: 6,
    minor: 15,
};

/// A workspace that was found in the store.
#[derive(Debug)]
pub struct Workspace {
    pub(super) home: Home,
    pub(super) record: Record,
}

impl Workspace {
    /// Finds workspace `id`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`] when there is none; [`WorkspaceError::Record`] when its record is damaged.
    pub fn find(store: &Store, id: &ContainerId) -> Result<Self, WorkspaceError> {
        let home = store.open(id)?;
        let record = read_record(&home, id)?;
        Ok(Self { home, record })
    }

    /// Finds it and keeps other commands from changing it meanwhile.
    pub(super) fn find_locked(store: &Store, id: &ContainerId) -> Result<Self, WorkspaceError> {
        let home = store.open(id)?;
        home.lock()?;
        let record = read_record(&home, id)?;
        Ok(Self { home, record })
    }

    /// Its record.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Its directory in the store.
    #[must_use]
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Its enclosure.
    ///
    /// # Errors
    ///
    /// Fails when it has none any more.
    pub fn enclosure(&self) -> Result<Enclosure, WorkspaceError> {
        Ok(Enclosure::open(&self.record.place)?)
    }

    /// Its enclosure; none where the caller does not see cgroups at all.
    fn seen_enclosure(&self) -> Result<Option<Enclosure>, WorkspaceError> {
        match Enclosure::open(&self.record.place) {
            Err(EnclosureError::NotACgroup { .. }) => Ok(None),
            answer => Ok(Some(answer?)),
        }
    }

    /// Where it stands in its life.
    ///
    /// # Errors
    ///
    /// Fails when the kernel does not tell.
    pub fn status(&self) -> Result<Status, WorkspaceError> {
        let Some(init) = &self.record.init else {
            let made = self.record.maker.lives().map_err(WorkspaceError::probe)?;
            return Ok(if made {
                Status::Creating
            } else {
                Status::Stopped
            });
        };
        if !init.lives().map_err(WorkspaceError::probe)? {
            return Ok(Status::Stopped);
        }
        if Enclosure::stands_still(&self.record.place).map_err(WorkspaceError::probe)? {
            return Ok(Status::Paused);
        }
        let waits =
            socket::is_listening(self.home.as_fd(), store::START).map_err(WorkspaceError::probe)?;
        Ok(if waits {
            Status::Created
        } else {
            Status::Running
        })
    }

    /// What `state` prints.
    ///
    /// # Errors
    ///
    /// As [`Workspace::status`].
    pub fn document(&self) -> Result<Document, WorkspaceError> {
        let status = self.status()?;
        let mut document = Document::new(&self.record, status);
        if let Some(why) = self.lost_machine().filter(|_| status == Status::Stopped) {
            document.annotations.insert(LOST.to_owned(), why);
        }
        Ok(document)
    }

    /// Why its machine ended before its program did, when it did.
    fn lost_machine(&self) -> Option<String> {
        self.record.machine?;
        let why = self.home.read(microvm::ENDED).ok().flatten()?;
        Some(String::from_utf8_lossy(&why).into_owned())
    }

    /// The user who made it.
    ///
    /// # Errors
    ///
    /// Fails when its directory cannot be looked at.
    pub fn owner(&self) -> Result<u32, WorkspaceError> {
        Ok(self.home.owner()?)
    }

    /// The numbers of all its processes.
    ///
    /// # Errors
    ///
    /// Fails when its cgroup cannot be read; without a cgroup of its own, only its first process is known.
    pub fn processes(&self) -> Result<Vec<i32>, WorkspaceError> {
        if self.record.place.directory().is_some() {
            return Ok(self.enclosure()?.processes()?);
        }
        let init = self.record.init.as_ref().filter(|init| init.goes_on());
        Ok(init.map(|init| init.pid).into_iter().collect())
    }

    /// Stops every process where it stands.
    ///
    /// # Errors
    ///
    /// [`NotNow`] unless it runs or is created.
    pub fn pause(&self) -> Result<(), WorkspaceError> {
        lifecycle::after(self.status()?, Event::Pause)?;
        Ok(self.enclosure()?.freeze()?)
    }

    /// Lets its processes go on.
    ///
    /// # Errors
    ///
    /// [`NotNow`] unless it is paused.
    pub fn resume(&self) -> Result<(), WorkspaceError> {
        lifecycle::after(self.status()?, Event::Resume)?;
        self.enclosure()?.thaw()?;
        match self.wall().inside() {
            Some(inside) => Ok(inside.set_time()?),
            None => Ok(()),
        }
    }

    /// Sends a signal to its first process.
    ///
    /// `SIGKILL` goes to every process when the first shares its pid namespace, since its end would not end them.
    ///
    /// # Errors
    ///
    /// [`NotNow`] with "container not running" when it has ended.
    pub fn signal(&self, number: i32) -> Result<(), WorkspaceError> {
        let ended = NotNow {
            state: Status::Stopped,
            event: Event::Exit,
        };
        if number == KILL && self.record.shared_pids && self.has_cgroup()? {
            return self.kill_all(ended);
        }
        let init = self.record.init.as_ref().ok_or(ended)?;
        if self.record.machine.is_some() && number != 0 {
            let process = self.open_first()?.ok_or(ended)?;
            if microvm::is_told_inside(number) {
                self.answers()?;
            }
            return Ok(self.wall().signal(process.as_fd(), number)?);
        }
        match init.signal(number) {
            Err(Errno::SRCH) => Err(ended.into()),
            answer => answer.map_err(|source| WorkspaceError::Signal { number, source }),
        }
    }

    /// Whether it has a cgroup in which nobody else is.
    fn has_cgroup(&self) -> Result<bool, WorkspaceError> {
        Ok(self.home.noted(store::CGROUP)?.is_some())
    }

    /// A handle to its first process; nothing when it has none any more.
    ///
    /// # Errors
    ///
    /// Fails when the kernel does not tell.
    pub fn open_first(&self) -> Result<Option<OwnedFd>, WorkspaceError> {
        let init = self.record.init.as_ref();
        let opened = init.map(|init| init.open()).transpose();
        Ok(opened.map_err(WorkspaceError::probe)?.flatten())
    }

    fn kill_all(&self, ended: NotNow) -> Result<(), WorkspaceError> {
        let enclosure = self.enclosure().map_err(|_| ended)?;
        if enclosure.processes()?.is_empty() {
            return Err(ended.into());
        }
        Ok(enclosure.kill()?)
    }

    /// Sends a signal to every process; that there is none is no failure.
    ///
    /// # Errors
    ///
    /// Fails when its cgroup cannot be read, or a process not be signalled.
    pub fn signal_all(&self, number: i32) -> Result<(), WorkspaceError> {
        if !self.has_cgroup()? {
            return match self.signal(number) {
                Err(WorkspaceError::NotNow(_)) => Ok(()),
                answer => answer,
            };
        }
        let Some(enclosure) = self.seen_enclosure()? else {
            return Ok(());
        };
        if number == KILL {
            return Ok(enclosure.kill()?);
        }
        if let Some(inside) = self.wall().inside() {
            if matches!(self.status()?, Status::Stopped) {
                return Ok(());
            }
            self.answers()?;
            return Ok(inside.signal_all(number)?);
        }
        for pid in enclosure.processes()? {
            signal_member(&enclosure, pid, number)?;
        }
        Ok(())
    }

    /// Waits for the end of its first process and gives how it ended; nothing when nobody can know any more.
    ///
    /// # Errors
    ///
    /// Fails when the kernel does not tell.
    pub fn wait(&self) -> Result<Option<Exit>, WorkspaceError> {
        let Some(init) = &self.record.init else {
            return Ok(self.noted_exit());
        };
        // Who listens before it looks misses nothing.
        let told = Kernel::look() >= PIDFDS_TELL;
        let obituaries = if told { None } else { Obituaries::begin().ok() };
        let Some(pidfd) = self.open_first()? else {
            return Ok(self.noted_exit());
        };
        let heard = match &obituaries {
            Some(obituaries) => hear(obituaries, &pidfd, init.pid)?,
            None => process::ended_within(&pidfd, None)
                .map(|_| None)
                .map_err(WorkspaceError::probe)?,
        };
        let seen = ending::uncollected(init.pid, init.start_time).map_err(WorkspaceError::probe)?;
        Ok(heard
            .or(seen)
            .or_else(|| collected(&pidfd))
            .or_else(|| self.noted_exit()))
    }

    /// What its parent wrote down of how its first process ended (`run --keep`, a monitor).
    #[must_use]
    pub fn noted_exit(&self) -> Option<Exit> {
        let bytes = self.home.read(store::EXIT).ok().flatten()?;
        serde_json::from_slice(&bytes).ok()
    }
}

/// Waits for the end of a process and what is heard of it, which may come a moment after the end itself.
fn hear(
    obituaries: &Obituaries,
    pidfd: &OwnedFd,
    pid: i32,
) -> Result<Option<Exit>, WorkspaceError> {
    let moment = Timespec {
        tv_sec: 0,
        tv_nsec: 100_000_000,
    };
    loop {
        let mut watched = [
            PollFd::new(pidfd, PollFlags::IN),
            PollFd::new(obituaries, PollFlags::IN),
        ];
        match rustix::event::poll(&mut watched, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(WorkspaceError::probe(errno)),
        }
        let ended = !watched[0].revents().is_empty();
        let heard = obituaries.of(pid);
        if heard.is_some() {
            return Ok(heard);
        }
        if ended {
            let mut last = [PollFd::new(obituaries, PollFlags::IN)];
            rustix::event::poll(&mut last, Some(&moment)).map_err(WorkspaceError::probe)?;
            return Ok(obituaries.of(pid));
        }
    }
}

fn collected(pidfd: &OwnedFd) -> Option<Exit> {
    ending::collected(pidfd.as_fd()).ok().flatten()
}

/// Reads the record of a workspace.
pub(super) fn read_record(home: &Home, id: &ContainerId) -> Result<Record, WorkspaceError> {
    match home.read(store::STATE)? {
        Some(bytes) => Ok(Record::parse(&bytes, id)?),
        // It may have been removed since its directory was opened.
        None if home.path().exists() => Err(RecordError::Absent.into()),
        None => Err(StoreError::Missing.into()),
    }
}

/// Signals one member: the number is believed only when it is still a member after a handle was made.
fn signal_member(enclosure: &Enclosure, pid: i32, number: i32) -> Result<(), WorkspaceError> {
    let Ok(pidfd) = process::open(pid) else {
        return Ok(());
    };
    if !enclosure.processes()?.contains(&pid) {
        return Ok(());
    }
    match process::signal(pidfd.as_fd(), number) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(source) => Err(WorkspaceError::Signal { number, source }),
    }
}
