//! Says when it was memory that a workspace did not come to its program for.

use crate::backend::BackendError;
use crate::enclosure::Enclosure;
use crate::sys::Errno;
use crate::sys::process::Exit;
use crate::workspace::error::WorkspaceError;
use crate::workspace::removing;

/// The number of `SIGKILL`, which is how the kernel ends who has too much.
const KILL: i32 = 9;

/// An error on the way to the program, with the shortage of memory that is behind it, if one is.
pub(super) fn explain(enclosure: &Enclosure, error: WorkspaceError) -> WorkspaceError {
    let shortage = enclosure.shortage().filter(|_| may_be_memory(&error));
    match shortage {
        Some(shortage) => WorkspaceError::TooLittleMemory {
            shortage,
            error: removing::text_of(&error),
        },
        None => error,
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

/// The warning that belongs to a program that was killed, when it was memory that it was killed for.
pub(super) fn warning(enclosure: &Enclosure, exit: Exit) -> Option<String> {
    let killed = exit == Exit::Signal(KILL);
    let shortage = enclosure.shortage().filter(|one| killed && one.kills > 0)?;
    Some(format!(
        "the program was killed for want of memory: {shortage}"
    ))
}
