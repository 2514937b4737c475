//! The place that CRIU restores into: the root and the host's mounts, each with its attributes already, in a mount
//! namespace that goes away with CRIU.
//!
//! What must be read-only is so before CRIU sees it. Mount points that a fresh root lacks are made by doing the plan's
//! own steps on a copy of the root mount, which is then let go.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;

use super::error::CriuError;
use super::request::MountMap;
use crate::backend::lift;
use crate::init;
use crate::plan::Plan;
use crate::plan::external::External;
use crate::sys::Errno;
use crate::sys::mount;
use crate::sys::mount::Configuration;
use crate::sys::mountinfo;
use crate::sys::mountinfo::Mounted;
use crate::sys::path;

/// `MS_SLAVE`: what the host mounts and unmounts is seen, nothing of ours is.
const SLAVE: u64 = 1 << 19;

/// The place that CRIU restores into.
#[derive(Debug)]
pub struct Yard<'a> {
    directory: &'a Path,
    rootfs: &'a Path,
    plan: &'a Plan,
    externals: &'a [External],
    images: OwnedFd,
    work: OwnedFd,
    lifted: BTreeMap<usize, OwnedFd>,
}

/// Of what a yard is made.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'a> {
    /// An empty directory of ours.
    pub directory: &'a Path,
    /// The root file system.
    pub rootfs: &'a Path,
    /// What is done to make the workspace.
    pub plan: &'a Plan,
    /// The mounts of it that are the host's.
    pub externals: &'a [External],
    /// The directory of the images.
    pub images: BorrowedFd<'a>,
    /// The directory of CRIU's log; CRIU mounts below it too.
    pub work: BorrowedFd<'a>,
}

impl<'a> Yard<'a> {
    /// A yard that will be built.
    ///
    /// # Errors
    ///
    /// Fails when an id-mapped mount cannot be made.
    pub fn new(ground: Ground<'a>) -> Result<Self, CriuError> {
        let mapped = ground
            .externals
            .iter()
            .enumerate()
            .filter(|(_, external)| external.bind.idmap.is_some());
        let lifted = mapped.map(|(index, external)| Ok((index, lift::lift(&external.bind)?)));
        let lifted = lifted.collect::<Result<_, CriuError>>()?;
        let copied = |directory: BorrowedFd<'_>| {
            let copy = directory.try_clone_to_owned();
            copy.map_err(|error| CriuError::Kernel {
                what: "copy a descriptor",
                source: Errno::from_io_error(&error).unwrap_or(Errno::MFILE),
            })
        };
        Ok(Self {
            directory: ground.directory,
            rootfs: ground.rootfs,
            plan: ground.plan,
            externals: ground.externals,
            images: copied(ground.images)?,
            work: copied(ground.work)?,
            lifted,
        })
    }

    /// The directory of the images: under the number by which CRIU knows it.
    #[must_use]
    pub fn images(&self) -> BorrowedFd<'_> {
        self.images.as_fd()
    }

    /// The directory of the log: under the number by which CRIU knows it.
    #[must_use]
    pub fn work(&self) -> BorrowedFd<'_> {
        self.work.as_fd()
    }

    pub(super) fn kept(&self) -> [BorrowedFd<'_>; 2] {
        [self.images(), self.work()]
    }

    /// Where the root is, for CRIU.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// The mounts that CRIU is told of, name and path, as process `pid` sees them: those of the externals, and what the
    /// host has mounted below them.
    ///
    /// # Errors
    ///
    /// Fails when the mounts cannot be read, or one that must be read-only is not.
    pub fn mounts(&self, pid: i32) -> Result<MountMap, CriuError> {
        let mounts = read_mounts(pid)?;
        let mut named = Vec::new();
        for (index, external) in self.externals.iter().enumerate() {
            let top = self.directory.join(index.to_string());
            for mounted in mounts.iter().filter(|mounted| mounted.at.starts_with(&top)) {
                let below = mounted.at.strip_prefix(&top).unwrap_or(Path::new(""));
                named.push((
                    name_below(external, below),
                    mounted.at.as_os_str().as_bytes().to_vec(),
                ));
            }
        }
        Ok(named)
    }

    /// What is shown by the externals, in their order, as process `pid` sees the yard.
    ///
    /// # Errors
    ///
    /// Fails when the mounts cannot be read.
    pub fn shown(&self, pid: i32) -> Result<Vec<(Mounted, bool)>, CriuError> {
        let mounts = read_mounts(pid)?;
        let shown = self.externals.iter().enumerate();
        Ok(shown
            .filter_map(|(index, external)| {
                let top = self.directory.join(index.to_string());
                let mounted = mountinfo::at(&mounts, &top)?;
                Some((mounted.clone(), external.read_only))
            })
            .collect())
    }

    /// Builds it, in a mount namespace of the caller's own; gives why that failed.
    pub(super) fn build(&mut self) -> Result<(), String> {
        let failed = |what: &'static str| move |errno: Errno| format!("{what}: {errno}");
        mount::propagate_all(SLAVE).map_err(failed("set the propagation of mounts"))?;
        self.open_again().map_err(failed("open the images again"))?;
        let here = open(self.directory).map_err(failed("open the yard"))?;
        let cover = Configuration::begin("tmpfs").and_then(|new| new.finish(0));
        cover
            .and_then(|cover| mount::attach(&cover, &here))
            .map_err(failed("mount the yard"))?;
        self.furnish()?;
        // host path: the root itself, which the caller named.
        let tree = mount::copy_tree_at(self.rootfs, true, true).map_err(failed("copy the root"))?;
        self.put("root", &tree)
            .map_err(failed("mount the root in the yard"))?;
        for (index, external) in self.externals.iter().enumerate() {
            let words = || format!("mount {}", external.bind.source.display());
            let tree = match self.lifted.remove(&index) {
                Some(tree) => Ok(tree),
                // host path: a source that the caller named.
                None => mount::copy_tree_at(
                    &external.bind.source,
                    external.bind.recursive,
                    external.bind.follow,
                ),
            };
            let tree = tree.map_err(|errno| format!("{}: {errno}", words()))?;
            init::set_attributes(&tree, &external.bind.attributes)
                .map_err(|trouble| format!("{}: {trouble}", words()))?;
            self.put(&index.to_string(), &tree)
                .map_err(|errno| format!("{}: {errno}", words()))?;
        }
        Ok(())
    }

    /// Opens the directories of images and log once more, in this mount namespace: CRIU cannot mount in those of another.
    ///
    /// They are opened where they are, because images name their parents by relative paths.
    fn open_again(&mut self) -> Result<(), Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        for number in [&mut self.images, &mut self.work] {
            let path = path::name_of(&*number)?;
            // host path: a directory that the caller named, and compared with the one that is held.
            let inner = rustix::fs::open(path, flags, Mode::empty())?;
            let (was, is) = (rustix::fs::fstat(&*number)?, rustix::fs::fstat(&inner)?);
            if (was.st_dev, was.st_ino) != (is.st_dev, is.st_ino) {
                return Err(Errno::STALE);
            }
            rustix::io::dup2(&inner, number)?;
        }
        Ok(())
    }

    /// Makes what mount points are missing in the root, as the workspace's creation would.
    fn furnish(&self) -> Result<(), String> {
        let failed = |errno: Errno| format!("copy the root: {errno}");
        // host path: the root itself, which the caller named.
        let tree = mount::copy_tree_at(self.rootfs, true, true).map_err(failed)?;
        self.put("scratch", &tree).map_err(failed)?;
        init::furnish(&self.plan.steps, tree, BTreeMap::new()).map_err(|(index, trouble)| {
            let step = self.plan.steps.get(index).map(ToString::to_string);
            format!("step {index}: {}: {trouble}", step.unwrap_or_default())
        })?;
        let scratch = self.directory.join("scratch");
        // host path: a directory of the yard, which nobody else sees.
        rustix::mount::unmount(scratch, rustix::mount::UnmountFlags::DETACH).map_err(failed)
    }

    fn put(&self, name: &str, tree: &OwnedFd) -> Result<(), Errno> {
        let yard = open(self.directory)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        if path::is_kind(tree.as_fd(), FileType::Directory)? {
            rustix::fs::mkdirat(&yard, name, Mode::from_raw_mode(0o755))?;
        } else {
            path::make_file(&yard, &Path::new("/").join(name))?;
        }
        let place = path::open_plain_in(&yard, Path::new(name), flags)?;
        mount::attach(tree, &place)
    }
}

/// The name of a mount below an external one: the host's, since what is below is found on the host.
#[must_use]
pub fn name_below(external: &External, below: &Path) -> Vec<u8> {
    let mut name = external.name.clone().into_bytes();
    if !below.as_os_str().is_empty() {
        name.push(b'!');
        name.extend_from_slice(below.as_os_str().as_bytes());
    }
    name
}

fn read_mounts(pid: i32) -> Result<Vec<Mounted>, CriuError> {
    mountinfo::of_process(pid).map_err(|error| CriuError::Kernel {
        what: "read the mounts of criu",
        source: Errno::from_io_error(&error).unwrap_or(Errno::IO),
    })
}

fn open(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // host path: a directory of the yard, which nobody else sees.
    rustix::fs::open(path, flags, Mode::empty())
}
