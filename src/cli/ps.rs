//! `ps`: the processes of a workspace.

use std::process::ExitCode;

use crate::cli::session::Session;
use crate::spec::id::ContainerId;

/// List the processes of a workspace
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// table or json
    #[arg(long, short = 'f', value_name = "FORMAT", default_value = "table")]
    format: String,
    /// Which workspace
    id: ContainerId,
    /// Options for ps(1) [default: -ef]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

/// Runs `ps`.
pub(super) fn run(_args: &Args, _session: &Session) -> anyhow::Result<ExitCode> {
    anyhow::bail!("ps: not available in this build")
}
