//! One cgroup directory, held by a descriptor: its files, its children, its birth and its end.
//!
//! The directory is opened once and everything else is reached from it, so that a group that is replaced by another
//! of the same name is never taken for the first. A group that is gone answers `ENOENT` or `ENODEV`.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::AtFlags;
use rustix::fs::Dir;
use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::ResolveFlags;
use rustix::fs::Uid;

use crate::defence::Defence;
use crate::sys::Errno;
use crate::sys::Result;
use crate::sys::pseudo;

/// `CGROUP2_SUPER_MAGIC` of `linux/magic.h`.
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// As others see it; who may write to a group is decided by its owner.
const MODE: Mode = Mode::from_raw_mode(0o755);

/// How often a path is tried again while something on the host is being renamed.
const TRIES: usize = 64;

/// One cgroup directory.
#[derive(Debug)]
pub(super) struct Group {
    directory: OwnedFd,
}

impl Group {
    /// Opens the root of a mount, which must be of cgroup2: none if it is of anything else.
    ///
    /// # Errors
    ///
    /// As `open(2)`.
    pub(super) fn root(mount: &Path) -> Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(mount, flags, Mode::empty())?;
        let kind = rustix::fs::fstatfs(&directory)?.f_type;
        Ok((kind == CGROUP2_MAGIC).then_some(Self { directory }))
    }

    /// Opens a directory of another filesystem of the kernel's that works alike.
    ///
    /// # Errors
    ///
    /// As `open(2)`; `ELOOP` for a link.
    pub(super) fn plain(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self { directory })
    }

    /// Opens a group below this one; nothing on the way may lead elsewhere.
    ///
    /// # Errors
    ///
    /// As `openat2(2)`: `ENOENT` if there is none, `EXDEV` if the path leaves this group.
    pub(super) fn below(&self, path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = match Defence::CgroupBelow.is_out() {
            true => ResolveFlags::empty(),
            false => {
                ResolveFlags::BENEATH
                    | ResolveFlags::NO_XDEV
                    | ResolveFlags::NO_SYMLINKS
                    | ResolveFlags::NO_MAGICLINKS
            }
        };
        let open = || rustix::fs::openat2(&self.directory, path, flags, Mode::empty(), resolve);
        let mut opened = open();
        for _ in 0..TRIES {
            // Something on the host was renamed meanwhile, so the kernel could not be sure of the path (`openat2(2)`).
            if opened.as_ref().err() != Some(&Errno::AGAIN) {
                break;
            }
            opened = open();
        }
        Ok(Self { directory: opened? })
    }

    /// Makes a child group.
    ///
    /// # Errors
    ///
    /// As `mkdir(2)`.
    pub(super) fn make(&self, path: &Path) -> Result<()> {
        rustix::fs::mkdirat(&self.directory, path, MODE)
    }

    /// Removes a child group.
    ///
    /// # Errors
    ///
    /// As `rmdir(2)`: `EBUSY` if there is anybody or any group in it.
    pub(super) fn unmake(&self, path: &Path) -> Result<()> {
        rustix::fs::unlinkat(&self.directory, path, AtFlags::REMOVEDIR)
    }

    /// The descriptor, for what takes one.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Opens a file of the group for reading.
    ///
    /// # Errors
    ///
    /// As `openat(2)`.
    pub(super) fn open(&self, file: &str) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.directory, file, flags, Mode::empty())
    }

    /// Opens a file of the group for a trigger to be written to it.
    ///
    /// # Errors
    ///
    /// As `openat(2)`.
    pub(super) fn open_to_trigger(&self, file: &str) -> Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.directory, file, flags, Mode::empty())
    }

    /// Reads a file of the group.
    ///
    /// # Errors
    ///
    /// As `openat(2)` and `read(2)`; `EILSEQ` if it is not text.
    pub(super) fn read(&self, file: &str) -> Result<String> {
        read_again(&self.open(file)?)
    }

    /// Writes to a file of the group, in one call, as the kernel wants it.
    ///
    /// # Errors
    ///
    /// As `openat(2)` and `write(2)`.
    pub(super) fn write(&self, file: &str, value: &str) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, file, flags, Mode::empty())?;
        rustix::io::retry_on_intr(|| rustix::io::write(&file, value.as_bytes())).map(drop)
    }

    /// Gives a file of the group, or with `.` its directory, to a user of the host.
    ///
    /// # Errors
    ///
    /// As `fchownat(2)`.
    pub(super) fn give(&self, file: &str, owner: u32) -> Result<()> {
        let owner = Some(Uid::from_raw(owner));
        rustix::fs::chownat(
            &self.directory,
            file,
            owner,
            None,
            AtFlags::SYMLINK_NOFOLLOW,
        )
    }

    /// The names of the child groups.
    ///
    /// # Errors
    ///
    /// As `openat(2)` and `getdents(2)`.
    pub(super) fn children(&self) -> Result<Vec<String>> {
        let mut names = self.entries(FileType::Directory)?;
        names.retain(|name| name != "." && name != "..");
        Ok(names)
    }

    /// The names of the files.
    ///
    /// # Errors
    ///
    /// As `openat(2)` and `getdents(2)`.
    pub(super) fn files(&self) -> Result<Vec<String>> {
        self.entries(FileType::RegularFile)
    }

    fn entries(&self, kind: FileType) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.directory)? {
            let entry = entry?;
            if entry.file_type() == kind {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(names)
    }

    /// The processes directly in this group; the threads, if it holds threads only.
    ///
    /// # Errors
    ///
    /// As [`Group::read`].
    pub(super) fn own_processes(&self) -> Result<Vec<i32>> {
        let lines = match self.read("cgroup.procs") {
            Err(Errno::OPNOTSUPP) => self.read("cgroup.threads"),
            other => other,
        }?;
        Ok(lines.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Whether anybody is in this group or below, and whether all of them stand still.
    ///
    /// # Errors
    ///
    /// As [`Group::read`].
    pub(super) fn state(&self) -> Result<State> {
        Ok(State::parse(&self.read("cgroup.events")?))
    }
}

/// What `cgroup.events` says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct State {
    /// Somebody is in the group or below it.
    pub(super) populated: bool,
    /// Everybody in the group and below it stands still.
    pub(super) frozen: bool,
}

impl State {
    pub(super) fn parse(lines: &str) -> Self {
        let says = |line: &str| lines.lines().any(|found| found == line);
        Self {
            populated: says("populated 1"),
            frozen: says("frozen 1"),
        }
    }
}

/// Reads an open file from its beginning.
pub(super) fn read_again(file: &OwnedFd) -> Result<String> {
    String::from_utf8(pseudo::again(file)?).map_err(|_| Errno::ILSEQ)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_events_of_a_group_are_its_state() {
        assert_eq!(
            State::parse("populated 1\nfrozen 0\n"),
            State {
                populated: true,
                frozen: false
            }
        );
    }
}
