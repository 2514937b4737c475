//! `create`: make a workspace from a bundle, up to the point where its program would run.

use std::process::ExitCode;

use crate::cli::making::Making;
use crate::cli::making::Starting;
use crate::cli::session::Session;
use crate::spec::id::ContainerId;

/// Make a workspace from a bundle; `start` then runs its program
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    making: Making,
    #[command(flatten)]
    starting: Starting,
    /// Name of the new workspace
    id: ContainerId,
}

/// Runs `create`.
pub(super) fn run(_args: &Args, _session: &Session) -> anyhow::Result<ExitCode> {
    anyhow::bail!("create: not available in this build")
}
