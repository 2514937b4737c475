//! Mounts as descriptors: built detached, given their attributes, then put in their place.

use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::mount::FsMountFlags;
use rustix::mount::FsOpenFlags;
use rustix::mount::FsPickFlags;
use rustix::mount::MountAttrFlags;
use rustix::mount::MountPropagationFlags;
use rustix::mount::MoveMountFlags;
use rustix::mount::OpenTreeFlags;

use crate::defence::Defence;
use crate::sys::Errno;
use crate::sys::Result;
use crate::sys::checked;

/// What [`set_attributes`] changes; the layout of the kernel's `struct mount_attr`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    /// `MOUNT_ATTR_*` bits to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` bits to clear.
    pub clear: u64,
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`, `MS_UNBINDABLE`, or 0 to leave propagation alone.
    pub propagation: u64,
    /// The user namespace of an id-mapped mount, when `MOUNT_ATTR_IDMAP` is set.
    pub user_namespace: u64,
}

/// `MOUNT_ATTR_IDMAP`: the mount shows owners through a user namespace.
pub const ATTR_IDMAP: u64 = 0x0010_0000;
/// `MOUNT_ATTR_RDONLY`.
pub const ATTR_RDONLY: u64 = 0x1;
/// `MOUNT_ATTR_NOSUID`.
pub const ATTR_NOSUID: u64 = 0x2;
/// `MOUNT_ATTR_NODEV`.
pub const ATTR_NODEV: u64 = 0x4;
/// `MOUNT_ATTR_NOEXEC`.
pub const ATTR_NOEXEC: u64 = 0x8;

/// A file system being configured: `fsopen(2)`'s descriptor.
#[derive(Debug)]
pub struct Configuration(OwnedFd);

impl Configuration {
    /// Begins a file system of this type.
    ///
    /// # Errors
    ///
    /// `ENODEV` when the kernel does not know the type (`fsopen(2)`, Linux 5.2).
    pub fn begin(kind: &str) -> Result<Self> {
        rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map(Self)
    }

    /// Takes the file system that is mounted at a descriptor, to change it.
    ///
    /// # Errors
    ///
    /// `EINVAL` when the descriptor is not the root of a mount (`fspick(2)`, Linux 5.2).
    pub fn pick(mounted: impl AsFd) -> Result<Self> {
        let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
        rustix::mount::fspick(mounted, "", flags).map(Self)
    }

    /// Changes a file system that was picked, by the options it was given since.
    ///
    /// # Errors
    ///
    /// As the file system answers; `EBUSY` when it is to be read-only and files in it are being written.
    pub fn change(&self) -> Result<()> {
        rustix::mount::fsconfig_reconfigure(self.0.as_fd())
    }

    /// Gives it an option, with a value or without.
    ///
    /// # Errors
    ///
    /// `EINVAL` when the file system does not know the option or the value.
    pub fn option(&self, key: &str, value: Option<&str>) -> Result<()> {
        match value {
            Some(value) => rustix::mount::fsconfig_set_string(self.0.as_fd(), key, value),
            None => rustix::mount::fsconfig_set_flag(self.0.as_fd(), key),
        }
    }

    /// Makes the file system and a detached mount of it, with these `MOUNT_ATTR_*` bits.
    ///
    /// # Errors
    ///
    /// `EPERM` without the right to mount this type here; otherwise as `fsmount(2)`.
    pub fn finish(self, attributes: u64) -> Result<OwnedFd> {
        self.create()?;
        self.mount(attributes)
    }

    /// Makes the file system; what it has to say about a failure can be asked of it then.
    ///
    /// # Errors
    ///
    /// `EPERM` without the right to mount this type here; otherwise as the file system answers.
    pub fn create(&self) -> Result<()> {
        rustix::mount::fsconfig_create(self.0.as_fd())
    }

    /// A detached mount of the file system that was made, with these `MOUNT_ATTR_*` bits.
    ///
    /// # Errors
    ///
    /// Fails as `fsmount(2)` does.
    pub fn mount(self, attributes: u64) -> Result<OwnedFd> {
        let attributes = u32::try_from(attributes).map_err(|_| crate::sys::Errno::INVAL)?;
        rustix::mount::fsmount(
            self.0.as_fd(),
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::from_bits_retain(attributes),
        )
    }

    /// What the file system has said about its last failure, if it said anything (`fsopen(2)` log).
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        let mut message = [0u8; 256];
        let length = rustix::io::read(&self.0, &mut message).ok()?;
        let text = String::from_utf8_lossy(message.get(..length)?);
        Some(text.trim_start_matches("e ").trim_end().to_owned())
    }
}

/// A detached copy of the mount at a descriptor; with `recursive`, of all mounts below it too.
///
/// # Errors
///
/// `EINVAL` when the mount is unbindable or holds locked mounts below it (`open_tree(2)`, Linux 5.2).
pub fn copy_tree(at: impl AsFd, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(at.as_fd(), "", flags)
}

/// As [`copy_tree`], of a path of the caller's; `follow` says whether a last link is followed.
///
/// # Errors
///
/// As [`copy_tree`], and those of path resolution.
pub fn copy_tree_at(path: &Path, recursive: bool, follow: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    if !follow {
        flags |= OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    }
    rustix::mount::open_tree(rustix::fs::CWD, path, flags)
}

/// Puts a detached mount on what `target` stands for.
///
/// # Errors
///
/// Fails as `move_mount(2)` does; `ENOTDIR` when one is a directory and the other is not.
pub fn attach(mount: impl AsFd, target: impl AsFd) -> Result<()> {
    rustix::mount::move_mount(
        mount.as_fd(),
        "",
        target.as_fd(),
        "",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
    )
}

/// Changes the attributes of a mount, with `recursive` of all below it too (`mount_setattr(2)`, Linux 5.12).
///
/// # Errors
///
/// `EINVAL` for attributes that exclude each other or a file system that cannot be id-mapped, `EPERM`
/// for a flag that is locked here.
pub fn set_attributes(mount: BorrowedFd<'_>, change: &Change, recursive: bool) -> Result<()> {
    let recursion = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: `change` has the layout of `struct mount_attr` and its size is passed; the path is a
    // NUL-terminated literal.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursion,
            std::ptr::from_ref(change),
            size_of::<Change>(),
        )
    };
    checked(done).map(drop)
}

/// Sets the propagation of every mount of this mount namespace at once.
///
/// # Errors
///
/// Fails as `mount(2)` does.
pub fn propagate_all(flags: u64) -> Result<()> {
    if Defence::Propagation.is_out() {
        return Ok(());
    }
    propagate(Path::new("/"), flags, true)
}

/// Sets the propagation of the mount whose root is at `path`, and with `recursive` that of all below it.
///
/// # Errors
///
/// Fails as `mount(2)` does: `EINVAL` when no mount has its root there.
#[expect(
    clippy::disallowed_methods,
    reason = "nothing comes to be at the path, and the mount that it names is the caller's own"
)]
pub fn propagate(path: &Path, flags: u64, recursive: bool) -> Result<()> {
    let kind = u32::try_from(flags).map_err(|_| Errno::INVAL)?;
    let mut change = MountPropagationFlags::from_bits_retain(kind);
    change.set(MountPropagationFlags::REC, recursive);
    rustix::mount::mount_change(path, change)
}
