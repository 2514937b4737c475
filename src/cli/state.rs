//! `state`: what a workspace is and does, as the OCI runtime specification has it.

use std::process::ExitCode;

use crate::cli::session::Session;
use crate::spec::id::ContainerId;

/// Print the state of a workspace as JSON
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which workspace
    id: ContainerId,
}

/// Runs `state`.
pub(super) fn run(_args: &Args, _session: &Session) -> anyhow::Result<ExitCode> {
    anyhow::bail!("state: not available in this build")
}
