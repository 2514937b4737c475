//! Runs the caller's hooks that belong inside.

use std::time::Duration;

use super::Doing;
use super::report::Reason;
use super::report::Trouble;
use crate::plan::step::Hook;
use crate::sys::Errno;
use crate::sys::process::Exit;
use crate::sys::program;
use crate::sys::program::Program;

impl Doing {
    /// Runs a hook with the state on its standard input, and waits for it.
    pub(super) fn run_hook(&mut self, hook: &Hook) -> std::result::Result<(), Trouble> {
        let state = state_of(hook, self.pid.unwrap_or_default());
        let outcome = program::run(&Program {
            path: &hook.path,
            arguments: &hook.arguments,
            environment: &hook.environment,
            directory: None,
            input: state.as_bytes(),
            limit: hook.timeout.map(Duration::from_secs),
        });
        let outcome = outcome.map_err(|error| Trouble {
            errno: Errno::from_raw_os_error(error.raw_os_error().unwrap_or(libc::EIO)),
            reason: Reason::Hook,
            detail: error.to_string(),
        })?;
        let failure = match outcome.exit {
            Some(Exit::Status(0)) => return Ok(()),
            Some(Exit::Status(status)) => format!("(exit status {status}) {}", outcome.output),
            Some(Exit::Signal(signal)) => {
                format!("(killed by signal {signal}) {}", outcome.output)
            }
            None => return Err(Trouble::because(Reason::HookTimeout, Errno::TIMEDOUT)),
        };
        Err(Trouble {
            errno: Errno::CANCELED,
            reason: Reason::Hook,
            detail: failure.trim_end().to_owned(),
        })
    }
}

/// This process's number as the host sees it: asked of the host's `proc`, while that is still there.
pub(super) fn number_outside() -> Option<i32> {
    // host path: this process, in the host's proc.
    std::fs::read_link("/proc/self")
        .ok()?
        .to_str()?
        .parse()
        .ok()
}

/// The state as the specification's JSON (`runtime.md`, "State").
fn state_of(hook: &Hook, pid: i32) -> String {
    let state = &hook.state;
    serde_json::json!({
        "ociVersion": state.oci_version,
        "id": state.id,
        "status": state.status,
        "pid": pid,
        "bundle": state.bundle,
        "annotations": state.annotations,
    })
    .to_string()
}
