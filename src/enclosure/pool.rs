//! The group in which workspaces are weighed against each other, and its weight against its own neighbours.
//!
//! A protection of memory holds only as far as every group above has it too, and a weight only against neighbours: so
//! what is promised to workspaces is said once more of the group that they share.

use std::path::Path;
use std::path::PathBuf;

use crate::enclosure::Enclosure;
use crate::enclosure::EnclosureError;
use crate::enclosure::Result;
use crate::enclosure::birth;
use crate::enclosure::group::Group;
use crate::plan::cgroup::CgroupWrite;
use crate::plan::cgroup::Limits;
use crate::plan::cgroup::Place;
use crate::plan::cgroup::Unit;
use crate::plan::cgroup::guarantee;
use crate::plan::entitlement;
use crate::sys::Errno;

/// The group that several workspaces are in.
#[derive(Debug)]
pub struct Pool {
    /// It, with its own limits.
    own: Enclosure,
    mount: PathBuf,
    path: PathBuf,
}

impl Pool {
    /// The pool of a workspace at `place`; none if there it is not weighed against others.
    ///
    /// # Errors
    ///
    /// If the cgroups cannot be looked at.
    pub fn of(place: &Place) -> Result<Option<Self>> {
        let (mount, unit) = match place {
            Place::Nowhere => return Ok(None),
            Place::Directory { mount, .. } => (mount.clone(), None),
            Place::Scope { mount, unit, .. } => (mount.clone(), Some(unit)),
        };
        let Some(path) = place.pool().map(Path::to_owned) else {
            return Ok(None);
        };
        let own = match unit {
            None => Place::Directory {
                mount: mount.clone(),
                path: path.clone(),
            },
            Some(unit) => Place::Scope {
                mount: mount.clone(),
                path: path.clone(),
                unit: Unit {
                    name: unit.slice.clone(),
                    slice: unit.slice.clone(),
                    user: unit.user,
                },
            },
        };
        let own = Enclosure::open(&own)?;
        Ok(Some(Self { own, mount, path }))
    }

    /// Where it is, from the mount point on.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What its neighbours weigh together: the groups beside it but for other pools, and at the root of all the
    /// processes that are in no group, as one.
    ///
    /// # Errors
    ///
    /// If the groups cannot be listed.
    pub fn neighbours(&self) -> Result<u64> {
        self.beside(|group, name| number(group, name, guarantee::CPU_WEIGHT))
    }

    /// What they weigh together for a disk, by the weights in `file`.
    ///
    /// # Errors
    ///
    /// If the groups cannot be listed.
    pub fn neighbours_on(&self, disk: &str, file: &str) -> Result<u64> {
        self.beside(|group, name| {
            let text = group.below(Path::new(name)).ok()?.read(file).ok()?;
            let usual = || line_of(&text, "default").and_then(|weight| weight.parse().ok());
            let own = line_of(&text, disk).and_then(|weight| weight.parse().ok());
            own.or_else(usual)
        })
    }

    fn beside(&self, weight: impl Fn(&Group, &str) -> Option<u64>) -> Result<u64> {
        let around = self.path.parent().unwrap_or(Path::new(""));
        let failed = |source| EnclosureError::Group {
            action: "list",
            group: self.mount.join(around),
            source,
        };
        let itself = around.as_os_str().is_empty();
        let here = if itself { Path::new(".") } else { around };
        let Some(group) = birth::find(&self.mount, here)? else {
            return Ok(0);
        };
        // Only the first group of all may have processes of its own beside groups that are weighed.
        let processes = match group.read("cgroup.type") {
            Err(Errno::NOENT) => entitlement::USUAL,
            _ => 0,
        };
        let names = group.children().map_err(failed)?;
        let beside = names.iter().filter(|name| {
            let path = around.join(name).join("any");
            let mount = self.mount.clone();
            Place::Directory { mount, path }.pool().is_none()
        });
        let weights = beside.filter_map(|name| weight(&group, name));
        Ok(weights.fold(processes, u64::saturating_add))
    }

    /// The memory that is promised to the groups in it together.
    ///
    /// # Errors
    ///
    /// If the groups cannot be listed.
    pub fn protected(&self) -> Result<u64> {
        let Some(group) = birth::find(&self.mount, &self.path)? else {
            return Ok(0);
        };
        let names = group.children().map_err(|source| EnclosureError::Group {
            action: "list",
            group: self.mount.join(&self.path),
            source,
        })?;
        let sizes = names
            .iter()
            .filter_map(|name| number(&group, name, guarantee::MEMORY_MIN));
        Ok(sizes.fold(0, u64::saturating_add))
    }

    /// Gives the group a value, unless it has it.
    ///
    /// # Errors
    ///
    /// As [`Enclosure::settle`].
    pub fn settle(&mut self, file: &str, value: u64, key: &str) -> Result<()> {
        self.own.settle(file, value, key)
    }

    /// Gives the group a weight for a disk, unless it has it; none is the usual one.
    ///
    /// # Errors
    ///
    /// As [`Enclosure::settle`].
    pub fn settle_disk(&mut self, disk: &str, file: &str, weight: Option<u64>) -> Result<()> {
        self.own.settle_disk(disk, file, weight)
    }

    /// The disks that the group has a weight of its own for.
    #[must_use]
    pub fn disks(&self, file: &str) -> Vec<String> {
        let text = self
            .own
            .group
            .as_ref()
            .and_then(|group| group.read(file).ok());
        let text = text.unwrap_or_default();
        let first = text.lines().filter_map(|line| line.split(' ').next());
        first
            .filter(|word| word.contains(':'))
            .map(str::to_owned)
            .collect()
    }
}

impl Enclosure {
    /// Writes what a promise needs, unless it stands there. What is gone, or has no such file, needs nothing.
    ///
    /// # Errors
    ///
    /// If the value is not taken.
    pub fn settle(&mut self, file: &str, value: u64, key: &str) -> Result<()> {
        let Some(group) = &self.group else {
            return Ok(());
        };
        let stands = match group.read(file) {
            Err(Errno::NOENT | Errno::NODEV) => return Ok(()),
            Err(source) => return Err(self.failed("read the limits of", source)),
            Ok(text) => text.trim() == value.to_string(),
        };
        // A group that is idle has no weight, and takes none.
        let idle = file == guarantee::CPU_WEIGHT
            && group.read("cpu.idle").is_ok_and(|idle| idle.trim() == "1");
        if stands || idle {
            return Ok(());
        }
        self.write(guarantee::write(file, value, key))
    }

    /// Writes what a promise of a disk needs, unless it stands there; none is the usual weight.
    ///
    /// # Errors
    ///
    /// As [`Enclosure::settle`].
    pub fn settle_disk(&mut self, disk: &str, file: &str, weight: Option<u64>) -> Result<()> {
        let Some(group) = &self.group else {
            return Ok(());
        };
        let text = match group.read(file) {
            Err(Errno::NOENT | Errno::NODEV) => return Ok(()),
            other => other.map_err(|source| self.failed("read the limits of", source))?,
        };
        let wanted = weight.map(|weight| weight.to_string());
        if line_of(&text, disk) == wanted.as_deref() {
            return Ok(());
        }
        self.write(guarantee::disk_write(disk, file, weight))
    }

    fn write(&mut self, write: CgroupWrite) -> Result<()> {
        let limits = Limits {
            writes: vec![write],
            ..Limits::default()
        };
        match self.update(&limits) {
            Err(EnclosureError::Limit {
                source: Errno::NOENT | Errno::NODEV,
                ..
            }) => Ok(()),
            answer => answer,
        }
    }
}

/// What stands after a word in the line that begins with it.
fn line_of<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines
        .find(|(first, _)| *first == word)
        .map(|(_, rest)| rest.trim())
}

/// The number in a file of a child group; none if there is none.
fn number(group: &Group, child: &str, file: &str) -> Option<u64> {
    let text = group.below(Path::new(child)).ok()?.read(file).ok()?;
    match text.trim() {
        "max" => Some(u64::MAX),
        text => text.parse().ok(),
    }
}
