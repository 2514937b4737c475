//! The file system that the server sees: an empty one, with a tree below it for each share.
//!
//! Every mount is built detached, from a descriptor, before the old root is let go of; afterwards no path leads back.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use anyhow::Context;
use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::mount::UnmountFlags;

use crate::backend::lift;
use crate::init;
use crate::plan::namespaces;
use crate::plan::share::Share;
use crate::plan::share::Source;
use crate::plan::step::Attributes;
use crate::plan::step::Bind;
use crate::plan::step::Overlay;
use crate::sys::Errno;
use crate::sys::Result;
use crate::sys::mount;
use crate::sys::mount::ATTR_NODEV;
use crate::sys::mount::ATTR_NOEXEC;
use crate::sys::mount::ATTR_NOSUID;
use crate::sys::mount::ATTR_RDONLY;
use crate::sys::mount::Change;
use crate::sys::mount::Configuration;
use crate::sys::namespace;

/// `MS_SLAVE`.
const SLAVE: u64 = 1 << 19;
/// `MS_PRIVATE`.
const PRIVATE: u64 = 1 << 18;
/// What no server needs of any mount: it only reads and writes files. A guest's own mounts say what holds there.
const PLAIN: u64 = ATTR_NODEV | ATTR_NOSUID | ATTR_NOEXEC;

/// The room, furnished but not yet entered.
#[derive(Debug)]
pub(super) struct Room {
    /// The empty file system with the places.
    root: OwnedFd,
    /// `/proc/self/fd` and nothing of `proc` beside it, attached nowhere: where a descriptor that only names a file is
    /// opened again to read or write it.
    pub(super) descriptors: OwnedFd,
}

/// Leaves the namespaces of whoever started us and builds the room in our own.
pub(super) fn build(shares: &[Share]) -> anyhow::Result<Room> {
    let kinds = namespaces::MOUNT | namespaces::NETWORK | namespaces::IPC | namespaces::UTS;
    namespace::leave(kinds).context("cannot leave the namespaces of the caller")?;
    mount::propagate_all(SLAVE).context("cannot cut off the mounts of the caller")?;
    // host path: this process, in the host's proc.
    let descriptors = mount::copy_tree_at("/proc/self/fd".as_ref(), false, true)
        .context("cannot open /proc/self/fd")?;
    let mut trees = Vec::new();
    for share in shares {
        let tree =
            tree(&share.source).with_context(|| format!("cannot open share {:?}", share.name))?;
        trees.push((share, tree));
    }
    let root = empty().context("cannot make an empty file system")?;
    for (share, tree) in trees {
        furnish(&root, share, &tree)
            .with_context(|| format!("cannot place share {:?}", share.name))?;
    }
    Ok(Room { root, descriptors })
}

impl Room {
    /// Makes it the root, for good, and closes it to writing.
    pub(super) fn enter(&self) -> anyhow::Result<()> {
        self.pivot()
            .context("cannot make the shares the root of the file server")?;
        change(self.root.as_fd(), ATTR_RDONLY, false)
            .context("cannot make the directory of shares read-only")
    }

    fn pivot(&self) -> Result<()> {
        // host path: the root itself, before it is left.
        let old = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        rustix::process::fchdir(&self.root)?;
        rustix::process::pivot_root(".", ".")?;
        rustix::process::fchdir(&old)?;
        // host path: the directory that was just entered by its descriptor.
        rustix::mount::unmount(".", UnmountFlags::DETACH)?;
        rustix::process::fchdir(&self.root)
    }
}

/// A small file system over the old root, where places are made for the shares.
fn empty() -> Result<OwnedFd> {
    let new = Configuration::begin("tmpfs")?;
    new.option("mode", Some("0755"))?;
    new.option("size", Some("1m"))?;
    let root = new.finish(PLAIN)?;
    // host path: the root itself, which is about to be covered.
    let top = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    mount::attach(&root, &top)?;
    Ok(root)
}

/// The tree of a share, with everything set that was asked for, attached nowhere.
fn tree(source: &Source) -> anyhow::Result<OwnedFd> {
    let (tree, wanted) = match source {
        Source::Tree(bind) => (lift::lift(bind)?, bind.attributes.clone()),
        Source::Layers(overlay) => (layers(overlay)?, Attributes::default()),
    };
    if wanted.propagation.is_empty() {
        let change = Change {
            propagation: PRIVATE,
            ..Change::default()
        };
        mount::set_attributes(tree.as_fd(), &change, true)?;
    }
    init::set_attributes(&tree, &wanted).map_err(|trouble| anyhow::anyhow!("{trouble}"))?;
    change(tree.as_fd(), PLAIN, true)?;
    Ok(tree)
}

fn layers(overlay: &Overlay) -> anyhow::Result<OwnedFd> {
    let lifted = match overlay.idmap {
        Some(_) => Some(lift::lift_layers(overlay)?),
        None => None,
    };
    init::layered(overlay, lifted.as_ref()).map_err(|trouble| anyhow::anyhow!("{trouble}"))
}

/// Makes the place of a share and puts its tree there.
fn furnish(root: &OwnedFd, share: &Share, tree: &OwnedFd) -> Result<()> {
    let name = single(&share.name)?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(tree)?.st_mode);
    if let Source::Tree(bind) = &share.source
        && kind == FileType::Symlink
    {
        return link(root, name, bind, tree);
    }
    let flags = if kind == FileType::Directory {
        rustix::fs::mkdirat(root, name, Mode::from_raw_mode(0o755))?;
        OFlags::DIRECTORY
    } else {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        rustix::fs::openat(root, name, flags, Mode::from_raw_mode(0o644)).map(drop)?;
        OFlags::empty()
    };
    let flags = flags | OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = rustix::fs::openat(root, name, flags, Mode::empty())?;
    mount::attach(tree, &place)
}

/// A link at the source becomes a link in the room, where it was to be copied; nothing can be mounted on one.
fn link(root: &OwnedFd, name: &OsStr, bind: &Bind, tree: &OwnedFd) -> Result<()> {
    if !bind.copy_link {
        return Err(Errno::LOOP);
    }
    let target = rustix::fs::readlinkat(tree, "", Vec::new())?;
    rustix::fs::symlinkat(OsStr::from_bytes(target.to_bytes()), root, name)
}

/// The name of a share, if it is one name.
fn single(name: &str) -> Result<&OsStr> {
    let plain = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
    plain.then_some(OsStr::new(name)).ok_or(Errno::INVAL)
}

fn change(mount: BorrowedFd<'_>, set: u64, recursive: bool) -> Result<()> {
    let change = Change {
        set,
        ..Change::default()
    };
    mount::set_attributes(mount, &change, recursive)
}
