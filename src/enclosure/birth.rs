//! How a cgroup comes to be: found, or made with everything on the way to it.
//!
//! The usual case, a parent that is there and gives its children what is needed, costs one `mkdir`. Controllers are
//! enabled from the root down only where one is missing.

use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;

use crate::enclosure::EnclosureError;
use crate::enclosure::Result;
use crate::enclosure::group::Group;
use crate::enclosure::limits;
use crate::plan::cgroup::CgroupPlan;
use crate::sys::Errno;

/// The controllers that can tell the threads of one process apart; all others need whole processes.
const OF_THREADS: [&str; 4] = ["cpu", "cpuset", "perf_event", "pids"];

/// A group for somebody to be born in.
#[derive(Debug)]
pub(super) struct Birthplace {
    /// The group.
    pub(super) group: Group,
    /// Whether it was there before.
    pub(super) found: bool,
}

/// Makes a group with its limits and its owner, and no filter yet; removes it again if that fails.
pub(super) fn make(mount: &Path, path: &Path, plan: &CgroupPlan) -> Result<Birthplace> {
    let root = root(mount)?;
    let made = make_path(&root, mount, path, &plan.limits.controllers)?;
    let found = made.last().is_none_or(|last| last != path);
    count(&root, path, &plan.counted);
    let group = equip(&root, mount, path, (plan, found)).inspect_err(|_| {
        for path in made.iter().rev() {
            // What cannot be removed has become somebody else's.
            root.unmake(path).unwrap_or_default();
        }
    })?;
    Ok(Birthplace { group, found })
}

/// Refuses a place where somebody is already; what is empty may go and be made again.
pub(super) fn refuse_if_inhabited(mount: &Path, path: &Path) -> Result<()> {
    find(mount, path)?.map_or(Ok(()), |group| refuse_inhabited(&group, &mount.join(path)))
}

/// Sets the limits of a group that systemd has made, with somebody in it; those controllers that systemd does not know
/// are enabled first.
pub(super) fn finish(mount: &Path, path: &Path, plan: &CgroupPlan) -> Result<Group> {
    provide(mount, path, &plan.limits.controllers)?;
    let root = root(mount)?;
    count(&root, path, &plan.counted);
    let group = open(&root, path).map_err(|source| failed("open", mount, path, source))?;
    limit(&group, mount, path, plan)?;
    Ok(group)
}

/// Enables the controllers that only count, one by one: what cannot be had is done without.
fn count(root: &Group, path: &Path, controllers: &BTreeSet<String>) {
    let parent = path.parent().unwrap_or(Path::new(""));
    if gives(root, parent, controllers) {
        return;
    }
    let mut on_the_way: Vec<&Path> = parent.ancestors().collect();
    on_the_way.reverse();
    for group in on_the_way.iter().filter_map(|here| open(root, here).ok()) {
        for name in missing(&group, controllers) {
            let enabled = group.write("cgroup.subtree_control", &format!("+{name}"));
            enabled.unwrap_or_default();
        }
    }
}

/// Gives a group that is there the controllers that it lacks, from the root on.
pub(super) fn provide(mount: &Path, path: &Path, controllers: &BTreeSet<String>) -> Result<()> {
    let root = root(mount)?;
    let parent = path.parent().unwrap_or(Path::new(""));
    if gives(&root, parent, controllers) {
        return Ok(());
    }
    let mut on_the_way: Vec<&Path> = parent.ancestors().collect();
    on_the_way.reverse();
    on_the_way
        .iter()
        .try_for_each(|here| enable(&root, mount, here, controllers))
}

/// Finds a group; none if it is gone.
pub(super) fn find(mount: &Path, path: &Path) -> Result<Option<Group>> {
    let root = match root(mount) {
        Err(EnclosureError::Group {
            source: Errno::NOENT,
            ..
        }) => return Ok(None),
        other => other?,
    };
    match root.below(path) {
        Ok(group) => Ok(Some(group)),
        Err(Errno::NOENT | Errno::NODEV) => Ok(None),
        Err(source) => Err(failed("open", mount, path, source)),
    }
}

/// Splits a directory into a mount point of cgroup2 and the rest: the longest end that is in the same filesystem. None if
/// it is in no cgroup2.
pub(super) fn split(directory: &Path) -> Result<Option<(PathBuf, PathBuf)>> {
    let mut mount = None;
    for path in directory.ancestors() {
        match Group::root(path) {
            Ok(Some(_)) => mount = Some(path),
            // A directory that is gone says nothing; its ancestors do.
            Err(Errno::NOENT) => {}
            // So does what is no directory.
            Ok(None) | Err(Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => break,
            Err(source) => return Err(failed("open", path, Path::new(""), source)),
        }
    }
    let mount = mount.filter(|mount| *mount != directory);
    let below = mount.and_then(|mount| Some((mount, directory.strip_prefix(mount).ok()?)));
    Ok(below.map(|(mount, below)| (mount.to_owned(), below.to_owned())))
}

fn root(mount: &Path) -> Result<Group> {
    Group::root(mount)
        .map_err(|source| failed("open", mount, Path::new(""), source))?
        .ok_or_else(|| EnclosureError::NotACgroup {
            group: mount.to_owned(),
        })
}

/// Makes what is missing on the path and gives what it made, outermost first.
fn make_path(
    root: &Group,
    mount: &Path,
    path: &Path,
    controllers: &BTreeSet<String>,
) -> Result<Vec<PathBuf>> {
    let parent = path.parent().unwrap_or(Path::new(""));
    if gives(root, parent, controllers) {
        match root.make(path) {
            Ok(()) => return Ok(vec![path.to_owned()]),
            Err(Errno::EXIST) => return Ok(Vec::new()),
            Err(Errno::NOENT) => {}
            Err(source) => return Err(failed("make", mount, path, source)),
        }
    }
    let mut made = Vec::new();
    let mut here = PathBuf::new();
    for name in path.components() {
        enable(root, mount, &here, controllers)?;
        here.push(name);
        match root.make(&here) {
            Ok(()) => made.push(here.clone()),
            Err(Errno::EXIST) => {}
            Err(source) => return Err(failed("make", mount, &here, source)),
        }
    }
    Ok(made)
}

/// Whether a group is there and its children have all `controllers`.
fn gives(root: &Group, path: &Path, controllers: &BTreeSet<String>) -> bool {
    controllers.is_empty()
        || open(root, path).is_ok_and(|group| missing(&group, controllers).is_empty())
}

fn missing(group: &Group, controllers: &BTreeSet<String>) -> Vec<String> {
    let enabled = group.read("cgroup.subtree_control").unwrap_or_default();
    let enabled: BTreeSet<&str> = enabled.split_whitespace().collect();
    controllers
        .iter()
        .filter(|name| !enabled.contains(name.as_str()))
        .cloned()
        .collect()
}

fn enable(root: &Group, mount: &Path, path: &Path, controllers: &BTreeSet<String>) -> Result<()> {
    if controllers.is_empty() {
        return Ok(());
    }
    let group = open(root, path).map_err(|source| failed("open", mount, path, source))?;
    let missing = missing(&group, controllers);
    if missing.is_empty() {
        return Ok(());
    }
    let line: Vec<String> = missing.iter().map(|name| format!("+{name}")).collect();
    group
        .write("cgroup.subtree_control", &line.join(" "))
        .map_err(|source| EnclosureError::Enable {
            controllers: missing.join(", "),
            group: mount.join(path),
            source,
        })
}

fn equip(
    root: &Group,
    mount: &Path,
    path: &Path,
    (plan, found): (&CgroupPlan, bool),
) -> Result<Group> {
    let group = open(root, path).map_err(|source| failed("open", mount, path, source))?;
    let whole = mount.join(path);
    refuse_inhabited(&group, &whole)?;
    if found {
        refuse_parent(&group, &whole)?;
    }
    settle_threads(&group, &whole, &plan.limits.controllers)?;
    limit(&group, mount, path, plan)?;
    Ok(group)
}

fn limit(group: &Group, mount: &Path, path: &Path, plan: &CgroupPlan) -> Result<()> {
    limits::write_all(group, &mount.join(path), &plan.limits.writes)?;
    let Some(owner) = plan.owner else {
        return Ok(());
    };
    give(group, owner).map_err(|source| failed("change the owner of", mount, path, source))
}

/// Opens a group below the root, or the root itself.
fn open(root: &Group, path: &Path) -> crate::sys::Result<Group> {
    root.below(if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    })
}

/// A group that was there before may be used if nobody is in it and whoever comes will run.
fn refuse_inhabited(group: &Group, whole: &Path) -> Result<()> {
    let failed = |source| EnclosureError::Group {
        action: "read the state of",
        group: whole.to_owned(),
        source,
    };
    let state = group.state().map_err(failed)?;
    if state.populated {
        let (inhabited, mut processes) = inhabitants(group, whole);
        processes.truncate(8);
        return Err(EnclosureError::NotEmpty {
            group: whole.to_owned(),
            inhabited,
            processes,
        });
    }
    // An empty group that was told to freeze says at once that it is frozen, and so does one below a frozen one.
    if state.frozen {
        return Err(EnclosureError::Frozen {
            group: whole.to_owned(),
        });
    }
    Ok(())
}

/// Where somebody is, in a group or below it, and who.
fn inhabitants(group: &Group, whole: &Path) -> (PathBuf, Vec<i32>) {
    let processes = group.own_processes().unwrap_or_default();
    if processes.is_empty() {
        for name in group.children().unwrap_or_default() {
            let child = group.below(Path::new(&name));
            let child = child
                .ok()
                .filter(|child| child.state().is_ok_and(|state| state.populated));
            if let Some(child) = child {
                return inhabitants(&child, &whole.join(name));
            }
        }
    }
    (whole.to_owned(), processes)
}

/// A group that gives its children what is no matter of threads takes no processes (`cgroups(7)`, "no internal
/// processes").
fn refuse_parent(group: &Group, whole: &Path) -> Result<()> {
    let given = group.read("cgroup.subtree_control").unwrap_or_default();
    let given: Vec<&str> = given
        .split_whitespace()
        .filter(|name| !OF_THREADS.contains(name))
        .collect();
    if given.is_empty() {
        return Ok(());
    }
    Err(EnclosureError::ForChildren {
        group: whole.to_owned(),
        controllers: given.join(", "),
    })
}

/// A group below one that holds threads cannot hold processes until it is made one of threads as well.
fn settle_threads(group: &Group, whole: &Path, controllers: &BTreeSet<String>) -> Result<()> {
    let failed = |source| EnclosureError::Group {
        action: "settle the type of",
        group: whole.to_owned(),
        source,
    };
    let kind = group.read("cgroup.type").map_err(failed)?;
    if kind.trim() == "domain" {
        return Ok(());
    }
    match controllers
        .iter()
        .find(|name| !OF_THREADS.contains(&name.as_str()))
    {
        Some(name) => Err(EnclosureError::Threaded {
            group: whole.to_owned(),
            controller: name.clone(),
        }),
        None if kind.trim() == "domain invalid" => {
            group.write("cgroup.type", "threaded").map_err(failed)
        }
        None => Ok(()),
    }
}

/// Gives a group to a user of the host: the directory and the files that the kernel lists for this, no others, for
/// whoever owns the limits can lift them.
fn give(group: &Group, owner: u32) -> crate::sys::Result<()> {
    const USUAL: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";
    let files = std::fs::read_to_string("/sys/kernel/cgroup/delegate");
    let files = files.unwrap_or_else(|_| USUAL.to_owned());
    group.give(".", owner)?;
    for file in files.lines().filter(|file| !file.contains('/')) {
        match group.give(file, owner) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn failed(action: &'static str, mount: &Path, path: &Path, source: Errno) -> EnclosureError {
    EnclosureError::Group {
        action,
        group: mount.join(path),
        source,
    }
}
