//! `run`: create, start and, unless detached, wait and delete.

use std::process::ExitCode;

use crate::cli::making::Making;
use crate::cli::making::Starting;
use crate::cli::session::Session;
use crate::spec::id::ContainerId;

/// Make a workspace from a bundle, run its program and exit as it does
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    making: Making,
    #[command(flatten)]
    starting: Starting,
    /// Return as soon as the program runs
    #[arg(long, short = 'd')]
    detach: bool,
    /// Do not delete the workspace at its end
    #[arg(long)]
    keep: bool,
    /// Do not adopt processes that the workspace leaves behind
    #[arg(long)]
    no_subreaper: bool,
    /// Name of the new workspace
    id: ContainerId,
}

/// Runs `run`.
pub(super) fn run(_args: &Args, _session: &Session) -> anyhow::Result<ExitCode> {
    anyhow::bail!("run: not available in this build")
}
