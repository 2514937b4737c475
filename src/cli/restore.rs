//! `restore`: make a workspace from files that `checkpoint` wrote.

use std::process::ExitCode;

use crate::cli::checkpoint::Images;
use crate::cli::making::Making;
use crate::cli::session::Session;
use crate::spec::id::ContainerId;

/// Make a workspace from files that `checkpoint` wrote, with CRIU
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    making: Making,
    #[command(flatten)]
    images: Images,
    /// Return as soon as the processes run
    #[arg(long, short = 'd')]
    detach: bool,
    /// Do not adopt processes that the workspace leaves behind
    #[arg(long)]
    no_subreaper: bool,
    /// AppArmor or SELinux profile of the processes, TYPE:NAME
    #[arg(long, value_name = "TYPE:NAME")]
    lsm_profile: Option<String>,
    /// SELinux context of the mounts
    #[arg(long, value_name = "CONTEXT")]
    lsm_mount_context: Option<String>,
    /// Name of the new workspace
    id: ContainerId,
}

/// Runs `restore`.
pub(super) fn run(_args: &Args, _session: &Session) -> anyhow::Result<ExitCode> {
    anyhow::bail!("restore: not available in this build")
}
