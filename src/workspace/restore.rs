//! Makes a workspace from files that a checkpoint wrote.
//!
//! The order is that of a creation: intent first, then the enclosure, then processes in it. What the images say about
//! the host's directories is only their names; which directory that is, and whether it may be written to, is said by
//! the bundle and looked at once more before the first process runs.

use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::Context;
use rustix::fs::Mode;
use rustix::fs::OFlags;

use crate::backend::Handle;
use crate::backend::Made;
use crate::backend::container::criu::Choices;
use crate::backend::container::criu::Event;
use crate::backend::container::criu::Ground;
use crate::backend::container::criu::Kind;
use crate::backend::container::criu::Request;
use crate::backend::container::criu::Witness;
use crate::backend::container::criu::Worker;
use crate::backend::container::criu::Yard;
use crate::enclosure::Enclosure;
use crate::enclosure::rdt;
use crate::plan::cgroup::Place;
use crate::plan::external;
use crate::plan::namespaces;
use crate::spec::Spec;
use crate::spec::id::ContainerId;
use crate::spec::state::Status;
use crate::sys::mountinfo;
use crate::sys::mountinfo::Mounted;
use crate::sys::process;
use crate::sys::process::Exit;
use crate::sys::socket;
use crate::workspace::admission;
use crate::workspace::blueprint::Blueprint;
use crate::workspace::blueprint::Wish;
use crate::workspace::checkpoint;
use crate::workspace::error::WorkspaceError;
use crate::workspace::found::Workspace;
use crate::workspace::images;
use crate::workspace::images::Directories;
use crate::workspace::images::Images;
use crate::workspace::images::ImagesError;
use crate::workspace::life::Life;
use crate::workspace::making;
use crate::workspace::making::Receipts;
use crate::workspace::making::Standing;
use crate::workspace::record::Record;
use crate::workspace::removing;
use crate::workspace::report::Report;
use crate::workspace::running;
use crate::workspace::running::Console;
use crate::workspace::running::Stay;
use crate::workspace::starting;
use crate::workspace::store;
use crate::workspace::store::Home;
use crate::workspace::store::Store;
use crate::workspace::store::StoreError;
use crate::workspace::streams;
use crate::workspace::wiring;

/// A workspace that is to come back.
#[derive(Debug)]
pub struct Return<'a> {
    /// Its name and bundle.
    pub wish: &'a Wish,
    /// Where it was saved.
    pub images: &'a Images,
    /// What the caller is handed back.
    pub receipts: &'a Receipts,
    /// Whether the command stays with it.
    pub stay: Stay,
}

/// Restores a workspace; gives how its first process ended, or nothing when it goes on without this command.
///
/// # Errors
///
/// [`WorkspaceError::Images`] with the end of CRIU's log; nothing of the workspace is left then.
pub fn restore(
    store: &Store,
    wanted: &Return<'_>,
    report: &dyn Report,
) -> Result<Option<Exit>, WorkspaceError> {
    let (wish, stay) = (wanted.wish, wanted.stay);
    let blueprint = Blueprint::draw(wish, store, report)?;
    if blueprint.machine.is_some() {
        return Err(WorkspaceError::OnlyContainer { what: "restore" });
    }
    if blueprint.plan.namespaces.new & namespaces::MOUNT == 0 {
        return Err(ImagesError::NoMountNamespace.into());
    }
    if blueprint.asked.layer.is_some() {
        return Err(ImagesError::Layered.into());
    }
    if wiring::asked_for(&blueprint.asked).is_some() {
        return Err(ImagesError::Bridged.into());
    }
    let directories = wanted.images.open(false)?;
    let callers = making::connect_console(&blueprint, wanted.receipts)?;
    let mut console = Console::choose(callers, blueprint.spec.process.terminal, stay.detach)?;
    let signals = match stay.detach {
        true => None,
        false => Some(running::stay_signals(stay)?),
    };
    let mut record = making::intent(wish, &blueprint)?;
    let home = make_home(store, &wish.id, report)?;
    let come = Back {
        home: &home,
        blueprint: &blueprint,
        images: wanted.images,
        directories: &directories,
        console: console.sent_to.take(),
    }
    .come(&mut record, report);
    let made = match come {
        Ok(made) => made,
        Err(error) => return Err(removing::take_back(home, &record, error, report)),
    };
    let standing = Standing { home, record, made };
    let handed = making::hand_back(&standing, wanted.receipts).and_then(|()| console.master());
    let master = match handed {
        Ok(master) => master,
        Err(error) => return making::take_back(standing, error, report).map(|()| None),
    };
    let Some(signals) = signals else {
        return Ok(None);
    };
    let attended = starting::open_notify(&standing.home)
        .and_then(|notify| running::attend(&standing, &signals, master, notify));
    match attended {
        Ok(exit) => running::leave(standing, exit, stay, report).map(|()| Some(exit)),
        Err(error) => making::take_back(standing, error, report).map(|()| None),
    }
}

/// Makes the directory of the workspace, in place of one that ended because it was saved.
fn make_home(store: &Store, id: &ContainerId, report: &dyn Report) -> Result<Home, WorkspaceError> {
    match store.make(id) {
        Err(StoreError::Taken) => {}
        answer => return Ok(answer?),
    }
    let saved = Workspace::find(store, id).is_ok_and(|workspace| {
        let marked = workspace.home.read(store::CHECKPOINT);
        marked.is_ok_and(|mark| mark.is_some())
            && workspace
                .status()
                .is_ok_and(|status| status == Status::Stopped)
    });
    if !saved {
        return Err(StoreError::Taken.into());
    }
    removing::delete(store, id, false, report)?;
    Ok(store.make(id)?)
}

/// A workspace on its way back.
struct Back<'a> {
    home: &'a Home,
    blueprint: &'a Blueprint,
    images: &'a Images,
    directories: &'a Directories,
    console: Option<OwnedFd>,
}

impl Back<'_> {
    fn come(&mut self, record: &mut Record, report: &dyn Report) -> Result<Made, WorkspaceError> {
        let mut enclosure = making::found(self.home, record, self.blueprint, report)?;
        self.home.write(store::CONFIG, &self.blueprint.config)?;
        let restored = self.run(record, &mut enclosure)?;
        // It may have died since; then the number is nobody's.
        let process = process::open(restored.0).map_err(WorkspaceError::probe)?;
        let handle = Handle::of(restored.0, process.as_fd())?;
        let life = Life::begun(handle).map_err(WorkspaceError::probe)?;
        if record.place == Place::Nowhere {
            self.home.note(store::INIT, life.text().as_ref())?;
        }
        record.init = Some(life);
        if let Some(class) = &record.rdt {
            rdt::enter(class, handle.pid)?;
        }
        self.home.write(store::STATE, &record.to_bytes()?)?;
        admission::rebalance(self.home.store(), record)?;
        making::tell_begun(self.home, record, &enclosure, report);
        Ok(Made::new(handle, process, restored.1))
    }

    fn run(
        &mut self,
        record: &mut Record,
        enclosure: &mut Enclosure,
    ) -> Result<(i32, OwnedFd), WorkspaceError> {
        let externals = external::of(&self.blueprint.plan);
        let place = self.home.path().join(store::YARD);
        rustix::fs::mkdir(&place, Mode::RWXU).map_err(|source| WorkspaceError::Kernel {
            what: "make the directory to restore in",
            source,
        })?;
        let yard = Yard::new(Ground {
            directory: &place,
            rootfs: &self.blueprint.rootfs,
            plan: &self.blueprint.plan,
            externals: &externals,
            images: self.directories.images.as_fd(),
            work: self.directories.work.as_fd(),
        });
        let mut yard = yard.map_err(ImagesError::from)?;
        let joins = self.joins()?;
        let kept: Vec<BorrowedFd<'_>> = joins.inherited.iter().map(|(_, fd)| fd.as_fd()).collect();
        let worker = Worker::start(enclosure.birthplace(), Some(&mut yard), &kept)
            .map_err(ImagesError::from)?;
        if enclosure.birthplace().is_none() {
            enclosure.adopt(worker.pid())?;
            if record.place != Place::Nowhere {
                self.home.claim()?;
            }
        }
        self.ask(record, worker, &yard, &joins)
    }

    fn ask(
        &mut self,
        record: &mut Record,
        worker: Worker,
        yard: &Yard<'_>,
        joins: &Joins,
    ) -> Result<(i32, OwnedFd), WorkspaceError> {
        let spec = &self.blueprint.spec;
        let config = images::options_file(&spec.annotations, &self.blueprint.rootfs)?;
        let choices = Choices {
            config: config.as_ref().map(images::path_of),
            ..self.images.choices.clone()
        };
        let pid = worker.pid();
        let request = Request {
            kind: Kind::Restore,
            choices: &choices,
            images: yard.images(),
            work: yard.work(),
            pid: 0,
            root: yard.root(),
            mounts: yard.mounts(pid).map_err(ImagesError::from)?,
            external: Vec::new(),
            inherited: [self.streams()?, joins.numbers()].concat(),
            joined: joins.joined.clone(),
            freeze: None,
            cgroup: cgroup_of(&record.place),
        };
        let mut witness = Welcome {
            record,
            spec,
            console: self.console.take(),
            shown: yard.shown(pid).map_err(ImagesError::from)?,
        };
        let served = worker.serve(&request, &self.directories.log, &mut witness);
        Ok(served.map_err(ImagesError::from)?)
    }

    /// The standard streams of this process that take the place of those that were the host's.
    fn streams(&self) -> Result<Vec<(String, i32)>, WorkspaceError> {
        let path = self.images.path.join(streams::FILE);
        let failed = |source| ImagesError::Streams {
            what: "read",
            path: path.clone(),
            source,
        };
        match std::fs::read(&path) {
            Ok(list) => Ok(streams::inherited(&list).map_err(|error| failed(error.into()))?),
            // Images that another runtime wrote.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(failed(error).into()),
        }
    }

    fn joins(&self) -> Result<Joins, WorkspaceError> {
        let mut joins = Joins::default();
        for join in &self.blueprint.plan.namespaces.join {
            if let Some((_, key)) = checkpoint::external_namespace(join.kind) {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                let opened = rustix::fs::open(&join.path, flags, Mode::empty());
                let opened = opened.map_err(|errno| WorkspaceError::Unreadable {
                    path: join.path.clone(),
                    source: errno.into(),
                });
                joins.inherited.push((key, opened?));
                continue;
            }
            let kind = match join.kind {
                namespaces::IPC => "ipc",
                namespaces::UTS => "uts",
                namespaces::USER => "user",
                namespaces::TIME => "time",
                _ => {
                    let kind = join.name.clone();
                    return Err(ImagesError::Joined { kind }.into());
                }
            };
            joins.joined.push((kind.to_owned(), join.path.clone()));
        }
        Ok(joins)
    }
}

/// Namespaces that are there already.
#[derive(Debug, Default)]
struct Joins {
    inherited: Vec<(&'static str, OwnedFd)>,
    joined: Vec<(String, PathBuf)>,
}

impl Joins {
    fn numbers(&self) -> Vec<(String, i32)> {
        let inherited = self.inherited.iter();
        inherited
            .map(|(key, fd)| ((*key).to_owned(), fd.as_raw_fd()))
            .collect()
    }
}

/// The cgroup that processes come back in, from its mount on.
fn cgroup_of(place: &Place) -> Option<PathBuf> {
    match place {
        Place::Nowhere => None,
        Place::Directory { path, .. } | Place::Scope { path, .. } => {
            Some(std::path::Path::new("/").join(path))
        }
    }
}

/// Attends to a workspace that comes back.
struct Welcome<'a> {
    record: &'a mut Record,
    spec: &'a Spec,
    console: Option<OwnedFd>,
    /// What the host's mounts show, and whether only to be read.
    shown: Vec<(Mounted, bool)>,
}

impl Welcome<'_> {
    /// Images could say that a mount is writable which the bundle says is not: nothing has run yet when this is seen.
    fn look_at_mounts(&self, pid: i32) -> anyhow::Result<()> {
        let mounts = mountinfo::of_process(pid).context("cannot read the mounts inside")?;
        for mounted in mounts.iter().filter(|mounted| !mounted.read_only) {
            let mut same = self
                .shown
                .iter()
                .filter(|(shown, _)| shown.shows_same(mounted))
                .peekable();
            if same.peek().is_some() && same.all(|(_, read_only)| *read_only) {
                let destination = mounted.at.clone();
                return Err(ImagesError::Writable { destination }.into());
            }
        }
        Ok(())
    }
}

impl Witness for Welcome<'_> {
    fn saw(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Namespaces(pid) => {
                self.record.init = Some(Life::of(pid)?);
                making::runtime_hooks(self.record, self.spec)
            }
            Event::Restored(pid) => self.look_at_mounts(pid),
            Event::Terminal(master) => {
                let console = self.console.take();
                let console = console.context("nobody takes the terminal")?;
                socket::send_with(console.as_fd(), b"/dev/ptmx", &[master.as_fd()])
                    .context("cannot send the terminal")
            }
            Event::Ready | Event::Other => Ok(()),
        }
    }
}
