//! The directories in which workspaces are remembered: one each, made by its creator and removed last.
//!
//! ```text
//! ROOT/ID/state.json   the record, replaced as a whole
//! ROOT/ID/config.json  the configuration, as it was given
//! ROOT/ID/cgroup       a link whose text is the path of its cgroup: read when the record cannot be
//! ROOT/ID/cgroup.new   the same before that cgroup is known to be its own: nobody in it is killed then
//! ROOT/ID/init         a link whose text is the life of its first process, where that has no cgroup of its own
//! ROOT/ID/meter.json   what is added up between two looks at what it uses
//! ROOT/ID/exit.json    how its first process ended, when `run --keep` or a monitor saw it
//! ROOT/ID/settled      there when it has ended and what the host lent has been given back
//! ROOT/ID/lease.json   from when until when it is granted
//! ROOT/ID/monitor      the life of the process that stays with it
//! ROOT/ID/resets.json  when it was started again because it needed more memory than its limit
//! ROOT/ID/checkpoint   there when it ended because it was saved, and may come back under its name
//! ROOT/ID/start.sock   where its first process waits for `start`
//! ROOT/ID/notify/      where it tells the service manager that it is ready
//! ROOT/@NAME           what belongs to all workspaces: no workspace can have `@` in its name
//! ```
//!
//! `mkdir(2)` decides who makes a workspace; `flock(2)` on the directory, who changes it. Files are renamed into place
//! without `fsync(2)`: they matter only as long as the host's present uptime, which no power cut survives.

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::AtFlags;
use rustix::fs::FlockOperation;
use rustix::fs::Mode;
use rustix::fs::OFlags;

use crate::defence::Defence;
use crate::spec::id::ContainerId;
use crate::sys::Errno;
use crate::sys::tree;
use crate::workspace::root::StateRoot;

/// The link that names the cgroup.
pub const CGROUP: &str = "cgroup";
/// The link that names the cgroup before it is known that nobody else is in it.
pub const INTENDED: &str = "cgroup.new";
/// The link that says that the cgroup was there before.
pub const FOUND: &str = "cgroup.found";
/// The link that names the first process where no cgroup leads to it.
pub const INIT: &str = "init";
/// The record.
pub const STATE: &str = "state.json";
/// The configuration as it was given.
pub const CONFIG: &str = "config.json";
/// How its first process ended, where this program was its parent.
pub const EXIT: &str = "exit.json";
/// Says that what the host lent has been given back.
pub const SETTLED: &str = "settled";
/// From when until when it is granted.
pub const LEASE: &str = "lease.json";
/// The life of the process that stays with it.
pub const MONITOR: &str = "monitor";
/// When it was started again because of memory.
pub const RESETS: &str = "resets.json";
/// Says that it ended because it was saved.
pub const CHECKPOINT: &str = "checkpoint";
/// The directory in which a tree is prepared that CRIU restores into.
pub const YARD: &str = "yard";
/// The socket on which the first process waits.
pub const START: &str = "start.sock";

/// How many bytes a file of these has at most, nearly always.
const USUAL: usize = 4096;

/// Something about the directory of a workspace failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such workspace.
    #[error("container does not exist")]
    Missing,
    /// There is one of that name already.
    #[error("container with given ID already exists")]
    Taken,
    /// Another command has removed the directory that was just made.
    #[error("container does not exist any more: another command has deleted it")]
    Removed,
    /// Something could not be done to a file of it.
    #[error("{what} {path:?}")]
    Failed {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        source: Errno,
    },
}

/// All workspaces of one state root.
#[derive(Debug, Clone)]
pub struct Store {
    root: StateRoot,
}

impl Store {
    /// The store at `root`; nothing is looked at yet.
    #[must_use]
    pub fn new(root: StateRoot) -> Self {
        Self { root }
    }

    /// The directory of all workspaces.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root.path
    }

    /// Where everything of these workspaces is.
    #[must_use]
    pub fn places(&self) -> &StateRoot {
        &self.root
    }

    /// Makes the directory of a new workspace, and holds its lock.
    ///
    /// # Errors
    ///
    /// [`StoreError::Taken`] when there is one already.
    pub fn make(&self, id: &ContainerId) -> Result<Home, StoreError> {
        let path = self.root.path.join(id);
        let own = Mode::from_raw_mode(own_mode());
        let made = match rustix::fs::mkdir(&path, own) {
            Err(Errno::NOENT) => {
                self.make_root()?;
                rustix::fs::mkdir(&path, own)
            }
            answer => answer,
        };
        match made {
            Err(Errno::EXIST) => return Err(StoreError::Taken),
            answer => answer.map_err(failed("cannot make", &path))?,
        }
        let home = Home::at(path.clone(), self).and_then(|home| {
            home.lock()?;
            Ok(home)
        });
        if matches!(home, Err(StoreError::Failed { .. })) {
            // Nothing is in it, and only what is empty is removed.
            rustix::fs::rmdir(&path).unwrap_or_default();
        }
        home
    }

    /// Finds the directory of a workspace.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`] when there is none.
    pub fn open(&self, id: &ContainerId) -> Result<Home, StoreError> {
        Home::at(self.root.path.join(id), self)
    }

    /// The names of all workspaces, sorted.
    ///
    /// # Errors
    ///
    /// Fails when the root exists and cannot be read.
    pub fn ids(&self) -> Result<Vec<ContainerId>, StoreError> {
        let path = &self.root.path;
        let entries = match std::fs::read_dir(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            answer => answer.map_err(|error| failed("cannot read", path)(errno_of(&error)))?,
        };
        let directories = entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let mut ids: Vec<ContainerId> = directories
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        ids.sort();
        Ok(ids)
    }

    /// A root in `$XDG_RUNTIME_DIR` is made sticky: what is not may be swept away after some hours.
    pub(super) fn make_root(&self) -> Result<(), StoreError> {
        let path = &self.root.path;
        let mut builder = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), own_mode());
        builder
            .create(path)
            .map_err(|error| failed("cannot make", path)(errno_of(&error)))?;
        if self.root.swept {
            let mode = Mode::RWXU | Mode::SVTX;
            rustix::fs::chmod(path, mode).map_err(failed("cannot change the mode of", path))?;
        }
        Ok(())
    }
}

/// The mode of what is kept: it names hosts' paths and holds sockets that start programs.
fn own_mode() -> u32 {
    match Defence::StateMode.is_out() {
        true => 0o755,
        false => 0o700,
    }
}

/// The directory of one workspace.
#[derive(Debug)]
pub struct Home {
    path: PathBuf,
    directory: OwnedFd,
    store: Store,
}

impl Home {
    fn at(path: PathBuf, store: &Store) -> Result<Self, StoreError> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(directory) => Ok(Self {
                path,
                directory,
                store: store.clone(),
            }),
            Err(Errno::NOENT) => Err(StoreError::Missing),
            Err(source) => Err(failed("cannot open", &path)(source)),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All workspaces that it is one of.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Waits until no other command changes this workspace, and keeps others waiting until this value is dropped.
    ///
    /// # Errors
    ///
    /// [`StoreError::Removed`] when the other command was a deletion.
    pub fn lock(&self) -> Result<(), StoreError> {
        self.take(FlockOperation::LockExclusive).map(drop)
    }

    /// Like [`Home::lock`], but gives `false` at once when another command holds the lock.
    ///
    /// # Errors
    ///
    /// As [`Home::lock`].
    pub fn try_lock(&self) -> Result<bool, StoreError> {
        self.take(FlockOperation::NonBlockingLockExclusive)
    }

    fn take(&self, how: FlockOperation) -> Result<bool, StoreError> {
        loop {
            match rustix::fs::flock(&self.directory, how) {
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => return Ok(false),
                Err(source) => return Err(failed("cannot lock", &self.path)(source)),
                Ok(()) => break,
            }
        }
        let stat =
            rustix::fs::fstat(&self.directory).map_err(failed("cannot look at", &self.path))?;
        if stat.st_nlink == 0 {
            Err(StoreError::Removed)
        } else {
            Ok(true)
        }
    }

    /// Lets other commands change this workspace.
    ///
    /// # Errors
    ///
    /// Fails as `flock(2)` does.
    pub fn unlock(&self) -> Result<(), StoreError> {
        rustix::fs::flock(&self.directory, FlockOperation::Unlock)
            .map_err(failed("cannot unlock", &self.path))
    }

    /// The user who made it.
    ///
    /// # Errors
    ///
    /// Fails as `fstat(2)` does.
    pub fn owner(&self) -> Result<u32, StoreError> {
        let stat =
            rustix::fs::fstat(&self.directory).map_err(failed("cannot look at", &self.path))?;
        Ok(stat.st_uid)
    }

    /// Reads a file of it; nothing when there is none.
    ///
    /// # Errors
    ///
    /// Fails when there is one that cannot be read.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.directory, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            answer => answer.map_err(failed("cannot open", &self.path.join(name)))?,
        };
        let bytes = whole(&file).map_err(failed("cannot read", &self.path.join(name)))?;
        Ok(Some(bytes))
    }

    /// Puts a file in place as a whole: others see the old one or the new one.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be written; the old one is then untouched.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.draft(name, bytes)?;
        self.publish(name)
    }

    /// Writes what [`Home::publish`] puts in place: nobody sees it before that.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be written.
    pub fn draft(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.path.join(name);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = rustix::fs::openat(&self.directory, draft_of(name), flags, mode)
            .map_err(failed("cannot make", &path))?;
        std::fs::File::from(file)
            .write_all(bytes)
            .map_err(|error| failed("cannot write", &path)(errno_of(&error)))
    }

    /// Puts in place what was drafted last.
    ///
    /// # Errors
    ///
    /// Fails as `renameat(2)` does; what was there before is then untouched.
    pub fn publish(&self, name: &str) -> Result<(), StoreError> {
        rustix::fs::renameat(&self.directory, draft_of(name), &self.directory, name)
            .map_err(failed("cannot replace", &self.path.join(name)))
    }

    /// Removes a file of it; that there is none is no failure.
    ///
    /// # Errors
    ///
    /// Fails as `unlinkat(2)` does.
    pub fn forget(&self, name: &str) -> Result<(), StoreError> {
        match rustix::fs::unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(source) => Err(failed("cannot remove", &self.path.join(name))(source)),
        }
    }

    /// Writes down a path as the text of a link: it is there as a whole or not at all.
    ///
    /// # Errors
    ///
    /// Fails as `symlinkat(2)` does.
    pub fn note(&self, name: &str, text: &Path) -> Result<(), StoreError> {
        rustix::fs::symlinkat(text, &self.directory, name)
            .map_err(failed("cannot make", &self.path.join(name)))
    }

    /// The path that [`Home::note`] wrote; nothing when there is none, or when something else is there.
    ///
    /// # Errors
    ///
    /// Fails as `readlinkat(2)` does.
    pub fn noted(&self, name: &str) -> Result<Option<PathBuf>, StoreError> {
        match rustix::fs::readlinkat(&self.directory, name, Vec::new()) {
            Ok(text) => Ok(Some(OsString::from_vec(text.into_bytes()).into())),
            Err(Errno::NOENT | Errno::INVAL) => Ok(None),
            Err(source) => Err(failed("cannot read", &self.path.join(name))(source)),
        }
    }

    /// Writes down that the cgroup that was intended is its own: whoever is in it may be killed.
    ///
    /// # Errors
    ///
    /// Fails as `renameat(2)` does.
    pub fn claim(&self) -> Result<(), StoreError> {
        rustix::fs::renameat(&self.directory, INTENDED, &self.directory, CGROUP)
            .map_err(failed("cannot replace", &self.path.join(CGROUP)))
    }

    /// Removes everything of it and at last the directory.
    ///
    /// The link to the cgroup goes last but one, so that a deletion that was cut short can be repeated.
    ///
    /// # Errors
    ///
    /// Fails with the first thing that cannot be removed.
    pub fn remove(self) -> Result<(), StoreError> {
        let path = &self.path;
        empty(self.as_fd(), path, &[CGROUP])?;
        self.forget(CGROUP)?;
        rustix::fs::rmdir(path).map_err(failed("cannot remove", path))
    }
}

impl AsFd for Home {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// What a file is called until it is put in place.
fn draft_of(name: &str) -> String {
    format!(".{name}")
}

/// The content of a file. There is room for more than it nearly always has, so that its end is seen with the first call.
fn whole(file: &OwnedFd) -> Result<Vec<u8>, Errno> {
    let mut bytes = Vec::with_capacity(USUAL);
    loop {
        let room = bytes.capacity() - bytes.len();
        let read = rustix::io::retry_on_intr(|| {
            rustix::io::read(file, rustix::buffer::spare_capacity(&mut bytes))
        })?;
        // Less than there is room for is the end: these files are no pipes.
        if read < room {
            return Ok(bytes);
        }
        bytes.reserve(bytes.len());
    }
}

/// Removes everything from the directory at `path` but what has one of the names that are `kept`.
pub(super) fn empty(
    directory: BorrowedFd<'_>,
    path: &Path,
    kept: &[&str],
) -> Result<(), StoreError> {
    let entries = tree::entries(directory).map_err(failed("cannot read", path))?;
    let names = entries.into_iter().map(|(name, _)| name);
    for name in names.filter(|name| !kept.iter().any(|kept| name == kept)) {
        tree::remove(directory, &name)
            .map_err(|left| failed("cannot remove", &path.join(left.path))(left.source))?;
    }
    Ok(())
}

pub(super) fn failed(what: &'static str, path: &Path) -> impl FnOnce(Errno) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Failed { what, path, source }
}

pub(super) fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let home = tempfile::tempdir().unwrap();
        let root = StateRoot {
            path: home.path().join("deep/root"),
            swept: false,
            data: home.path().join("data"),
            host: home.path().join("host.toml"),
        };
        (home, Store::new(root))
    }

    fn id(name: &str) -> ContainerId {
        name.parse().unwrap()
    }

    #[test]
    fn only_one_of_many_can_make_a_workspace() {
        let (_home, store) = store();
        let made = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| store.make(&id("a")).is_ok()))
                .collect();
            tries
                .into_iter()
                .filter_map(|attempt| attempt.join().ok())
                .filter(|made| *made)
                .count()
        });
        assert_eq!(made, 1);
    }

    #[test]
    fn what_was_written_is_read_and_what_was_not_is_nothing() {
        let (_home, store) = store();
        let home = store.make(&id("a")).unwrap();
        home.write(STATE, b"one").unwrap();
        home.write(STATE, b"two").unwrap();
        home.note(CGROUP, Path::new("/sys/fs/cgroup/a")).unwrap();
        assert_eq!(home.read(STATE).unwrap().unwrap(), b"two");
        assert_eq!(home.read(CONFIG).unwrap(), None);
        let noted = home.noted(CGROUP).unwrap();
        assert_eq!(noted.unwrap(), Path::new("/sys/fs/cgroup/a"));
    }

    #[test]
    fn a_file_of_any_length_is_read_whole() {
        let (_home, store) = store();
        let home = store.make(&id("a")).unwrap();
        for length in [0, 1, USUAL - 1, USUAL, USUAL + 1, 2 * USUAL, 100_000] {
            let bytes: Vec<u8> = (0_u8..=250).cycle().take(length).collect();
            home.write(STATE, &bytes).unwrap();
            assert_eq!(home.read(STATE).unwrap().unwrap(), bytes, "{length} bytes");
        }
    }

    #[test]
    fn a_removed_workspace_does_not_exist() {
        let (_home, store) = store();
        let home = store.make(&id("a")).unwrap();
        home.write(STATE, b"one").unwrap();
        std::fs::create_dir(home.path().join("notify")).unwrap();
        home.remove().unwrap();
        assert!(matches!(store.open(&id("a")), Err(StoreError::Missing)));
    }

    #[test]
    fn who_waited_for_a_deletion_is_told_of_it() {
        let (_home, store) = store();
        let first = store.make(&id("a")).unwrap();
        let second = store.open(&id("a")).unwrap();
        assert!(!second.try_lock().unwrap());
        first.remove().unwrap();
        assert!(matches!(second.lock(), Err(StoreError::Removed)));
    }

    #[test]
    fn a_root_that_is_not_there_holds_no_workspaces() {
        let (_home, store) = store();
        assert_eq!(store.ids().unwrap(), Vec::new());
        store.make(&id("b")).unwrap();
        store.make(&id("a")).unwrap();
        assert_eq!(store.ids().unwrap(), [id("a"), id("b")]);
    }
}
