//! Writes whose numbers a user namespace sees as which.

use std::process::Command;

use crate::backend::BackendError;
use crate::plan::namespaces::Mapping;
use crate::sys::Errno;
use crate::sys::program;

/// Maps users and groups of the user namespace of `pid`.
///
/// With privileges the files are written; without, a single own number is written as well, and more goes through
/// `newuidmap(1)` and `newgidmap(1)`, which know what the administrator allows.
pub(super) fn write(pid: i32, mapping: &Mapping) -> Result<(), BackendError> {
    let privileged = rustix::process::geteuid().is_root();
    if privileged && write_file(pid, "uid_map", &mapping.users).is_ok() {
        return write_file(pid, "gid_map", &mapping.groups);
    }
    if mapping.wide {
        run("newuidmap", pid, &mapping.users)?;
        return run("newgidmap", pid, &mapping.groups);
    }
    write_file(pid, "setgroups", "deny")?;
    write_file(pid, "uid_map", &mapping.users)?;
    write_file(pid, "gid_map", &mapping.groups)
}

fn write_file(pid: i32, name: &str, lines: &str) -> Result<(), BackendError> {
    let path = format!("/proc/{pid}/{name}");
    std::fs::write(&path, lines).map_err(|error| {
        let errno = Errno::from_raw_os_error(error.raw_os_error().unwrap_or(libc::EIO));
        let shown = lines.trim_end().replace('\n', ", ");
        BackendError::kernel(format!("write {shown:?} to {path}"))(errno)
    })
}

fn run(name: &'static str, pid: i32, lines: &str) -> Result<(), BackendError> {
    let numbers = lines.split_ascii_whitespace();
    let mut command = Command::new(name);
    command.arg(pid.to_string()).args(numbers);
    program::streams_alone(&mut command);
    let ended = command.output().map_err(|error| BackendError::Helper {
        program: name,
        words: error.to_string(),
    })?;
    if ended.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&ended.stderr).trim_end().to_owned();
    Err(BackendError::Helper {
        program: name,
        words,
    })
}
