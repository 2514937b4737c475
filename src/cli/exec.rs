//! `exec`: run one more program inside a workspace.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::session::Session;
use crate::spec::id::ContainerId;

/// Run one more program inside a workspace and exit as it does
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Unix socket that receives the master side of the terminal
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// Unix socket that receives a pidfd of the program
    #[arg(long, value_name = "SOCKET")]
    pidfd_socket: Option<PathBuf>,
    /// Working directory inside
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// Environment variable, NAME=VALUE (repeatable)
    #[arg(long, short = 'e', value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Give the program a terminal
    #[arg(long, short = 't')]
    tty: bool,
    /// User, UID or UID:GID
    #[arg(long, short = 'u', value_name = "UID[:GID]")]
    user: Option<String>,
    /// Additional group ids (repeatable)
    #[arg(long, short = 'g', value_name = "GID")]
    additional_gids: Vec<u32>,
    /// JSON file with the OCI process to run, in place of the options and COMMAND
    #[arg(long, short = 'p', value_name = "FILE")]
    process: Option<PathBuf>,
    /// Return as soon as the program runs
    #[arg(long, short = 'd')]
    detach: bool,
    /// File that receives the process id of the program
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// SELinux label of the program
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// AppArmor profile of the program
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// Forbid gaining privileges by executing files
    #[arg(long)]
    no_new_privs: bool,
    /// Capability to add (repeatable)
    #[arg(long, short = 'c', value_name = "CAP")]
    cap: Vec<String>,
    /// How many descriptors from 3 on are handed to the program, after $LISTEN_FDS
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    preserve_fds: u32,
    /// Cgroup below the workspace's own to run in, [CONTROLLER:]PATH
    #[arg(long, value_name = "[CTRL:]PATH")]
    cgroup: Vec<String>,
    /// Run in a paused workspace all the same: the program is frozen until `resume`
    #[arg(long)]
    ignore_paused: bool,
    /// Which workspace
    id: ContainerId,
    /// Program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Runs `exec`.
pub(super) fn run(_args: &Args, _session: &Session) -> anyhow::Result<ExitCode> {
    anyhow::bail!("exec: not available in this build")
}
