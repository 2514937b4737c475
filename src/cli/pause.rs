//! `pause`: stop every process of a workspace where it stands.

use std::process::ExitCode;

use crate::cli::session::Session;
use crate::spec::id::ContainerId;

/// Freeze a running workspace
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which workspace
    id: ContainerId,
}

/// Runs `pause`.
pub(super) fn run(_args: &Args, _session: &Session) -> anyhow::Result<ExitCode> {
    anyhow::bail!("pause: not available in this build")
}
