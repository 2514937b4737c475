//! Says when it was memory that a workspace did not come to its program for.

use crate::backend::BackendError;
use crate::enclosure::Enclosure;
use crate::enclosure::Place;
use crate::sys::Errno;
use crate::sys::process::Exit;
use crate::sys::process::KILL;
use crate::workspace::error::WorkspaceError;
use crate::workspace::removing;

/// An error on the way to the program, with the shortage of memory that is behind it, if one is.
pub(super) fn explain(enclosure: &Enclosure, error: WorkspaceError) -> WorkspaceError {
    let shortage = may_be_memory(&error).then(|| enclosure.shortage());
    match shortage.flatten() {
        Some(shortage) => WorkspaceError::TooLittleMemory {
            shortage,
            error: removing::text_of(&error),
        },
        None => error,
    }
}

/// As [`explain`], for who has no enclosure at hand.
pub(super) fn explain_at(place: &Place, error: BackendError) -> WorkspaceError {
    match Enclosure::open(place) {
        Ok(enclosure) => explain(&enclosure, error.into()),
        Err(_) => error.into(),
    }
}

fn may_be_memory(error: &WorkspaceError) -> bool {
    let WorkspaceError::Backend(error) = error else {
        return false;
    };
    let died = matches!(error, BackendError::Died(exit) if *exit == Exit::Signal(KILL));
    let refused = matches!(error, BackendError::Kernel { source, .. } if *source == Errno::NOMEM);
    let failed = matches!(error, BackendError::Step(step) if step.trouble.errno == Errno::NOMEM);
    died || refused || failed
}

/// The warning that belongs to a program that was killed, when it was memory that it was killed for. The enclosure is
/// looked at only then: its counters take the kernel longer to add up than most of what a workspace is removed by.
pub(super) fn warning(place: &Place, exit: Exit) -> Option<String> {
    if exit != Exit::Signal(KILL) {
        return None;
    }
    let shortage = Enclosure::open(place).ok()?.shortage();
    let shortage = shortage.filter(|one| one.kills > 0)?;
    Some(format!(
        "the program was killed for want of memory: {shortage}"
    ))
}
