//! A place in the tree that is being unpacked: a directory that is held, and a name in it.
//!
//! Paths of an archive are resolved as if the tree's root were `/`; links on the way are followed inside it, a last link
//! never is.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;
use std::rc::Rc;

use rustix::fs::AtFlags;
use rustix::fs::Dir;
use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;

use super::error::Fault;
use crate::sys::Errno;
use crate::sys::path;
use crate::sys::tree;

/// The tree that is being unpacked.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    /// The directory that was used last, which is mostly used again.
    last: Option<(PathBuf, Rc<OwnedFd>, u64)>,
}

/// A name in a directory; the path is for words only.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// The directory.
    pub(super) parent: Rc<OwnedFd>,
    /// The number of its inode.
    inode: u64,
    /// The name in it.
    pub(super) name: OsString,
    /// The path in the archive.
    pub(super) path: PathBuf,
}

impl Place {
    /// Another name in the same directory.
    pub(super) fn beside(&self, name: &OsStr) -> Self {
        Self {
            name: name.to_owned(),
            ..self.clone()
        }
    }
}

/// What one layer has put in place so far: its own whiteouts do not hide that.
#[derive(Debug, Default)]
pub(super) struct Written(HashSet<(u64, OsString)>);

impl Written {
    pub(super) fn add(&mut self, place: &Place) {
        self.0.insert((place.inode, place.name.clone()));
    }

    fn holds(&self, inode: u64, name: &OsStr) -> bool {
        self.0.contains(&(inode, name.to_owned()))
    }
}

/// What went wrong at a path.
pub(super) fn failed(what: &'static str, path: &Path) -> impl FnOnce(Errno) -> Fault {
    let path = path.to_owned();
    move |source| Fault::Failed { path, what, source }
}

pub(super) fn refused(path: &Path, why: impl Into<String>) -> Fault {
    Fault::Refused {
        path: path.to_owned(),
        why: why.into(),
    }
}

/// A path of an archive without `.` and slashes before it; empty for the root itself.
pub(super) fn clean(text: &[u8]) -> Result<PathBuf, Fault> {
    let given = Path::new(OsStr::from_bytes(text));
    if text.contains(&0) {
        return Err(refused(given, "there is a NUL in the path"));
    }
    let mut clean = PathBuf::new();
    for component in given.components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            Component::ParentDir => return Err(refused(given, "there is .. in the path")),
        }
    }
    Ok(clean)
}

impl Tree {
    pub(super) fn new(root: OwnedFd) -> Self {
        Self { root, last: None }
    }

    pub(super) fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// The place that a clean path stands for; its directory is made when there is none.
    pub(super) fn place(&mut self, path: PathBuf) -> Result<Place, Fault> {
        let name = path.file_name().unwrap_or_default().to_owned();
        let above = path.parent().unwrap_or(Path::new("")).to_owned();
        let (parent, inode) = self.directory(&above)?;
        Ok(Place {
            parent,
            inode,
            name,
            path,
        })
    }

    fn directory(&mut self, path: &Path) -> Result<(Rc<OwnedFd>, u64), Fault> {
        if let Some((last, opened, inode)) = &self.last
            && last == path
        {
            return Ok((Rc::clone(opened), *inode));
        }
        let mode = Mode::from_raw_mode(0o755);
        let inside = path::relative(path);
        let opened = path::make_directories(&self.root, inside, mode);
        let opened = opened.map_err(failed("make the directory", path))?;
        let stat = rustix::fs::fstat(&opened).map_err(failed("look at", path))?;
        let opened = Rc::new(opened);
        self.last = Some((path.to_owned(), Rc::clone(&opened), stat.st_ino));
        Ok((opened, stat.st_ino))
    }

    /// Removes what is at a place, whatever it is.
    pub(super) fn clear(&mut self, place: &Place) -> Result<(), Fault> {
        self.last = None;
        remove(&place.parent, &place.name, &place.path)
    }

    /// Removes what lower layers have at a place.
    pub(super) fn whiteout(&mut self, place: &Place, written: &Written) -> Result<(), Fault> {
        if !written.holds(place.inode, &place.name) {
            return self.clear(place);
        }
        let kind = kind_at(place).map_err(failed("look at", &place.path))?;
        if kind == Some(FileType::Directory) {
            self.last = None;
            let opened = open(&place.parent, &place.name);
            let opened = opened.map_err(failed("open", &place.path))?;
            return sweep(&opened, &place.path, written);
        }
        Ok(())
    }

    /// Removes what lower layers have in the directory of a place.
    pub(super) fn opaque(&mut self, place: &Place, written: &Written) -> Result<(), Fault> {
        self.last = None;
        let above = place.path.parent().unwrap_or(Path::new(""));
        let opened = open(&place.parent, OsStr::new(".")).map_err(failed("open", above))?;
        sweep(&opened, above, written)
    }
}

/// What there is at a place; nothing when there is nothing.
pub(super) fn kind_at(place: &Place) -> Result<Option<FileType>, Errno> {
    match rustix::fs::statat(&place.parent, &place.name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn open(parent: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

fn remove(parent: &OwnedFd, name: &OsStr, path: &Path) -> Result<(), Fault> {
    tree::remove(parent.as_fd(), name).map_err(|left| Fault::Failed {
        path: path.to_owned(),
        what: "remove",
        source: left.source,
    })
}

/// Removes what is below a directory and was not put there by the layer. Layers are no deeper than their paths are long,
/// and a directory that the layer has not written is removed as a whole.
fn sweep(directory: &OwnedFd, path: &Path, written: &Written) -> Result<(), Fault> {
    let mut open_ones = vec![(
        directory
            .try_clone()
            .map_err(|_| failed("open", path)(Errno::MFILE))?,
        path.to_owned(),
    )];
    while let Some((directory, path)) = open_ones.pop() {
        let inode = rustix::fs::fstat(&directory)
            .map_err(failed("look at", &path))?
            .st_ino;
        let entries = Dir::read_from(&directory).map_err(failed("read", &path))?;
        for entry in entries {
            let entry = entry.map_err(failed("read", &path))?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let below = path.join(name);
            if !written.holds(inode, name) {
                remove(&directory, name, &below)?;
                continue;
            }
            match open(&directory, name) {
                Ok(opened) => open_ones.push((opened, below)),
                Err(Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(failed("open", &below)(errno)),
            }
        }
    }
    Ok(())
}
