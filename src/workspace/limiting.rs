//! Changes the limits of a workspace that lives.

use crate::enclosure::rdt;
use crate::plan;
use crate::spec::id::ContainerId;
use crate::spec::resources::Resources;
use crate::spec::state::Status;
use crate::workspace::blueprint;
use crate::workspace::error::WorkspaceError;
use crate::workspace::found::Workspace;
use crate::workspace::lifecycle::Event;
use crate::workspace::lifecycle::NotNow;
use crate::workspace::report::Report;
use crate::workspace::store::Store;

/// Changes the limits of a workspace; what `resources` does not name stays as it is. `shares` are lines of `schemata`
/// for its class of cache and memory bandwidth.
///
/// # Errors
///
/// [`NotNow`] when it has ended; else the field that cannot be had, and the limits before it are in force.
pub fn update(
    store: &Store,
    id: &ContainerId,
    resources: &Resources,
    shares: &[String],
    report: &dyn Report,
) -> Result<(), WorkspaceError> {
    let workspace = Workspace::find_locked(store, id)?;
    if workspace.status()? == Status::Stopped {
        return Err(NotNow {
            state: Status::Stopped,
            event: Event::Enter,
        }
        .into());
    }
    let mut enclosure = workspace.enclosure()?;
    let limits = plan::cgroup::update(resources, &enclosure.present()?, &blueprint::look()?)?;
    for ignored in &limits.ignored {
        report.warning(ignored);
    }
    if !shares.is_empty() {
        let class = workspace.record.rdt.as_ref();
        rdt::change(class.ok_or(WorkspaceError::NoClass)?, shares)?;
    }
    Ok(enclosure.update(&limits)?)
}
