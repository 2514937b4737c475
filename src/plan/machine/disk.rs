//! File systems on block devices and in image files: a machine has each as a disk of its own, byte for byte.

use std::fmt;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use crate::spec::Spec;
use crate::spec::mount_options::MountOptions;
use crate::spec::mount_options::superblock;
use crate::spec::mounts::Mount;

/// The most disks of a machine: one letter names each.
pub(super) const MOST: usize = 26;

/// A disk of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// The block device or raw image, on the host.
    pub path: PathBuf,
    /// Whether the machine cannot write to it.
    pub read_only: bool,
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.read_only { ", read-only" } else { "" };
        write!(f, "{}{how}", self.path.display())
    }
}

/// Whether a mount shows a file system that is on a disk.
#[must_use]
pub fn is_on_disk(mount: &Mount) -> bool {
    let read = MountOptions::of(mount);
    !read.remount && read.bind.is_none() && mount.is_on_disk()
}

/// The disks that the mounts of a spec need: one for each source, writable if any of its mounts is.
pub(super) fn of(spec: &Spec, bundle: &Path) -> Vec<Disk> {
    let mut disks: Vec<Disk> = Vec::new();
    for mount in spec.mounts.iter().filter(|mount| is_on_disk(mount)) {
        let path = bundle.join(&mount.source);
        let read_only = only_read(mount);
        match disks.iter_mut().find(|disk| disk.path == path) {
            Some(disk) => disk.read_only &= read_only,
            None => disks.push(Disk { path, read_only }),
        }
    }
    disks
}

fn only_read(mount: &Mount) -> bool {
    mount.is_fixed() || MountOptions::of(mount).superblock.set & superblock::RDONLY != 0
}

/// Lets the mounts of a guest's spec begin at the disks, where its kernel has them.
pub(super) fn redirect(mounts: &mut [Mount], disks: &[Disk], bundle: &Path) {
    for mount in mounts.iter_mut().filter(|mount| is_on_disk(mount)) {
        let path = bundle.join(&mount.source);
        let number = disks.iter().position(|disk| disk.path == path);
        let letter = number.and_then(|number| ('a'..='z').nth(number));
        mount.source = format!("/dev/vd{}", letter.unwrap_or_default());
    }
}
