//! Standing still, being killed, being empty and being gone.
//!
//! Every wait is for the event itself: the kernel marks `cgroup.events` as changed, which `poll(2)` sees, and everything
//! has a deadline. It tells of changes every 10 ms at most, and forgets one that is due when somebody removes the cgroup
//! before that (`cgroup_rm_file`, Linux 6.18): so who waits looks again from time to time.

use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::process::Pid;
use rustix::process::Signal;

use crate::enclosure::Enclosure;
use crate::enclosure::EnclosureError;
use crate::enclosure::Result;
use crate::enclosure::group::Group;
use crate::enclosure::group::State;
use crate::enclosure::group::read_again;
use crate::enclosure::systemd;
use crate::plan::cgroup::Place;
use crate::sys::Errno;

/// How long standing still may take: a process in an uninterruptible wait of the kernel's cannot be stopped.
const PATIENCE: Duration = Duration::from_secs(8);

/// How long an event is waited for before the state is looked at again.
const UNTOLD: Duration = Duration::from_millis(50);

impl Enclosure {
    /// Stops every process where it stands, and waits until all stand.
    ///
    /// # Errors
    ///
    /// If there is no cgroup, or somebody does not come to stand within eight seconds; then all may run again.
    pub fn freeze(&self) -> Result<()> {
        self.set_frozen("1")?;
        let stood = self.wait(Instant::now() + PATIENCE, "frozen", |state| state.frozen);
        if stood.is_err() {
            // The error to report is the first one; half a standstill is worse than none.
            self.set_frozen("0").unwrap_or_default();
        }
        stood
    }

    /// Lets every process go on.
    ///
    /// # Errors
    ///
    /// If there is no cgroup.
    pub fn thaw(&self) -> Result<()> {
        self.set_frozen("0")?;
        self.wait(Instant::now() + PATIENCE, "thawed", |state| !state.frozen)
    }

    /// Whether the processes have been told to stand still.
    ///
    /// # Errors
    ///
    /// If the state cannot be read. What is gone does not stand still.
    pub fn frozen(&self) -> Result<bool> {
        match self.group.as_ref().map(|group| group.read("cgroup.freeze")) {
            None | Some(Err(Errno::NOENT | Errno::NODEV)) => Ok(false),
            Some(Ok(text)) => Ok(text.trim() == "1"),
            Some(Err(source)) => Err(self.failed("read the state of", source)),
        }
    }

    /// Kills every process, also those that stand still, and those that are being born.
    ///
    /// # Errors
    ///
    /// If the kernel refuses. What is gone has been killed.
    pub fn kill(&self) -> Result<()> {
        let Some(group) = &self.group else {
            return Ok(());
        };
        match group.write("cgroup.kill", "1") {
            Ok(()) | Err(Errno::NODEV) => Ok(()),
            // Before Linux 5.14, in a group of threads, and when there is no group any more.
            Err(Errno::NOENT | Errno::OPNOTSUPP) => self.kill_each(),
            Err(source) => Err(self.failed("kill", source)),
        }
    }

    /// Kills one by one, while nobody can run away by forking.
    fn kill_each(&self) -> Result<()> {
        let stands = self.freeze().is_ok();
        let killed = self.processes().map(|all| {
            for pid in all.into_iter().filter_map(Pid::from_raw) {
                // Whoever is not there any more has nothing to be killed for.
                rustix::process::kill_process(pid, Signal::KILL).unwrap_or_default();
            }
        });
        if stands {
            killed.and(self.set_frozen("0"))
        } else {
            killed
        }
    }

    /// Waits until nobody is in the cgroup or below it.
    ///
    /// # Errors
    ///
    /// [`EnclosureError::Late`] if that takes longer than until `deadline`.
    pub fn wait_empty(&self, deadline: Instant) -> Result<()> {
        self.wait(deadline, "empty", |state| !state.populated)
    }

    /// Whether anybody is in the cgroup or below it.
    ///
    /// # Errors
    ///
    /// If the state cannot be read. Nobody is in what is gone.
    pub fn populated(&self) -> Result<bool> {
        match self.group.as_ref().map(Group::state) {
            None | Some(Err(Errno::NOENT | Errno::NODEV)) => Ok(false),
            Some(Ok(state)) => Ok(state.populated),
            Some(Err(source)) => Err(self.failed("read the state of", source)),
        }
    }

    /// Whether there are groups below it.
    #[must_use]
    pub fn is_divided(&self) -> bool {
        let children = self.group.as_ref().map(Group::children);
        children.is_some_and(|children| children.is_ok_and(|names| !names.is_empty()))
    }

    /// Every process in the cgroup and below it, by its number in the caller's own pid namespace, in ascending order.
    ///
    /// # Errors
    ///
    /// If the cgroup cannot be read. Nobody is in what is gone.
    pub fn processes(&self) -> Result<Vec<i32>> {
        match self.group.as_ref().map(everybody) {
            None | Some(Err(Errno::NOENT | Errno::NODEV)) => Ok(Vec::new()),
            Some(Ok(pids)) => Ok(pids),
            Some(Err(source)) => Err(self.failed("list", source)),
        }
    }

    /// Removes a cgroup that nobody and nothing is in; gives whether that is done.
    #[must_use]
    pub fn remove_if_empty(place: &Place) -> bool {
        let Place::Directory { mount, path } = place else {
            return false;
        };
        unmade_if_empty(&mount.join(path))
    }

    /// Removes the cgroup and everything below it, deepest first; goes on after an error and reports all.
    ///
    /// # Errors
    ///
    /// If there is still anybody in it. What is gone is removed.
    pub fn remove(&mut self) -> Result<()> {
        let whole = self.path();
        let mut errors = Vec::new();
        if let Place::Scope { unit, .. } = &self.place {
            errors.extend(systemd::stop(unit).err().map(EnclosureError::from));
        }
        let Some(group) = self.group.take() else {
            return one_or_all(errors);
        };
        // Nearly all have nothing below them: then there is nothing to look for.
        if unmade_if_empty(&whole) {
            return one_or_all(errors);
        }
        let (Some(parent), Some(name)) = (whole.parent(), whole.file_name()) else {
            return Err(self.failed("remove", Errno::BUSY));
        };
        match Group::root(parent) {
            Ok(Some(parent)) => {
                empty_out(&group, &whole, &mut errors);
                unmake(&parent, Path::new(name), &whole, &mut errors);
            }
            Ok(None) | Err(Errno::NOENT) => {}
            Err(source) => errors.push(EnclosureError::Group {
                action: "open",
                group: parent.to_owned(),
                source,
            }),
        }
        one_or_all(errors)
    }

    fn set_frozen(&self, value: &str) -> Result<()> {
        let action = if value == "1" { "freeze" } else { "thaw" };
        let group = self.group.as_ref().ok_or_else(|| self.missing(action))?;
        group
            .write("cgroup.freeze", value)
            .map_err(|source| self.failed(action, source))
    }

    fn wait(
        &self,
        deadline: Instant,
        state: &'static str,
        reached: impl Fn(State) -> bool,
    ) -> Result<()> {
        let Some(group) = &self.group else {
            return Ok(());
        };
        match wait_for(group, deadline, reached) {
            Ok(true) | Err(Errno::NOENT | Errno::NODEV) => Ok(()),
            Ok(false) => Err(EnclosureError::Late {
                group: self.path(),
                state,
            }),
            Err(source) => Err(self.failed("wait for", source)),
        }
    }
}

/// Waits for a state of a group; false if the deadline comes first.
fn wait_for(
    group: &Group,
    deadline: Instant,
    reached: impl Fn(State) -> bool,
) -> crate::sys::Result<bool> {
    let events = group.open("cgroup.events")?;
    loop {
        // Reading is also what arms the next event.
        if reached(State::parse(&read_again(&events)?)) {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let left = Timespec::try_from(left.min(UNTOLD)).map_err(|_| Errno::INVAL)?;
        match rustix::event::poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&left)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Everybody in a group and below it.
fn everybody(group: &Group) -> crate::sys::Result<Vec<i32>> {
    let mut pids = group.own_processes()?;
    for child in group.children()? {
        match group
            .below(Path::new(&child))
            .and_then(|child| everybody(&child))
        {
            Ok(more) => pids.extend(more),
            Err(Errno::NOENT | Errno::NODEV) => {}
            Err(errno) => return Err(errno),
        }
    }
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

/// Removes the group of this directory, if nobody and nothing is in it; gives whether that is done.
fn unmade_if_empty(whole: &Path) -> bool {
    let (Some(parent), Some(name)) = (whole.parent(), whole.file_name()) else {
        return false;
    };
    let parent = Group::root(parent).ok().flatten();
    parent.is_some_and(|parent| parent.unmake(Path::new(name)).is_ok())
}

/// Removes everything below a group.
fn empty_out(group: &Group, whole: &Path, errors: &mut Vec<EnclosureError>) {
    let children = match group.children() {
        Ok(children) => children,
        Err(Errno::NOENT | Errno::NODEV) => return,
        Err(source) => {
            errors.push(EnclosureError::Group {
                action: "list",
                group: whole.to_owned(),
                source,
            });
            return;
        }
    };
    for name in children {
        let path = whole.join(&name);
        if let Ok(child) = group.below(Path::new(&name)) {
            empty_out(&child, &path, errors);
        }
        unmake(group, Path::new(&name), &path, errors);
    }
}

fn unmake(parent: &Group, name: &Path, whole: &Path, errors: &mut Vec<EnclosureError>) {
    match parent.unmake(name) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(source) => errors.push(EnclosureError::Group {
            action: "remove",
            group: whole.to_owned(),
            source,
        }),
    }
}

/// No error, the only one, or all together.
fn one_or_all(mut errors: Vec<EnclosureError>) -> Result<()> {
    match errors.len() {
        0 => Ok(()),
        1 => Err(errors.remove(0)),
        _ => Err(EnclosureError::Several(errors)),
    }
}
