//! `kill`: send a signal to a workspace.

use std::process::ExitCode;

use crate::cli::session::Session;
use crate::spec::id::ContainerId;

/// Send a signal to the init of a workspace
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Send it to every process of the workspace; succeed when there is none
    #[arg(long, short = 'a')]
    all: bool,
    /// Which workspace
    id: ContainerId,
    /// Name (SIG may be left out) or number
    #[arg(default_value = "SIGTERM")]
    signal: String,
}

/// Runs `kill`.
pub(super) fn run(_args: &Args, _session: &Session) -> anyhow::Result<ExitCode> {
    anyhow::bail!("kill: not available in this build")
}
