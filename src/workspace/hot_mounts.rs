//! Adds mounts to a workspace that runs, and removes them.

use std::os::fd::AsFd;
use std::path::Path;

use crate::backend::Target;
use crate::backend::container::hot;
use crate::plan;
use crate::plan::namespaces;
use crate::plan::step::Step;
use crate::spec::id::ContainerId;
use crate::spec::mounts::Mount;
use crate::spec::state::Status;
use crate::workspace::blueprint;
use crate::workspace::error::WorkspaceError;
use crate::workspace::found::Workspace;
use crate::workspace::lifecycle;
use crate::workspace::lifecycle::Event;
use crate::workspace::lifecycle::NotNow;
use crate::workspace::mount_list;
use crate::workspace::mount_list::MountListError;
use crate::workspace::store::Store;

/// Adds the mounts that a file lists.
///
/// # Errors
///
/// [`NotNow`] unless the workspace lives; [`WorkspaceError::Backend`] names the mount that failed.
pub fn add(store: &Store, id: &ContainerId, file: &Path) -> Result<(), WorkspaceError> {
    let (workspace, mounts) = prepare(store, id, file)?;
    mount_list::check(&mounts)?;
    let mut spec = workspace.spec()?;
    spec.mounts = mounts;
    spec.validate()?;
    let options = plan::Options {
        id: id.to_string(),
        bundle: workspace.record.bundle.clone(),
        apparmor: blueprint::apparmor(&spec.process),
        selinux: blueprint::selinux(&spec, &spec.process),
        ..plan::Options::default()
    };
    let steps: Vec<Step> = plan::build(&spec, &options)?
        .steps
        .into_iter()
        .filter(|step| matches!(step, Step::Mount(_) | Step::Bind(_)))
        .collect();
    with_target(&workspace, |target| Ok(hot::add(target, &steps)?))
}

/// Removes the mounts that a file lists, by their destinations.
///
/// # Errors
///
/// [`NotNow`] unless the workspace lives; [`WorkspaceError::Backend`] names the mount that is not there.
pub fn remove(store: &Store, id: &ContainerId, file: &Path) -> Result<(), WorkspaceError> {
    let (workspace, mounts) = prepare(store, id, file)?;
    let places: Vec<_> = mounts
        .into_iter()
        .map(|mount| Path::new("/").join(mount.destination))
        .collect();
    with_target(&workspace, |target| Ok(hot::remove(target, &places)?))
}

fn prepare(
    store: &Store,
    id: &ContainerId,
    file: &Path,
) -> Result<(Workspace, Vec<Mount>), WorkspaceError> {
    let workspace = Workspace::find_locked(store, id)?;
    workspace.only_container("mounts")?;
    lifecycle::after(workspace.status()?, Event::Enter)?;
    let mounts = mount_list::parse(&blueprint::read(file)?)?;
    Ok((workspace, mounts))
}

fn with_target(
    workspace: &Workspace,
    task: impl FnOnce(&Target<'_>) -> Result<(), WorkspaceError>,
) -> Result<(), WorkspaceError> {
    let ended = NotNow {
        state: Status::Stopped,
        event: Event::Enter,
    };
    let init = workspace.record.init.as_ref().ok_or(ended)?;
    let process = workspace.open_first()?.ok_or(ended)?;
    let wanted = namespaces::of(&workspace.spec()?);
    let joined = wanted.join.iter().map(|join| join.kind);
    let kinds = joined.fold(wanted.new, |kinds, kind| kinds | kind);
    if kinds & namespaces::MOUNT == 0 {
        return Err(MountListError::NoMountNamespace.into());
    }
    task(&Target {
        process: process.as_fd(),
        pid: init.pid,
        namespaces: kinds,
        rootless: false,
    })
}
