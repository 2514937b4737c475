//! Builds the tree: the root, what is mounted over it, and the step into it.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::Mode;
use rustix::fs::OFlags;

use super::Doing;
use super::copy;
use super::report::Reason;
use super::report::Trouble;
use crate::defence::Defence;
use crate::plan::step::Attributes;
use crate::plan::step::Bind;
use crate::plan::step::Entry;
use crate::plan::step::Filesystem;
use crate::plan::step::Remount;
use crate::sys::Errno;
use crate::sys::mount;
use crate::sys::mount::Change;
use crate::sys::mount::Configuration;
use crate::sys::path;

type Done = std::result::Result<(), Trouble>;

/// `MS_SLAVE`: events come in, none go out.
const SLAVE: u64 = 1 << 19;
/// `MS_PRIVATE`: no events at all.
const PRIVATE: u64 = 1 << 18;
/// The bits that say how access times are kept (`MOUNT_ATTR__ATIME` and `NODIRATIME`).
const ATIME: u64 = 0x70 | 0x80;
/// What `statfs(2)` says of a `proc`.
const PROC_MAGIC: i64 = 0x9fa0;
/// Files of `proc` that may be replaced: they describe the machine, and no security rests on them.
const REPLACEABLE: [&str; 10] = [
    "cpuinfo",
    "diskstats",
    "meminfo",
    "stat",
    "swaps",
    "uptime",
    "loadavg",
    "slabinfo",
    "sys/kernel/ns_last_pid",
    "sys/crypto/fips_enabled",
];

impl Doing {
    /// Copies the tree at the root's path, puts the copy over it and holds it. What it is put on is made private even where it
    /// shares with nobody any more: parts of it that are mounted inside then hear nothing from outside either, and can be
    /// checkpointed.
    pub(super) fn take_root(&mut self, root: &Path, cut_off: bool) -> Done {
        // host path: the root itself, which the caller named.
        let tree = mount::copy_tree_at(root, true, true)?;
        if cut_off {
            let change = Change {
                propagation: PRIVATE,
                ..Change::default()
            };
            mount::set_attributes(tree.as_fd(), &change, true)?;
        }
        make_parent_private(root)?;
        // host path: the root itself, which the caller named.
        let place = rustix::fs::open(root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        mount::attach(&tree, &place)?;
        self.root = Some(tree);
        Ok(())
    }

    /// Holds a directory as the root, without mounting anything.
    pub(super) fn hold_root(&mut self, root: &Path) -> Done {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // host path: the root itself, which the caller named.
        self.root = Some(rustix::fs::open(root, flags, Mode::empty())?);
        Ok(())
    }

    /// Mounts a new file system.
    pub(super) fn mount(&mut self, wanted: &Filesystem) -> Done {
        let (place, was_there) = self.directory_for(wanted)?;
        let whole_proc = wanted.kind == "proc" && wanted.destination == Path::new("/proc");
        if !whole_proc {
            refuse_inside_proc(&place, &wanted.destination)?;
        }
        let (made, finished) = match make_filesystem(wanted, was_there.then_some(&place)) {
            Err(trouble) if refused(trouble.errno) => {
                let Some(instead) = &wanted.otherwise else {
                    return Err(trouble);
                };
                // host path: a directory of the host's own.
                (mount::copy_tree_at(instead, true, true)?, false)
            }
            other => (other?, born_with(&wanted.attributes) && !wanted.copy_up),
        };
        if wanted.copy_up {
            copy::tree(&place, &made)?;
        }
        if !finished {
            change(&made, &wanted.attributes)?;
        }
        mount::attach(&made, &place)?;
        if wanted.kind == "proc" {
            self.proc = Some(made);
        }
        Ok(())
    }

    /// Where a new file system goes, and whether that was there before.
    fn directory_for(&self, wanted: &Filesystem) -> std::result::Result<(OwnedFd, bool), Trouble> {
        let root = self.root()?;
        let mode = Mode::from_raw_mode(0o755);
        let directory = OFlags::PATH | OFlags::DIRECTORY;
        let found = if wanted.ordinary && !Defence::OrdinaryDirectory.is_out() {
            path::open_plain_in(root, &wanted.destination, directory)
        } else {
            path::open_in(root, &wanted.destination, directory)
        };
        match found {
            Ok(place) => Ok((place, true)),
            Err(Errno::NOENT) => {
                let made = path::make_missing_directories(root, &wanted.destination, mode)?;
                Ok((made, false))
            }
            Err(errno @ (Errno::LOOP | Errno::NOTDIR)) if wanted.ordinary => {
                Err(Trouble::because(Reason::NotOrdinary, errno))
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// Mounts part of an existing tree.
    pub(super) fn bind(&mut self, index: usize, wanted: &Bind) -> Done {
        let tree = match self.outfit.mounts.remove(&index) {
            Some(tree) => tree,
            // host path: the source, which the caller named.
            None => mount::copy_tree_at(&wanted.source, wanted.recursive, wanted.follow)?,
        };
        if wanted.copy_link && path::is_kind(tree.as_fd(), rustix::fs::FileType::Symlink)? {
            // Read from the mount and not by its path, which users of a user namespace may not be able to go.
            let target = rustix::fs::readlinkat(&tree, "", Vec::new())?;
            return self.make_link(
                &wanted.destination,
                Path::new(OsStr::from_bytes(target.to_bytes())),
            );
        }
        change(&tree, &wanted.attributes)?;
        let mut place = self.place_for(wanted, &tree)?;
        if Defence::TargetByDescriptor.is_out() {
            place = path::open_anywhere(self.root()?, &wanted.destination, OFlags::PATH)?;
        }
        refuse_inside_proc(&place, &wanted.destination)?;
        Ok(mount::attach(&tree, &place)?)
    }

    /// Changes a mount that is there already; nothing is mounted.
    pub(super) fn remount(&mut self, wanted: &Remount) -> Done {
        let there = path::open_in(self.root()?, &wanted.destination, OFlags::PATH)?;
        if !wanted.options.is_empty() {
            let filesystem = Configuration::pick(&there)?;
            give_options(&filesystem, &wanted.options)?;
            let changed = filesystem.change();
            changed.map_err(|errno| told(errno, &filesystem))?;
        }
        change(&there, &wanted.attributes)
    }

    /// What the tree goes on: a directory on a directory, a file on anything else, made when missing.
    fn place_for(&self, wanted: &Bind, tree: &OwnedFd) -> std::result::Result<OwnedFd, Trouble> {
        let root = self.root()?;
        if !wanted.follow_destination {
            let flags = OFlags::PATH | OFlags::NOFOLLOW;
            match path::open_in(root, &wanted.destination, flags) {
                Err(Errno::NOENT) => {}
                other => return Ok(other?),
            }
        }
        if path::is_kind(tree.as_fd(), rustix::fs::FileType::Directory)? {
            let mode = Mode::from_raw_mode(0o755);
            Ok(path::make_directories(root, &wanted.destination, mode)?)
        } else {
            Ok(path::make_file(root, &wanted.destination)?)
        }
    }

    /// Makes the built root the root.
    pub(super) fn enter(&mut self, entry: Entry) -> Done {
        let root = self.root()?;
        rustix::process::fchdir(root)?;
        match entry {
            Entry::Pivot => pivot()?,
            Entry::Move => {
                // host path: the root itself, which is about to be covered.
                let top = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
                match mount::attach(root, &top) {
                    // An overlay may be there already.
                    Ok(()) | Err(Errno::LOOP) => {}
                    Err(errno) => return Err(errno.into()),
                }
                // host path: the directory that was just entered by its descriptor.
                rustix::process::chroot(".")?;
            }
            // host path: the directory that was just entered by its descriptor.
            Entry::Chroot => rustix::process::chroot(".")?,
        }
        // host path: the root itself.
        Ok(rustix::process::chdir("/")?)
    }

    /// Sets how the root mount, or the tree of mounts, shares with others.
    pub(super) fn share_root(&mut self, propagation: u64, recursive: bool) -> Done {
        let change = Change {
            propagation,
            ..Change::default()
        };
        let root = self.root()?.as_fd();
        Ok(mount::set_attributes(root, &change, recursive)?)
    }

    /// Makes the root mount read-only.
    pub(super) fn make_root_read_only(&mut self) -> Done {
        let change = Change {
            set: mount::ATTR_RDONLY,
            ..Change::default()
        };
        Ok(mount::set_attributes(self.root()?.as_fd(), &change, false)?)
    }

    /// Makes a directory and its parents, when missing.
    pub(super) fn make_directory(&mut self, wanted: &Path) -> Done {
        path::make_directories(self.root()?, wanted, Mode::from_raw_mode(0o755))?;
        Ok(())
    }
}

/// Whether the kernel has said that this type must not be mounted here, by us.
fn refused(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::PERM | Errno::BUSY | Errno::ACCESS | Errno::NODEV
    )
}

/// Makes a file system; a tmpfs without a mode takes that of the directory that it covers, and the kernel's (anybody may
/// write, as in `/tmp`) where there was none.
fn make_filesystem(
    wanted: &Filesystem,
    covered: Option<&OwnedFd>,
) -> std::result::Result<OwnedFd, Trouble> {
    let new = Configuration::begin(&wanted.kind)?;
    if !wanted.source.is_empty() {
        new.option("source", Some(&wanted.source))
            .map_err(|errno| told(errno, &new))?;
    }
    give_options(&new, &wanted.options)?;
    let with_mode = wanted.options.iter().any(|(key, _)| key == "mode");
    if wanted.kind == "tmpfs"
        && !with_mode
        && let Some(place) = covered
    {
        let mode = rustix::fs::fstat(place)?.st_mode & 0o7777;
        new.option("mode", Some(&format!("{mode:o}")))?;
    }
    // What is copied up must still be written; the attributes follow when the content is there.
    let first = if wanted.copy_up {
        0
    } else {
        wanted.attributes.set | wanted.attributes.set_below
    };
    Ok(new.finish(first)?)
}

/// Whether a mount that was made with the attributes to set is as it is wanted: nothing but those is asked of it. That it
/// begins without what is to be cleared, access times aside, is how the kernel makes mounts.
fn born_with(wanted: &Attributes) -> bool {
    let taken_back = (wanted.clear | wanted.clear_below) & !ATIME;
    wanted.propagation.is_empty() && wanted.set_below == 0 && wanted.set & taken_back == 0
}

/// What went wrong, in the words of the file system if it has any.
pub(super) fn told(errno: Errno, filesystem: &Configuration) -> Trouble {
    Trouble {
        errno,
        reason: Reason::Plain,
        detail: filesystem.complaint().unwrap_or_default(),
    }
}

/// The longest value that `fsconfig(2)` takes, in bytes.
const LONGEST_VALUE: usize = 255;

pub(super) fn give_options(
    filesystem: &Configuration,
    options: &[(String, Option<String>)],
) -> Done {
    for (key, value) in options {
        give_option(filesystem, key, value.as_deref()).map_err(|errno| {
            let mut trouble = told(errno, filesystem);
            if trouble.detail.is_empty() {
                trouble.detail = format!("option {key}");
            }
            trouble
        })?;
    }
    Ok(())
}

/// Gives one option. A stack of overlay layers that is too long for one value is given layer by layer
/// (`lowerdir+`, Linux 6.8).
fn give_option(filesystem: &Configuration, key: &str, value: Option<&str>) -> Result<(), Errno> {
    match value {
        Some(layers) if key == "lowerdir" && layers.len() > LONGEST_VALUE => layers
            .split(':')
            .try_for_each(|layer| filesystem.option("lowerdir+", Some(layer))),
        other => filesystem.option(key, other),
    }
}

/// Sets attributes and propagation of a tree.
pub(super) fn change(tree: &OwnedFd, wanted: &Attributes) -> Done {
    let here = Change {
        set: wanted.set,
        clear: wanted.clear,
        ..Change::default()
    };
    let below = Change {
        set: wanted.set_below,
        clear: wanted.clear_below,
        ..Change::default()
    };
    let propagation = wanted.propagation.iter().map(|(propagation, recursive)| {
        (
            Change {
                propagation: *propagation,
                ..Change::default()
            },
            *recursive,
        )
    });
    for (change, recursive) in [(here, false), (below, true)]
        .into_iter()
        .chain(propagation)
    {
        if change != Change::default() {
            set_unless_locked(tree, &change, recursive)?;
        }
    }
    Ok(())
}

/// In a user namespace the host's choice about access times may be locked; then it stays as it is.
fn set_unless_locked(tree: &OwnedFd, change: &Change, recursive: bool) -> Done {
    match mount::set_attributes(tree.as_fd(), change, recursive) {
        Err(Errno::PERM) if (change.set | change.clear) & ATIME != 0 => {
            let without = Change {
                set: change.set & !ATIME,
                clear: change.clear & !ATIME,
                ..*change
            };
            Ok(mount::set_attributes(tree.as_fd(), &without, recursive)?)
        }
        other => Ok(other?),
    }
}

/// Nothing may hide what the kernel says in `/proc`: labels and parameters are written there.
fn refuse_inside_proc(place: &OwnedFd, destination: &Path) -> Done {
    if rustix::fs::fstatfs(place)?.f_type != PROC_MAGIC || Defence::InsideProc.is_out() {
        return Ok(());
    }
    let inside = path::relative(destination);
    let allowed = inside
        .strip_prefix("proc")
        .is_ok_and(|file| REPLACEABLE.iter().any(|name| file == Path::new(name)));
    if allowed {
        Ok(())
    } else {
        Err(Trouble::because(Reason::InsideProc, Errno::PERM))
    }
}

/// `pivot_root(2)` refuses a root whose parent mount is shared, so that one is made private: it is the
/// first directory on the way up that is the root of a mount.
pub(super) fn make_parent_private(root: &Path) -> Done {
    for above in root.ancestors() {
        // host path: a directory above the root, which the caller named.
        match mount::propagate(above, PRIVATE, false) {
            Err(Errno::INVAL) => {}
            other => return Ok(other?),
        }
    }
    Ok(())
}

/// Exchanges the root and lets go of the old one, without a word to the mounts outside.
fn pivot() -> Done {
    // host path: the root itself, before it is left.
    let old = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    rustix::process::pivot_root(".", ".")?;
    let quiet = Change {
        propagation: SLAVE,
        ..Change::default()
    };
    rustix::process::fchdir(&old)?;
    mount::set_attributes(old.as_fd(), &quiet, true)?;
    // host path: the directory that was just entered by its descriptor.
    Ok(rustix::mount::unmount(
        ".",
        rustix::mount::UnmountFlags::DETACH,
    )?)
}
