//! Programs that see other mounts than the tests do.

use std::process::Command;

/// A shell that runs `script` with mounts of its own, which nobody else sees; what is added are its `$0`, `$1` and so on.
pub(crate) fn own_mounts(script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]);
    command.args(["/bin/sh", "-c", script]);
    command
}
