//! `wait`: be told when a workspace ends, and how.

use std::process::ExitCode;

use crate::cli::session::Session;
use crate::spec::id::ContainerId;

/// Wait for the end of a workspace and exit as its program did
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which workspace
    id: ContainerId,
}

/// Runs `wait`.
pub(super) fn run(_args: &Args, _session: &Session) -> anyhow::Result<ExitCode> {
    anyhow::bail!("wait: not available in this build")
}
