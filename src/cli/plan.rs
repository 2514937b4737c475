//! `plan`: what would be done for a bundle, without doing it.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::session::Session;

/// Print the steps that would make a workspace from a bundle
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Directory of the bundle
    #[arg(default_value = ".", hide_default_value = true)]
    bundle: PathBuf,
    /// Configuration to use in place of the bundle's config.json
    #[arg(long, short = 'f', value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs `plan`.
pub(super) fn run(_args: &Args, _session: &Session) -> anyhow::Result<ExitCode> {
    anyhow::bail!("plan: not available in this build")
}
