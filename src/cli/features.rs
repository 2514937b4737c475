//! `features`: what this runtime understands, as the OCI runtime specification has it.

use std::process::ExitCode;

use crate::cli::session::Session;

/// Print what this runtime understands, as JSON
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

/// Runs `features`.
pub(super) fn run(_args: &Args, _session: &Session) -> anyhow::Result<ExitCode> {
    anyhow::bail!("features: not available in this build")
}
