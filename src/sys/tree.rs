//! Removes a tree that others may have made as they liked: of any depth, with any links in it.
//!
//! Nothing is named by more than one part of a path and no link is followed, so that nothing outside is ever touched.
//! A tree that is deeper than there are descriptors is no obstacle: what lies below a directory is moved to the top
//! before it is emptied, so that two descriptors are enough.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::AtFlags;
use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::RawDir;
use rustix::fs::SeekFrom;

use crate::defence::Defence;
use crate::sys::Errno;
use crate::sys::Result;

/// Something of a tree that could not be removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot remove {path:?}")]
pub struct Left {
    /// Where it is, below the directory that was given.
    pub path: PathBuf,
    /// Why.
    pub source: Errno,
}

/// Bytes of names that are read at once.
const ROOM: usize = 8 << 10;

/// How a directory that was moved to the top is called there, with a number behind.
const MOVED: &str = ".removed-";

/// Removes what `name` stands for in `parent`, and all that is in it. That there is nothing is no failure.
///
/// # Errors
///
/// [`Left`] names the first part that cannot be removed; the rest may be gone then.
pub fn remove(parent: impl AsFd, name: &OsStr) -> std::result::Result<(), Left> {
    let left = |path: PathBuf| move |source| Left { path, source };
    let parent = parent.as_fd();
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(source) => return Err(left(name.into())(source)),
    }
    let top = open(parent, name).map_err(left(name.into()))?;
    let mut moved = 0_u64;
    loop {
        let inside = entries(top.as_fd()).map_err(left(name.into()))?;
        let was_empty = inside.is_empty();
        for (entry, kind) in inside {
            remove_entry(top.as_fd(), &entry, kind, &mut moved)
                .map_err(left(PathBuf::from(name).join(&entry)))?;
        }
        match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
            // What was moved to the top is next.
            Err(Errno::NOTEMPTY | Errno::EXIST) if !was_empty => {}
            other => return other.map_err(left(name.into())),
        }
    }
}

/// Removes one entry of the top; directories in it are moved to the top first.
fn remove_entry(top: BorrowedFd<'_>, name: &OsStr, kind: FileType, moved: &mut u64) -> Result<()> {
    if kind != FileType::Directory {
        return rustix::fs::unlinkat(top, name, AtFlags::empty());
    }
    match rustix::fs::unlinkat(top, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        other => return other,
    }
    let directory = open(top, name)?;
    for (entry, kind) in entries(directory.as_fd())? {
        if kind != FileType::Directory {
            rustix::fs::unlinkat(&directory, &entry, AtFlags::empty())?;
            continue;
        }
        match rustix::fs::unlinkat(&directory, &entry, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            other => {
                other?;
                continue;
            }
        }
        move_up(&directory, &entry, top, moved)?;
    }
    rustix::fs::unlinkat(top, name, AtFlags::REMOVEDIR)
}

/// Moves a directory to the top, under a name that nothing there has.
fn move_up(directory: &OwnedFd, name: &OsStr, top: BorrowedFd<'_>, moved: &mut u64) -> Result<()> {
    loop {
        *moved += 1;
        let fresh = format!("{MOVED}{moved}");
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(directory, name, top, &fresh, flags) {
            Err(Errno::EXIST) => {}
            other => return other,
        }
    }
}

/// Opens a directory to be emptied; one that its owner may not enter is made so that its owner may.
fn open(parent: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd> {
    let mut flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if Defence::RemoveThroughNoLink.is_out() {
        flags.remove(OFlags::NOFOLLOW);
    }
    match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {}
        Ok(opened) => {
            // Without these bits its owner could read the names in it and remove none.
            if !rustix::process::geteuid().is_root() {
                rustix::fs::fchmod(&opened, Mode::RWXU)?;
            }
            return Ok(opened);
        }
        other => return other,
    }
    rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// The names in a directory, with what each is.
///
/// # Errors
///
/// Fails as `getdents64(2)` does.
pub fn entries(directory: BorrowedFd<'_>) -> Result<Vec<(OsString, FileType)>> {
    rustix::fs::seek(directory, SeekFrom::Start(0))?;
    let mut room = Vec::with_capacity(ROOM);
    let mut names = RawDir::new(directory, room.spare_capacity_mut());
    let mut found = Vec::new();
    while let Some(entry) = names.next() {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        let mut kind = entry.file_type();
        if kind == FileType::Unknown {
            let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
            kind = FileType::from_raw_mode(stat.st_mode);
        }
        found.push((name.to_owned(), kind));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn top() -> (tempfile::TempDir, OwnedFd) {
        let temporary = tempfile::tempdir().unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(temporary.path(), flags, Mode::empty()).unwrap();
        (temporary, opened)
    }

    #[test]
    fn a_tree_goes_with_all_that_is_in_it_and_nothing_that_its_links_name() {
        let (temporary, here) = top();
        let path = temporary.path();
        std::fs::create_dir_all(path.join("tree/a/b/c")).unwrap();
        std::fs::create_dir_all(path.join("tree/.removed-1/x/y")).unwrap();
        std::fs::create_dir(path.join("kept")).unwrap();
        std::fs::write(path.join("kept/file"), "x").unwrap();
        std::fs::write(path.join("tree/a/b/file"), "x").unwrap();
        std::os::unix::fs::symlink("../../kept", path.join("tree/a/link")).unwrap();
        remove(&here, OsStr::new("tree")).unwrap();
        assert!(!path.join("tree").exists());
        assert!(path.join("kept/file").exists());
    }

    #[test]
    fn a_tree_deeper_than_there_are_descriptors_goes() {
        let (temporary, here) = top();
        rustix::fs::mkdirat(&here, "tree", Mode::RWXU).unwrap();
        let mut deep = open(here.as_fd(), OsStr::new("tree")).unwrap();
        for _ in 0..5000 {
            rustix::fs::mkdirat(&deep, "d", Mode::RWXU).unwrap();
            deep = open(deep.as_fd(), OsStr::new("d")).unwrap();
        }
        remove(&here, OsStr::new("tree")).unwrap();
        assert!(!temporary.path().join("tree").exists());
    }

    #[test]
    fn nothing_and_a_link_in_place_of_a_tree_go_as_they_are() {
        let (temporary, here) = top();
        std::fs::create_dir(temporary.path().join("kept")).unwrap();
        std::os::unix::fs::symlink("kept", temporary.path().join("link")).unwrap();
        remove(&here, OsStr::new("link")).unwrap();
        remove(&here, OsStr::new("nothing")).unwrap();
        assert!(temporary.path().join("kept").exists());
        assert!(!temporary.path().join("link").is_symlink());
    }
}
