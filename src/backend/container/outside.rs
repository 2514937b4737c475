//! Does to a process what it has no right to do itself.

use super::interfaces;
use crate::backend::BackendError;
use crate::plan::Outside;
use crate::sys::Errno;
use crate::sys::tuning;

/// Applies all that a plan wants done from outside.
pub(super) fn apply(pid: i32, wanted: &Outside) -> Result<(), BackendError> {
    if let Some(score) = wanted.oom_score {
        // host path: a process, in the host's proc.
        std::fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string()).map_err(
            |error| {
                let errno = Errno::from_raw_os_error(error.raw_os_error().unwrap_or(libc::EIO));
                BackendError::kernel(format!("set oom_score_adj to {score}"))(errno)
            },
        )?;
    }
    for limit in &wanted.limits {
        tuning::limit(pid, limit.resource, limit.soft, limit.hard).map_err(
            BackendError::kernel(format!(
                "set {} to {} of {}",
                limit.name, limit.soft, limit.hard
            )),
        )?;
    }
    for (name, inside) in &wanted.interfaces {
        interfaces::move_in(pid, name, inside)?;
    }
    Ok(())
}
