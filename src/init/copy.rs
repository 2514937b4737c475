//! Copies what an image has at a mount point into the empty file system that will cover it.

use std::ffi::CStr;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use rustix::fs::AtFlags;
use rustix::fs::FileType;
use rustix::fs::Gid;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::Stat;
use rustix::fs::Uid;

use crate::defence::Defence;
use crate::sys::Errno;
use crate::sys::Result;

/// How deep directories may nest; one descriptor a level is open.
const DEEPEST: u32 = 256;

/// Copies everything below `from` to `to`: directories, files, links and nodes, with owner and mode.
///
/// # Errors
///
/// `ELOOP` beyond 256 levels; otherwise those of the copying calls, `ENOSPC` among them.
pub(super) fn tree(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let from = rustix::fs::openat(from, ".", flags, Mode::empty())?;
    let to = rustix::fs::openat(to, ".", flags, Mode::empty())?;
    directory(&from, &to, DEEPEST)
}

fn directory(from: &OwnedFd, to: &OwnedFd, levels: u32) -> Result<()> {
    if levels == 0 {
        return Err(Errno::LOOP);
    }
    for entry in rustix::fs::Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            one(from.as_fd(), to.as_fd(), name, levels)?;
        }
    }
    Ok(())
}

fn one(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, levels: u32) -> Result<()> {
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    let plain = match Defence::CopyThroughNoLink.is_out() {
        true => OFlags::CLOEXEC,
        false => OFlags::CLOEXEC | OFlags::NOFOLLOW,
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, Mode::RWXU)?;
            let flags = plain | OFlags::RDONLY | OFlags::DIRECTORY;
            let below = rustix::fs::openat(from, name, flags, Mode::empty())?;
            let copy = rustix::fs::openat(to, name, flags, Mode::empty())?;
            directory(&below, &copy, levels - 1)?;
        }
        FileType::RegularFile => {
            let flags = plain | OFlags::RDONLY | OFlags::NONBLOCK;
            let source = rustix::fs::openat(from, name, flags, Mode::empty())?;
            let flags = plain | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
            let copy = rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
            content(&source, &copy)?;
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(&target, to, name)?;
        }
        kind @ (FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown) => rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev)?,
    }
    own(to, name, &stat, mode)
}

/// Owner first: changing it takes set-user-ID bits away.
fn own(to: BorrowedFd<'_>, name: &CStr, stat: &Stat, mode: Mode) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        return Ok(());
    }
    rustix::fs::chmodat(to, name, mode, AtFlags::empty())
}

fn content(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    loop {
        match rustix::fs::sendfile(to, from, None, 1 << 20) {
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_tree_is_copied_with_modes_and_links() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir(from.path().join("d")).unwrap();
        std::fs::write(from.path().join("d/f"), "text").unwrap();
        let mode = std::fs::Permissions::from_mode(0o640);
        std::fs::set_permissions(from.path().join("d/f"), mode).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", from.path().join("l")).unwrap();
        let open = |at: &std::path::Path| {
            rustix::fs::open(at, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
        };
        tree(&open(from.path()), &open(to.path())).unwrap();
        let copied = to.path().join("d/f");
        assert_eq!(std::fs::read_to_string(&copied).unwrap(), "text");
        assert_eq!(
            copied.metadata().unwrap().permissions().mode() & 0o777,
            0o640
        );
        let link = std::fs::read_link(to.path().join("l")).unwrap();
        assert_eq!(link, std::path::Path::new("/etc/passwd"));
    }
}
