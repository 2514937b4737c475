//! `mounts`: add mounts to a running workspace, or remove them.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use crate::cli::session::Session;
use crate::spec::id::ContainerId;

/// Add mounts to a running workspace, or remove them
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Add mounts
    Add(Which),
    /// Remove mounts
    Remove(Which),
}

#[derive(Debug, clap::Args)]
struct Which {
    /// Which workspace
    id: ContainerId,
    /// JSON file with a list of OCI mounts
    mounts: PathBuf,
}

/// Runs `mounts`.
pub(super) fn run(_args: &Args, _session: &Session) -> anyhow::Result<ExitCode> {
    anyhow::bail!("mounts: not available in this build")
}
