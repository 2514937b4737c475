//! `mounts`: add mounts to a running workspace, or remove them.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Subcommand;

use crate::cli::session::Session;
use crate::spec::id::ContainerId;
use crate::workspace::hot_mounts;

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
pub(super) fn run(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    let store = session.store()?;
    match &args.action {
        Action::Add(which) => hot_mounts::add(&store, &which.id, &which.mounts)
            .with_context(|| format!("cannot add mounts to {}", which.id))?,
        Action::Remove(which) => hot_mounts::remove(&store, &which.id, &which.mounts)
            .with_context(|| format!("cannot remove mounts from {}", which.id))?,
    }
    Ok(ExitCode::SUCCESS)
}
