//! `spec`: write a configuration to start from.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::session::Session;

/// Write a config.json to start from
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Directory of the bundle
    #[arg(
        long,
        short = 'b',
        value_name = "DIR",
        default_value = ".",
        hide_default_value = true
    )]
    bundle: PathBuf,
    /// For a workspace without the rights of root
    #[arg(long)]
    rootless: bool,
    /// File to write in place of config.json
    #[arg(long, short = 'f', value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Runs `spec`.
pub(super) fn run(_args: &Args, _session: &Session) -> anyhow::Result<ExitCode> {
    anyhow::bail!("spec: not available in this build")
}
