//! `delete`: remove what a workspace leaves on the host.

use std::process::ExitCode;

use crate::cli::session::Session;
use crate::spec::id::ContainerId;

/// Remove a workspace that has ended
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Kill it first when it has not ended; succeed when there is none
    #[arg(long, short = 'f')]
    force: bool,
    /// Which workspace
    id: ContainerId,
}

/// Runs `delete`.
pub(super) fn run(_args: &Args, _session: &Session) -> anyhow::Result<ExitCode> {
    anyhow::bail!("delete: not available in this build")
}
