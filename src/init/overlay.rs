//! Lays a writable directory over a shared one and takes the result as the root, where nobody else sees it mounted.
//!
//! The kernel is given the layers as `/proc/self/fd/N`: paths that hold none of the letters that its options give a
//! meaning to, are never too long, and tell the inside nothing of the host.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::Mode;
use rustix::fs::OFlags;

use super::Doing;
use super::mount::give_options;
use super::mount::make_parent_private;
use super::mount::told;
use super::report::Trouble;
use crate::plan::step::Overlay;
use crate::sys::mount;
use crate::sys::mount::Configuration;

type Done = std::result::Result<(), Trouble>;

/// The layers of a root, opened by one who can reach them. Those of a user namespace may not be able to.
#[derive(Debug)]
pub struct Layers {
    /// A detached copy of the mount at the shared directory.
    pub lower: OwnedFd,
    /// A detached copy of the mount at a directory that holds the other two.
    pub home: OwnedFd,
    /// The directory that takes what is written, below the copy.
    pub upper: OwnedFd,
    /// The directory for the kernel's own use, below the copy.
    pub work: OwnedFd,
}

impl Doing {
    /// Makes the overlay, puts it over its lower directory, or over `/` where that is out of reach, and holds it.
    pub(super) fn take_overlay(&mut self, wanted: &Overlay) -> Done {
        let layers = self.outfit.layers.take();
        let place = layers
            .as_ref()
            .map_or(wanted.lower.as_path(), |_| Path::new("/"));
        let made = layered(wanted, layers.as_ref())?;
        make_parent_private(place)?;
        mount::attach(&made, open(place)?)?;
        self.root = Some(made);
        Ok(())
    }
}

/// A detached overlay: of layers that were opened outside, or of directories that are found by their paths.
///
/// # Errors
///
/// What the kernel, or its overlay file system, says against it.
pub fn layered(wanted: &Overlay, layers: Option<&Layers>) -> std::result::Result<OwnedFd, Trouble> {
    match layers {
        Some(layers) => lifted(wanted, layers),
        None => reached(wanted),
    }
}

/// Makes it of directories that are found by their paths.
fn reached(wanted: &Overlay) -> std::result::Result<OwnedFd, Trouble> {
    let (lower, upper, work) = (&wanted.lower, &wanted.upper, &wanted.work);
    make(wanted, [&open(lower)?, &open(upper)?, &open(work)?])
}

/// Makes it of layers that were opened outside. The kernel takes layers only from mounts of this mount namespace
/// (before Linux 6.15), so they are mounted here until it has copies of its own.
fn lifted(wanted: &Overlay, layers: &Layers) -> std::result::Result<OwnedFd, Trouble> {
    make_parent_private(Path::new("/"))?;
    let top = open(Path::new("/"))?;
    mount::attach(&layers.lower, &top)?;
    mount::attach(&layers.home, &top)?;
    let made = make(wanted, [&layers.lower, &layers.upper, &layers.work])?;
    // host path: where this process is.
    let here = rustix::fs::open(
        ".",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    );
    // The second was put over the first and goes with it.
    rustix::process::fchdir(&layers.lower)?;
    // host path: the directory that was just entered by its descriptor.
    rustix::mount::unmount(".", rustix::mount::UnmountFlags::DETACH)?;
    match here {
        Ok(here) => rustix::process::fchdir(here)?,
        // host path: the root itself.
        Err(_) => rustix::process::chdir("/")?,
    }
    Ok(made)
}

fn make(wanted: &Overlay, layers: [&OwnedFd; 3]) -> std::result::Result<OwnedFd, Trouble> {
    let new = Configuration::begin("overlay")?;
    for (key, layer) in ["lowerdir", "upperdir", "workdir"].into_iter().zip(layers) {
        let path = format!("/proc/self/fd/{}", layer.as_fd().as_raw_fd());
        new.option(key, Some(&path))
            .map_err(|errno| told(errno, &new))?;
    }
    give_options(&new, &wanted.options)?;
    new.create().map_err(|errno| told(errno, &new))?;
    Ok(new.mount(0)?)
}

fn open(path: &Path) -> std::result::Result<OwnedFd, Trouble> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // host path: a layer, which the caller named.
    rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| {
        let mut trouble = Trouble::from(errno);
        trouble.detail = format!("open {:?}", OsStr::new(path));
        trouble
    })
}
