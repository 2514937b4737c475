//! `events`: what workspaces use and what happens to them, as a stream of JSON objects.

use std::process::ExitCode;

use crate::cli::session::Session;
use crate::spec::id::ContainerId;

/// Report what workspaces use, and when one runs out of memory
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Time between two reports, such as 5s or 100ms
    #[arg(long, value_name = "TIME", default_value = "5s")]
    interval: String,
    /// Report once and return
    #[arg(long)]
    stats: bool,
    /// Which workspaces
    #[arg(required = true, num_args = 1..)]
    ids: Vec<ContainerId>,
}

/// Runs `events`.
pub(super) fn run(_args: &Args, _session: &Session) -> anyhow::Result<ExitCode> {
    anyhow::bail!("events: not available in this build")
}
