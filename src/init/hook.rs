//! Runs the caller's hooks that belong inside.

use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::time::Duration;

use super::Doing;
use super::report::Reason;
use super::report::Trouble;
use crate::plan::step::Hook;
use crate::sys::Errno;
use crate::sys::process;

/// How much of what a hook complained about is passed on, in bytes.
const WORDS: u64 = 1024;

impl Doing {
    /// Runs a hook with the state on its standard input, and waits for it.
    pub(super) fn run_hook(&mut self, hook: &Hook) -> std::result::Result<(), Trouble> {
        let pid = self.number_outside();
        let state = state_of(hook, pid);
        let mut child = start(hook).map_err(|error| Trouble {
            errno: errno_of(&error),
            reason: Reason::Hook,
            detail: error.to_string(),
        })?;
        if let Some(mut input) = child.stdin.take() {
            // A hook that does not read its input is not wrong.
            drop(input.write_all(state.as_bytes()));
        }
        let ended = finish(&mut child, hook.timeout.map(Duration::from_secs))?;
        if ended.success() {
            return Ok(());
        }
        let mut words = String::new();
        if let Some(errors) = child.stderr.take() {
            drop(errors.take(WORDS).read_to_string(&mut words));
        }
        Err(Trouble {
            errno: Errno::CANCELED,
            reason: Reason::Hook,
            detail: format!("{} {}", describe(ended), words.trim_end())
                .trim_end()
                .to_owned(),
        })
    }

    /// This process's number as the host sees it, read while the host's `proc` was still there.
    fn number_outside(&mut self) -> i32 {
        if self.pid.is_none() {
            let link = std::fs::read_link("/proc/self").ok();
            self.pid = link.and_then(|link| link.to_str()?.parse().ok());
        }
        self.pid.unwrap_or_default()
    }
}

fn start(hook: &Hook) -> std::io::Result<Child> {
    let mut command = Command::new(&hook.path);
    if let Some((name, rest)) = hook.arguments.split_first() {
        command.arg0(name).args(rest);
    }
    command.env_clear();
    let entries = hook
        .environment
        .iter()
        .filter_map(|entry| entry.split_once('='));
    command.envs(entries);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
}

fn finish(
    child: &mut Child,
    timeout: Option<Duration>,
) -> std::result::Result<ExitStatus, Trouble> {
    let number = i32::try_from(child.id()).map_err(|_| Errno::SRCH)?;
    let handle = process::open(number)?;
    if !process::ended_within(handle.as_fd(), timeout)? {
        // It may have ended since; then there is nothing to kill.
        drop(child.kill());
        drop(child.wait());
        return Err(Trouble::because(Reason::HookTimeout, Errno::TIMEDOUT));
    }
    child.wait().map_err(|error| errno_of(&error).into())
}

fn describe(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("(killed by signal {signal})"),
        None => format!("(exit status {})", status.code().unwrap_or_default()),
    }
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_raw_os_error(error.raw_os_error().unwrap_or(libc::EIO))
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
