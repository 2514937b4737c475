//! `list`: all workspaces of the state root.

use std::process::ExitCode;

use crate::cli::session::Session;

/// List the workspaces
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// table or json
    #[arg(long, short = 'f', value_name = "FORMAT", default_value = "table")]
    format: String,
    /// Names only
    #[arg(long, short = 'q')]
    quiet: bool,
}

/// Runs `list`.
pub(super) fn run(_args: &Args, _session: &Session) -> anyhow::Result<ExitCode> {
    anyhow::bail!("list: not available in this build")
}
