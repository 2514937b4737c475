//! The box that a workspace lives in: its cgroup, its device filter, its counters.
//!
//! Both kinds of workspace are kept in the same box, so freezing, killing, limiting and counting are written here,
//! once. An [`Enclosure`] is made from a plan ([`Enclosure::prepare`]) or found again from where it is
//! ([`Enclosure::open`]); it keeps no memory between commands. A box that is gone can still be asked to be killed,
//! emptied and removed, for that is what it is then.

mod birth;
pub mod counters;
mod device;
mod error;
mod group;
mod life;
mod limits;
pub mod pool;
pub mod rdt;
mod shortage;
mod systemd;
pub mod threads;
pub mod watch;

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::path::PathBuf;

pub use error::EnclosureError;
pub use shortage::Shortage;
pub use systemd::SystemdError;

pub use crate::plan::cgroup::Place;

use crate::defence::Defence;
use crate::enclosure::group::Group;
use crate::plan::cgroup::CgroupPlan;
use crate::plan::cgroup::Limits;
use crate::plan::cgroup::unit;
use crate::sys::Errno;
use crate::sys::pseudo;

/// The cgroup of one workspace.
#[derive(Debug)]
pub struct Enclosure {
    place: Place,
    group: Option<Group>,
    found: bool,
    waiting: Option<CgroupPlan>,
    remarks: Vec<String>,
}

/// What most of this module gives.
type Result<T> = std::result::Result<T, EnclosureError>;

impl Enclosure {
    /// Makes the cgroup of a plan, with its limits, for processes to be born in.
    ///
    /// What devices they may use is said by [`Enclosure::filter_devices`], before any program runs there. What systemd
    /// makes is made with the first process, by [`Enclosure::adopt`]. If anything fails, what was made is removed again.
    ///
    /// # Errors
    ///
    /// If there is a cgroup already with anybody in it or that is frozen; if a controller cannot be enabled; if a
    /// limit is not taken: the message then begins with the field that asked for it.
    pub fn prepare(plan: &CgroupPlan) -> Result<Self> {
        let mut made = Self::nowhere(plan.place.clone());
        made.remarks.clone_from(&plan.limits.ignored);
        match &plan.place {
            Place::Nowhere => {}
            Place::Scope { mount, path, .. } => {
                birth::refuse_if_inhabited(mount, path)?;
                made.waiting = Some(plan.clone());
            }
            Place::Directory { mount, path } => match birth::make(mount, path, plan) {
                Ok(birthplace) => {
                    made.group = Some(birthplace.group);
                    made.found = birthplace.found;
                }
                // Nothing that was asked for depends on it, so nobody is told each time.
                Err(error) if plan.dispensable && error.is_refusal() => made.place = Place::Nowhere,
                Err(error) => return Err(error),
            },
        }
        Ok(made)
    }

    /// Puts the device filter of a plan at the cgroup that was made; gives why that could be done without. The kernel
    /// takes as long to check and translate a filter as to make ten mounts, so this is for the time when a process that
    /// was born there is at work on itself, and runs no program yet.
    ///
    /// # Errors
    ///
    /// [`EnclosureError::Filter`] when the kernel does not take it.
    pub fn filter_devices(&self, limits: &Limits) -> Result<Option<String>> {
        let Some((group, filter)) = self.group.as_ref().zip(limits.devices.as_ref()) else {
            return Ok(None);
        };
        let whole = self.directory().unwrap_or_default();
        device::put(group, &whole, filter, limits.filter_optional)
    }

    /// Finds the cgroup of a workspace again. That there is none any more is no error.
    ///
    /// # Errors
    ///
    /// If the mount point is not one of cgroup2, or may not be looked at.
    pub fn open(place: &Place) -> Result<Self> {
        let mut found = Self::nowhere(place.clone());
        if let Place::Directory { mount, path } | Place::Scope { mount, path, .. } = place {
            found.group = birth::find(mount, path)?;
        }
        Ok(found)
    }

    /// Whether the processes of a cgroup have been told to stand still, without opening it for anything else. What is gone
    /// does not stand still.
    ///
    /// # Errors
    ///
    /// Fails when the kernel does not tell: for want of descriptors, say.
    pub fn stands_still(place: &Place) -> std::result::Result<bool, Errno> {
        let Some(group) = place.directory() else {
            return Ok(false);
        };
        match pseudo::record(group.join("cgroup.freeze")) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NODEV) => Ok(false),
            answer => Ok(answer?.starts_with(b"1")),
        }
    }

    /// Finds a cgroup by its directory, for when nothing else is left of the workspace.
    ///
    /// # Errors
    ///
    /// As [`Enclosure::open`]; besides, if the directory is relative, or the root of a mount.
    pub fn at(directory: &Path) -> Result<Self> {
        let outside = || EnclosureError::NotACgroup {
            group: directory.to_owned(),
        };
        let (mount, path) = birth::split(directory)?.ok_or_else(outside)?;
        Self::open(&Place::Directory { mount, path })
    }

    fn nowhere(place: Place) -> Self {
        Self {
            place,
            group: None,
            found: false,
            waiting: None,
            remarks: Vec::new(),
        }
    }

    /// The directory for `clone3(2)` to put the first process in (`CLONE_INTO_CGROUP`).
    ///
    /// None if there is no directory yet, or will be none: then the process has to be adopted.
    #[must_use]
    pub fn birthplace(&self) -> Option<BorrowedFd<'_>> {
        self.group.as_ref().map(Group::descriptor)
    }

    /// Takes in a process that was born elsewhere, and makes what could not be made without one.
    ///
    /// With systemd this starts threads for as long as it takes; nothing may be cloned meanwhile.
    ///
    /// # Errors
    ///
    /// If systemd does not make the scope, or a limit is not taken.
    pub fn adopt(&mut self, pid: i32) -> Result<()> {
        if let Some(plan) = self.waiting.take() {
            return self.adopt_by_systemd(pid, &plan);
        }
        let Some(group) = &self.group else {
            return Ok(());
        };
        group
            .write("cgroup.procs", &pid.to_string())
            .map_err(|source| self.failed("move the process to", source))
    }

    fn adopt_by_systemd(&mut self, pid: i32, plan: &CgroupPlan) -> Result<()> {
        let Place::Scope { mount, path, unit } = &mut self.place else {
            return Ok(());
        };
        let mut properties = plan.properties.clone();
        properties.extend(unit::properties(&plan.limits));
        *path = systemd::start(unit, pid, &properties)?;
        self.group = Some(birth::finish(mount, path, plan)?);
        let remark = self.filter_devices(&plan.limits)?;
        self.remarks.extend(remark);
        Ok(())
    }

    /// Where this is, to be kept and given to [`Enclosure::open`] later.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The directory, if there is one.
    #[must_use]
    pub fn directory(&self) -> Option<PathBuf> {
        self.place.directory()
    }

    /// Whether there is a cgroup at the place.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.group.is_some()
    }

    /// Whether the cgroup was there before [`Enclosure::prepare`], and so is somebody else's to remove.
    #[must_use]
    pub fn was_there(&self) -> bool {
        self.found
    }

    /// What went wrong and was survived, and what has no meaning here, a sentence each.
    #[must_use]
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// Changes the limits of a workspace that is there.
    ///
    /// # Errors
    ///
    /// If a limit is not taken; those that were in force before are in force again then.
    pub fn update(&mut self, limits: &Limits) -> Result<()> {
        let action = "set limits";
        let group = self.group.as_ref().ok_or_else(|| self.missing(action))?;
        limits::check(group, limits)?;
        if let Place::Directory { mount, path } = &self.place {
            birth::provide(mount, path, &limits.controllers)?;
        }
        let before = limits::before(group, limits);
        let changed = self.change(group, limits);
        if changed.is_err() {
            // The first error is the one to tell; whatever can be put back is.
            self.tell(&before).unwrap_or_default();
            limits::put_back(group, &before);
        }
        changed
    }

    fn change(&self, group: &Group, limits: &Limits) -> Result<()> {
        self.tell(limits)?;
        limits::update(group, &self.path(), limits)
    }

    /// Tells systemd, which would else write its own values again.
    fn tell(&self, limits: &Limits) -> Result<()> {
        let properties = unit::properties(limits);
        if let Place::Scope { unit, .. } = &self.place
            && !properties.is_empty()
        {
            systemd::change(unit, &properties)?;
        }
        Ok(())
    }

    /// What is in force, for planning an update.
    ///
    /// # Errors
    ///
    /// If the files of the cgroup cannot be read.
    pub fn present(&self) -> Result<crate::plan::cgroup::Present> {
        match &self.group {
            Some(group) => {
                limits::present(group).map_err(|source| self.failed("read the limits of", source))
            }
            None => Ok(crate::plan::cgroup::Present::default()),
        }
    }

    /// A group below this one, for `exec --cgroup`: `/` and the empty path are this one itself.
    ///
    /// # Errors
    ///
    /// If the path leads outside, or there is no such group.
    pub fn below(&self, path: &Path) -> Result<Self> {
        let outside = || EnclosureError::Outside {
            path: path.to_owned(),
        };
        let below = path.strip_prefix("/").unwrap_or(path);
        let plain = below
            .components()
            .all(|part| matches!(part, std::path::Component::Normal(_)));
        let (true, Some(group)) = (plain || Defence::CgroupBelow.is_out(), &self.group) else {
            return Err(outside());
        };
        let whole = self.path().join(below);
        let here = if below.as_os_str().is_empty() {
            Path::new(".")
        } else {
            below
        };
        let group = group.below(here).map_err(|source| match source {
            Errno::XDEV | Errno::LOOP => outside(),
            source => EnclosureError::Group {
                action: "open",
                group: whole.clone(),
                source,
            },
        })?;
        let (mount, path) = birth::split(&whole)?.ok_or_else(outside)?;
        let place = Place::Directory { mount, path };
        Ok(Self {
            group: Some(group),
            ..Self::nowhere(place)
        })
    }

    /// A part of a machine's enclosure ([`threads`]), with a limit of its own; none when it was not divided.
    #[must_use]
    pub fn part(&self, name: &str) -> Option<Self> {
        self.below(Path::new(name)).ok()
    }

    fn path(&self) -> PathBuf {
        self.place.directory().unwrap_or_default()
    }

    /// What cannot be done without a cgroup, and why there is none.
    fn missing(&self, action: &'static str) -> EnclosureError {
        EnclosureError::NoCgroup {
            action,
            why: match self.place {
                Place::Directory { .. } | Place::Scope { .. } => "its cgroup is not there any more",
                Place::Nowhere if rustix::process::geteuid().is_root() => {
                    "the workspace has no cgroup of its own; start it without `--cgroup-manager disabled`"
                }
                Place::Nowhere => {
                    "the workspace has no cgroup of its own; start it where its user may make cgroups (delegation, \
                     cgroups(7))"
                }
            },
        }
    }

    fn failed(&self, action: &'static str, source: Errno) -> EnclosureError {
        EnclosureError::Group {
            action,
            group: self.path(),
            source,
        }
    }
}
