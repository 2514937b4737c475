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
        let weights = beside.filter_map(|name| number(&group, name, guarantee::CPU_WEIGHT));
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
        let limits = Limits {
            writes: vec![guarantee::write(file, value, key)],
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

/// The number in a file of a child group; none if there is none.
fn number(group: &Group, child: &str, file: &str) -> Option<u64> {
    let text = group.below(Path::new(child)).ok()?.read(file).ok()?;
    match text.trim() {
        "max" => Some(u64::MAX),
        text => text.parse().ok(),
    }
}
