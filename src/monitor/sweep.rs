//! What lost workspaces have left: found by what is on disk, and removed, given back, or watched over again.

use crate::monitor;
use crate::monitor::MonitorError;
use crate::spec::id::ContainerId;
use crate::workspace::error::WorkspaceError;
use crate::workspace::estate;
use crate::workspace::found::Workspace;
use crate::workspace::life;
use crate::workspace::record::RecordError;
use crate::workspace::removing;
use crate::workspace::report::Report;
use crate::workspace::store::Store;
use crate::workspace::store::StoreError;

/// Something that a lost workspace has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Who made it was killed before it stood.
    HalfMade,
    /// It ran before the host was started the last time.
    EarlierUptime,
    /// Its program has ended, and nobody gave back what the host lent it.
    NotGivenBack,
    /// It runs, and nobody stays with it.
    Alone,
    /// Its files, without itself.
    Files,
}

impl Left {
    /// What is done about it, with the word that says whether it is done or would be.
    #[must_use]
    pub fn words(self, done: bool) -> String {
        let (verb, rest) = match (self, done) {
            (Self::HalfMade, true) => ("removed", "who made it was killed"),
            (Self::HalfMade, false) => ("to be removed", "who made it was killed"),
            (Self::EarlierUptime, true) => ("removed", "it ran before the host was restarted"),
            (Self::EarlierUptime, false) => {
                ("to be removed", "it ran before the host was restarted")
            }
            (Self::NotGivenBack, true) => ("given back", "what it had of the host"),
            (Self::NotGivenBack, false) => ("to be given back", "what it has of the host"),
            (Self::Alone, true) => ("watched over again", "its monitor had been killed"),
            (Self::Alone, false) => ("to be watched over again", "its monitor was killed"),
            (Self::Files, true) => ("removed", "files without a workspace"),
            (Self::Files, false) => ("to be removed", "files without a workspace"),
        };
        format!("{verb}: {rest}")
    }
}

/// Everything that lost workspaces have left, by name.
///
/// # Errors
///
/// Fails when the state root cannot be read.
pub fn left(store: &Store) -> Result<Vec<(ContainerId, Left)>, MonitorError> {
    let mut found = Vec::new();
    for id in store.ids()? {
        found.extend(of(store, &id)?.map(|left| (id, left)));
    }
    for id in estate::names(store.places()) {
        if estate::is_left_over(store, &id)? {
            found.push((id, Left::Files));
        }
    }
    Ok(found)
}

/// What is left of one workspace. One that a command is busy with is no concern of others.
fn of(store: &Store, id: &ContainerId) -> Result<Option<Left>, MonitorError> {
    let home = match store.open(id) {
        Err(StoreError::Missing) => return Ok(None),
        answer => answer?,
    };
    match home.try_lock() {
        Ok(false) | Err(StoreError::Removed) => return Ok(None),
        answer => drop(answer?),
    }
    let workspace = match Workspace::find(store, id) {
        Err(WorkspaceError::Record(RecordError::Absent)) => return Ok(Some(Left::HalfMade)),
        // A damaged record is told of by whoever is asked about the workspace.
        Err(_) => return Ok(None),
        Ok(workspace) => workspace,
    };
    let record = workspace.record();
    let boot = life::boot_id().map_err(WorkspaceError::probe)?;
    let Some(init) = &record.init else {
        let made = record.maker.goes_on();
        return Ok((!made).then_some(Left::HalfMade));
    };
    if init.boot != boot {
        return Ok(Some(Left::EarlierUptime));
    }
    if monitor::is_alone(store, &workspace)? {
        return Ok(Some(Left::Alone));
    }
    let ended = !init.goes_on() && workspace.monitor().is_none();
    let lost = ended && monitor::is_kept(store, id) && !workspace.is_settled();
    Ok(lost.then_some(Left::NotGivenBack))
}

/// Does what is to be done about something that was left.
///
/// The caller must have one thread only.
///
/// # Errors
///
/// Fails when it cannot be done now; it may be tried again.
pub fn clear(
    store: &Store,
    id: &ContainerId,
    left: Left,
    report: &dyn Report,
) -> Result<(), MonitorError> {
    match left {
        Left::HalfMade | Left::EarlierUptime => Ok(removing::delete(store, id, true, report)?),
        Left::NotGivenBack => Ok(Workspace::find(store, id)?.settle(None, report)?),
        Left::Alone => monitor::adopt(store, id).map(drop),
        Left::Files => Ok(estate::discard(store, id).map(drop)?),
    }
}
