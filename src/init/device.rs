//! Puts device nodes and links into the root.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::AtFlags;
use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;

use super::Doing;
use super::report::Reason;
use super::report::Trouble;
use crate::defence::Defence;
use crate::plan::step::Device;
use crate::sys::Errno;
use crate::sys::mount;
use crate::sys::path;

type Done = std::result::Result<(), Trouble>;

/// A directory of the root in which something was made, by its path there.
#[derive(Debug)]
pub(super) struct Parent {
    path: PathBuf,
    directory: OwnedFd,
}

impl Doing {
    /// The directory in which `path` is, made when missing, and the last part of it. Nodes and links are made one after
    /// the other, most of them in `/dev`: it is opened once for all of them.
    fn parent_of<'a>(
        &mut self,
        path: &'a Path,
    ) -> std::result::Result<(BorrowedFd<'_>, &'a OsStr), Trouble> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let above = path.parent().unwrap_or(Path::new("/"));
        if self.parent.as_ref().is_none_or(|one| one.path != above) {
            let mode = Mode::from_raw_mode(0o755);
            let directory = path::make_directories(self.root()?, above, mode)?;
            let path = above.to_owned();
            self.parent = Some(Parent { path, directory });
        }
        let parent = self.parent.as_ref().ok_or(Errno::NOENT)?;
        Ok((parent.directory.as_fd(), name))
    }

    /// Makes a node, or shows the host's where none may be made.
    pub(super) fn make_device(&mut self, device: &Device) -> Done {
        if device.bind {
            return self.show_device(device);
        }
        let (parent, name) = self.parent_of(&device.path)?;
        let kind = match device.kind {
            'b' => FileType::BlockDevice,
            'p' => FileType::Fifo,
            _ => FileType::CharacterDevice,
        };
        let number = rustix::fs::makedev(device.major, device.minor);
        let mask = rustix::process::umask(Mode::empty());
        let wanted = Mode::from_raw_mode(device.mode & 0o7777);
        let made = rustix::fs::mknodat(parent, name, kind, wanted, number);
        rustix::process::umask(mask);
        match made {
            Err(Errno::EXIST) => verify(parent, name, kind, number),
            Err(Errno::PERM) if kind != FileType::Fifo => self.show_device(device),
            Err(errno) => Err(errno.into()),
            Ok(()) if device.uid == 0 && device.gid == 0 => Ok(()),
            Ok(()) => Ok(rustix::fs::chownat(
                parent,
                name,
                Some(rustix::fs::Uid::from_raw(device.uid)),
                Some(rustix::fs::Gid::from_raw(device.gid)),
                AtFlags::SYMLINK_NOFOLLOW,
            )?),
        }
    }

    /// Mounts the host's node of the same path.
    fn show_device(&mut self, device: &Device) -> Done {
        // host path: the host's own node, which is looked at before it is shown.
        let node = mount::copy_tree_at(&device.path, false, true)?;
        let stat = rustix::fs::fstat(&node)?;
        if stat.st_rdev != rustix::fs::makedev(device.major, device.minor) {
            return Err(Trouble::because(Reason::WrongDevice, Errno::INVAL));
        }
        let place = path::make_file(self.root()?, &device.path)?;
        Ok(mount::attach(&node, &place)?)
    }

    /// Makes a link; one that the image brought stays, but for `/dev/ptmx`, which must lead to our `devpts`.
    pub(super) fn make_link(&mut self, at: &Path, target: &Path) -> Done {
        let (parent, name) = self.parent_of(at)?;
        match rustix::fs::symlinkat(target, parent, name) {
            Err(Errno::EXIST) if at == Path::new("/dev/ptmx") => {
                rustix::fs::unlinkat(parent, name, AtFlags::empty())?;
                Ok(rustix::fs::symlinkat(target, parent, name)?)
            }
            Err(Errno::EXIST) => Ok(()),
            other => Ok(other?),
        }
    }
}

/// A node that is there already must be the one that was asked for, and no link to another.
fn verify(parent: BorrowedFd<'_>, name: &OsStr, kind: FileType, number: u64) -> Done {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let node = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&node)?;
    let same = FileType::from_raw_mode(stat.st_mode) == kind
        && (kind == FileType::Fifo || stat.st_rdev == number);
    if same || Defence::DeviceIdentity.is_out() {
        Ok(())
    } else {
        Err(Trouble::because(Reason::WrongDevice, Errno::EXIST))
    }
}
