//! `host`: what this machine can do.

use std::process::ExitCode;

use crate::cli::session::Session;

/// Print what this machine can do, and how to get what is missing
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// table or json
    #[arg(long, short = 'f', value_name = "FORMAT", default_value = "table")]
    format: String,
}

/// Runs `host`.
pub(super) fn run(_args: &Args, _session: &Session) -> anyhow::Result<ExitCode> {
    anyhow::bail!("host: not available in this build")
}
