//! Mounts in a workspace that runs: a child of ours goes in, puts them up or takes them down, and ends.
//!
//! What comes from the host is copied outside and attached inside by descriptor. The child enters neither the pid
//! namespace nor the cgroup: nobody inside sees it.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::mount::UnmountFlags;

use crate::backend::BackendError;
use crate::backend::Target;
use crate::backend::lift;
use crate::init;
use crate::plan::namespaces;
use crate::plan::step::Step;
use crate::sys::Errno;
use crate::sys::clone;
use crate::sys::clone::Birth;
use crate::sys::identity;
use crate::sys::namespace;
use crate::sys::path;
use crate::sys::process;
use crate::sys::process::Exit;

/// The status of a child that has said why it failed.
const FAILED: i32 = 125;

/// Does steps that mount.
///
/// # Errors
///
/// [`BackendError::Inside`] names the step that failed; those before it have been done.
pub fn add(target: &Target<'_>, steps: &[Step]) -> Result<(), BackendError> {
    let mut mounts = BTreeMap::new();
    for (index, step) in steps.iter().enumerate() {
        if let Step::Bind(bind) = step
            && !bind.copy_link
        {
            mounts.insert(index, lift::lift(bind)?);
        }
    }
    inside(target, |root| {
        init::furnish(steps, root, mounts).map_err(|(index, trouble)| {
            let step = steps.get(index).map(ToString::to_string);
            format!("{}: {trouble}", step.unwrap_or_default())
        })
    })
}

/// Takes down what is mounted at these places, the last first.
///
/// # Errors
///
/// [`BackendError::Inside`] names the place where nothing is mounted; those after it have been taken down.
pub fn remove(target: &Target<'_>, places: &[PathBuf]) -> Result<(), BackendError> {
    inside(target, |root| {
        for place in places.iter().rev() {
            take_down(&root, place)
                .map_err(|errno| format!("unmount {}: {errno}", place.display()))?;
        }
        Ok(())
    })
}

/// A mount is named in its directory, which is found inside the root and held: no link leads out of it.
fn take_down(root: &OwnedFd, place: &Path) -> Result<(), Errno> {
    let name = place.file_name().ok_or(Errno::BUSY)?;
    let parent = place.parent().unwrap_or(Path::new("/"));
    let parent = path::open_in(root, parent, OFlags::PATH | OFlags::DIRECTORY)?;
    rustix::process::fchdir(parent)?;
    // host path: a name in the directory that was just entered by its descriptor.
    rustix::mount::unmount(name, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
}

/// Lets a child do something inside, at the root of the workspace.
fn inside(
    target: &Target<'_>,
    task: impl FnOnce(OwnedFd) -> Result<(), String>,
) -> Result<(), BackendError> {
    let (heard, said) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(BackendError::kernel("make a pipe"))?;
    let child = clone::spawn(Birth::default(), || {
        let entered = enter(target).map_err(|errno| format!("enter the workspace: {errno}"));
        match entered.and_then(task) {
            Ok(()) => 0,
            Err(words) => {
                rustix::io::write(&said, words.as_bytes()).unwrap_or_default();
                FAILED
            }
        }
    })
    .map_err(BackendError::kernel("make a process"))?;
    drop(said);
    let words = std::io::read_to_string(std::fs::File::from(heard)).unwrap_or_default();
    let ended = process::wait(child.pidfd.as_fd());
    let exit = ended.map_err(BackendError::kernel("wait for a process"))?;
    match (exit == Exit::Status(0), words.is_empty()) {
        (true, _) => Ok(()),
        (false, true) => Err(BackendError::Died(exit)),
        (false, false) => Err(BackendError::Inside(words)),
    }
}

/// Enters what a mount depends on, and gives the root there.
fn enter(target: &Target<'_>) -> Result<OwnedFd, Errno> {
    process::hide()?;
    let wanted = namespaces::USER | namespaces::MOUNT | namespaces::NETWORK | namespaces::IPC;
    namespace::enter(target.process, target.namespaces & wanted)?;
    if target.namespaces & namespaces::USER != 0 {
        identity::become_group(0)?;
        identity::become_user(0)?;
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // host path: the root itself.
    rustix::fs::open("/", flags, Mode::empty())
}
