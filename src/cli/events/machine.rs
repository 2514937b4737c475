//! What only the kernel inside a machine can tell: how much of its limits a workspace uses, and that memory ran out.

use std::os::fd::OwnedFd;
use std::thread;

use rustix::event::EventfdFlags;

use crate::enclosure::counters::Counters;
use crate::enclosure::counters::Pids;
use crate::spec::id::ContainerId;
use crate::workspace::found::Workspace;
use crate::workspace::store::Store;

/// Counts what is limited inside as it is counted there: the host's counters have the machine itself on top.
pub(super) fn correct(workspace: &Workspace, counters: &mut Counters) {
    let Some(used) = workspace.used_inside() else {
        return;
    };
    counters.pids = Some(Pids {
        current: used.tasks,
        max: used.tasks_limit,
    });
    if let Some(memory) = &mut counters.memory {
        // What a guest says of itself is believed as far as it can be true.
        memory.current_bytes = memory.current_bytes.min(used.memory_bytes);
        memory.max_bytes = used.memory_limit_bytes.or(memory.max_bytes);
    }
}

/// Counts up, in what can be polled, how often memory runs out inside from now on; nothing for what is no machine.
pub(super) fn listen(
    store: &Store,
    id: &ContainerId,
    workspace: &Workspace,
) -> anyhow::Result<Option<OwnedFd>> {
    if workspace.record().machine.is_none() {
        return Ok(None);
    }
    let mut seen = workspace.used_inside().map_or(0, |used| used.oom_kills);
    let told = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let ours = told.try_clone()?;
    let workspace = Workspace::find(store, id)?;
    thread::Builder::new().spawn(move || {
        // It ends with the machine, whose end is seen by others.
        while let Ok(kills) = workspace.out_of_memory(seen) {
            let more = kills.saturating_sub(seen);
            rustix::io::write(&ours, &more.to_ne_bytes())
                .map(drop)
                .unwrap_or_default();
            seen = kills;
        }
    })?;
    Ok(Some(told))
}
