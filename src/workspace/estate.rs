//! What a workspace of a document keeps where it outlives the host's uptime: its configuration, its layer, its output.
//!
//! ```text
//! DATA/workspaces/ID/config.json        what its document became
//! DATA/workspaces/ID/log, log.1, log.2  what it wrote
//! DATA/workspaces/ID/kept               says that its layer and its output outlive it
//! DATA/workspaces/@ID                   what is left of one that has gone, while it is being removed
//! ROOT/@output/ID.stdout, ID.stderr     named pipes that its program writes to, until the host is started again
//! ```
//!
//! So the directory is its bundle, without a root filesystem of its own.
//!
//! The directory is held by whoever has its `flock(2)` until the state directory of the same name is there; from then
//! on by that. One that neither holds is left over from a crash, and anybody may remove it or take it. What is left of
//! one that has gone is held by the lock alone; no workspace can have `@` in its name.

use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::FileType;
use rustix::fs::FlockOperation;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::RenameFlags;

use crate::spec::id::ContainerId;
use crate::sys::Errno;
use crate::workspace::root::StateRoot;
use crate::workspace::store;
use crate::workspace::store::Store;
use crate::workspace::store::StoreError;
use crate::workspace::store::errno_of;
use crate::workspace::store::failed;

/// What the workspace is made from.
const CONFIG: &str = "config.json";
/// The pipes that take standard output and standard error.
const PIPES: [&str; 2] = ["stdout", "stderr"];
/// The directory of those.
const OUTPUT: &str = "@output";

/// Says that what the workspace wrote outlives it, until it is brought down without that.
const KEPT: &str = "kept";
/// What it wrote.
const WRITTEN: [&str; 5] = [KEPT, "upper", "log", "log.1", "log.2"];

/// Begins the name of what is left of one that has gone.
const GONE: char = '@';

/// The directory of one workspace, held.
#[derive(Debug)]
pub struct Estate {
    path: PathBuf,
    held: OwnedFd,
    /// None of one that has gone.
    pipes: Vec<PathBuf>,
}

/// Says whether what a workspace wrote outlives it: then it is there for the next of the same name.
///
/// # Errors
///
/// Fails when that cannot be written down.
pub fn keep(root: &StateRoot, id: &ContainerId, kept: bool) -> Result<(), StoreError> {
    let path = place(root, id).join(KEPT);
    let done = match kept {
        true => std::fs::write(&path, b""),
        false => std::fs::remove_file(&path),
    };
    match done {
        // Without files there are none to keep.
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(failed("cannot write", &path)(errno_of(&error)))
        }
        _ => Ok(()),
    }
}

/// Whether files of a workspace are to outlive it.
#[must_use]
pub fn is_kept(root: &StateRoot, id: &ContainerId) -> bool {
    is_marked(&place(root, id))
}

fn is_marked(path: &Path) -> bool {
    path.join(KEPT).exists()
}

/// Where all of them are.
fn all(root: &StateRoot) -> PathBuf {
    root.data.join("workspaces")
}

/// Where that of workspace `id` is.
#[must_use]
pub fn place(root: &StateRoot, id: &ContainerId) -> PathBuf {
    all(root).join(id)
}

/// Where the pipes of workspace `id` are that take its standard output and its standard error.
#[must_use]
pub fn pipes(root: &StateRoot, id: &ContainerId) -> [PathBuf; 2] {
    PIPES.map(|name| root.path.join(OUTPUT).join(format!("{id}.{name}")))
}

/// Whether there is one that a workspace was made from.
#[must_use]
pub fn is_there(root: &StateRoot, id: &ContainerId) -> bool {
    place(root, id).join(CONFIG).exists()
}

/// Where that goes when its workspace has gone.
fn gone(root: &StateRoot, id: &ContainerId) -> PathBuf {
    all(root).join(format!("{GONE}{id}"))
}

/// The names of all that are there, or are left of what has gone, sorted.
#[must_use]
pub fn names(root: &StateRoot) -> Vec<ContainerId> {
    let entries = std::fs::read_dir(all(root)).into_iter().flatten().flatten();
    let mut names: Vec<ContainerId> = entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let name = name.to_str()?;
            name.strip_prefix(GONE).unwrap_or(name).parse().ok()
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

impl Estate {
    /// Takes the directory of a workspace that is to be made, empty but for the two pipes and for what was kept.
    ///
    /// # Errors
    ///
    /// [`StoreError::Taken`] when there is such a workspace, or another command is making one.
    pub fn claim(store: &Store, id: &ContainerId) -> Result<Self, StoreError> {
        let path = place(store.places(), id);
        let mut builder = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o700);
        builder
            .create(&path)
            .map_err(|error| failed("cannot make", &path)(errno_of(&error)))?;
        let claimed = hold_its_own(store, id)?.ok_or(StoreError::Taken)?;
        claimed.empty()?;
        for pipe in &claimed.pipes {
            make_pipe(store, pipe)?;
        }
        Ok(claimed)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the pipes; that there are none is no failure.
    fn forget_pipes(&self) -> Result<(), StoreError> {
        for pipe in &self.pipes {
            match rustix::fs::unlink(pipe) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(source) => return Err(failed("cannot remove", pipe)(source)),
            }
        }
        Ok(())
    }

    /// Removes everything of it but what is kept.
    fn empty(&self) -> Result<(), StoreError> {
        self.forget_pipes()?;
        let kept: &[&str] = if is_marked(&self.path) { &WRITTEN } else { &[] };
        store::empty(self.held.as_fd(), &self.path, kept)
    }

    /// Puts the configuration in place.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be written.
    pub fn configure(&self, config: &[u8]) -> Result<(), StoreError> {
        let path = self.path.join(CONFIG);
        std::fs::write(&path, config)
            .map_err(|error| failed("cannot write", &path)(errno_of(&error)))
    }

    /// Takes it away from its name, which another may have at once; what is left is to be removed. Nothing is when nobody
    /// may remove it. What is kept stays where it is.
    ///
    /// # Errors
    ///
    /// Fails with the first thing that cannot be removed.
    pub fn retire(store: &Store, id: &ContainerId) -> Result<Option<Self>, StoreError> {
        let Some(found) = hold_its_own(store, id)? else {
            return Ok(None);
        };
        if is_marked(&found.path) {
            return found.remove().map(|()| None);
        }
        found.forget_pipes()?;
        let path = gone(store.places(), id);
        let here = rustix::fs::CWD;
        match rustix::fs::renameat_with(here, &found.path, here, &path, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(Some(Self {
                path,
                held: found.held,
                pipes: Vec::new(),
            })),
            // Another of that name is being removed, or the filesystem cannot do it.
            Err(_) => found.remove().map(|()| None),
        }
    }

    /// Removes it with all that is in it, but for what is kept: that is on the disk then.
    ///
    /// # Errors
    ///
    /// Fails with the first thing that cannot be removed, or written out.
    pub fn remove(self) -> Result<(), StoreError> {
        self.empty()?;
        if is_marked(&self.path) {
            return rustix::fs::syncfs(&self.held).map_err(failed("cannot write out", &self.path));
        }
        rustix::fs::rmdir(&self.path).map_err(failed("cannot remove", &self.path))
    }
}

/// Removes what a workspace had, when nobody holds it any more; gives whether there was anything. What is kept stays.
///
/// # Errors
///
/// Fails with the first thing that cannot be removed.
pub fn discard(store: &Store, id: &ContainerId) -> Result<bool, StoreError> {
    let left = [hold_gone(store.places(), id)?, hold_its_own(store, id)?];
    let mut any = false;
    for estate in left.into_iter().flatten() {
        estate.remove()?;
        any = true;
    }
    Ok(any)
}

/// Whether nobody holds what is there under this name, and nobody wanted it kept.
///
/// # Errors
///
/// Fails when it cannot be looked at.
pub fn is_left_over(store: &Store, id: &ContainerId) -> Result<bool, StoreError> {
    let places = store.places();
    let own = hold_its_own(store, id)?.filter(|found| !is_marked(&found.path));
    Ok(own.is_some() || hold_gone(places, id)?.is_some())
}

fn make_pipe(store: &Store, path: &Path) -> Result<(), StoreError> {
    let make = || {
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, path, FileType::Fifo, mode, 0)
    };
    let made = match make() {
        Err(Errno::NOENT) => {
            store.make_root()?;
            let directory = store.root().join(OUTPUT);
            match rustix::fs::mkdir(&directory, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => make(),
                Err(source) => return Err(failed("cannot make", &directory)(source)),
            }
        }
        answer => answer,
    };
    made.map_err(failed("cannot make", path))
}

/// The directory of a workspace, when neither a command nor a workspace holds it.
fn hold_its_own(store: &Store, id: &ContainerId) -> Result<Option<Estate>, StoreError> {
    let places = store.places();
    let found = hold(place(places, id), pipes(places, id).into())?;
    Ok(found.filter(|_| !store.root().join(id).exists()))
}

/// What is left of one that has gone, when nobody removes it.
fn hold_gone(root: &StateRoot, id: &ContainerId) -> Result<Option<Estate>, StoreError> {
    hold(gone(root, id), Vec::new())
}

/// What is there, with its pipes, locked, when nobody else has the lock.
fn hold(path: PathBuf, pipes: Vec<PathBuf>) -> Result<Option<Estate>, StoreError> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    let held = match rustix::fs::open(&path, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        answer => answer.map_err(failed("cannot open", &path))?,
    };
    match rustix::fs::flock(&held, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Ok(None),
        answer => answer.map_err(failed("cannot lock", &path))?,
    }
    // Whoever had the lock may have removed it, or taken it away from its name.
    let opened = rustix::fs::fstat(&held).map_err(failed("cannot look at", &path))?;
    let named = rustix::fs::lstat(&path);
    let same =
        named.is_ok_and(|named| (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino));
    Ok(same.then_some(Estate { path, held, pipes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let home = tempfile::tempdir().unwrap();
        let root = StateRoot::choose(Some(home.path()), None).unwrap();
        (home, Store::new(root))
    }

    fn id() -> ContainerId {
        "a".parse().unwrap()
    }

    #[test]
    fn what_one_command_holds_another_cannot_take_or_remove() {
        let (_home, store) = store();
        let first = Estate::claim(&store, &id()).unwrap();
        first.configure(b"{}").unwrap();
        assert!(matches!(
            Estate::claim(&store, &id()),
            Err(StoreError::Taken)
        ));
        assert!(!discard(&store, &id()).unwrap());
        assert!(first.path().join(CONFIG).exists());
    }

    #[test]
    fn what_a_crash_left_is_taken_over_empty() {
        let (_home, store) = store();
        let first = Estate::claim(&store, &id()).unwrap();
        first.configure(b"{}").unwrap();
        drop(first);
        let second = Estate::claim(&store, &id()).unwrap();
        assert!(!second.path().join(CONFIG).exists());
        assert!(
            pipes(store.places(), &id())
                .iter()
                .all(|pipe| pipe.exists())
        );
    }

    #[test]
    fn what_was_written_is_kept_for_the_next_until_nobody_wants_it() {
        let (_home, store) = store();
        let first = Estate::claim(&store, &id()).unwrap();
        first.configure(b"{}").unwrap();
        std::fs::create_dir_all(first.path().join("upper/deep")).unwrap();
        keep(store.places(), &id(), true).unwrap();
        drop(first);
        assert!(discard(&store, &id()).unwrap());
        assert!(!is_left_over(&store, &id()).unwrap());
        let second = Estate::claim(&store, &id()).unwrap();
        assert!(!second.path().join(CONFIG).exists());
        assert!(second.path().join("upper/deep").exists());
        second.remove().unwrap();
        assert!(place(store.places(), &id()).join("upper/deep").exists());
        keep(store.places(), &id(), false).unwrap();
        assert!(discard(&store, &id()).unwrap());
        assert!(!place(store.places(), &id()).exists());
        keep(store.places(), &id(), false).unwrap();
    }

    #[test]
    fn what_is_retired_leaves_its_name_to_others_and_is_removed_by_one() {
        let (_home, store) = store();
        drop(Estate::claim(&store, &id()).unwrap());
        let first = Estate::retire(&store, &id()).unwrap().unwrap();
        assert!(!place(store.places(), &id()).exists());
        assert!(
            !pipes(store.places(), &id())
                .iter()
                .any(|pipe| pipe.exists())
        );
        assert_eq!(names(store.places()), [id()]);
        // Held, it is no concern of others; and the next is removed where it is.
        assert!(!is_left_over(&store, &id()).unwrap());
        let second = Estate::claim(&store, &id()).unwrap();
        second.configure(b"{}").unwrap();
        drop(second);
        assert!(Estate::retire(&store, &id()).unwrap().is_none());
        assert!(!place(store.places(), &id()).exists());
        drop(first);
        assert!(is_left_over(&store, &id()).unwrap());
        assert!(discard(&store, &id()).unwrap());
        assert_eq!(names(store.places()), []);
        assert!(Estate::retire(&store, &id()).unwrap().is_none());
    }

    #[test]
    fn what_is_kept_is_not_retired() {
        let (_home, store) = store();
        let claimed = Estate::claim(&store, &id()).unwrap();
        std::fs::create_dir(claimed.path().join("upper")).unwrap();
        drop(claimed);
        keep(store.places(), &id(), true).unwrap();
        assert!(Estate::retire(&store, &id()).unwrap().is_none());
        assert!(place(store.places(), &id()).join("upper").exists());
    }

    #[test]
    fn what_belongs_to_a_workspace_is_not_left_over() {
        let (_home, store) = store();
        drop(Estate::claim(&store, &id()).unwrap());
        assert!(is_left_over(&store, &id()).unwrap());
        let home = store.make(&id()).unwrap();
        assert!(!is_left_over(&store, &id()).unwrap());
        home.remove().unwrap();
        assert!(discard(&store, &id()).unwrap());
        assert!(!place(store.places(), &id()).exists());
    }
}
