//! `pause`: stop every process of a workspace where it stands.

use std::process::ExitCode;

use anyhow::Context;

use crate::cli::session::Session;
use crate::spec::id::ContainerId;
use crate::workspace::found::Workspace;

/// Freeze a running workspace
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which workspace
    id: ContainerId,
}

/// Runs `pause`.
pub(super) fn run(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    Workspace::find(&session.store()?, &args.id)
        .and_then(|workspace| workspace.pause())
        .with_context(|| format!("cannot pause {}", args.id))?;
    Ok(ExitCode::SUCCESS)
}
