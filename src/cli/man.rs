//! `man`: write the manual pages, from the same definitions as `--help`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::CommandFactory;

use crate::cli::Cli;
use crate::cli::session::Session;

/// Write the manual pages into a directory
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Directory that receives them
    dir: PathBuf,
}

/// Runs `man`.
pub(super) fn run(args: &Args, _session: &Session) -> anyhow::Result<ExitCode> {
    clap_mangen::generate_to(Cli::command(), &args.dir)
        .with_context(|| format!("cannot write manual pages into {}", args.dir.display()))?;
    Ok(ExitCode::SUCCESS)
}
