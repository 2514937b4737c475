//! `resume`: let a paused workspace go on.

use std::process::ExitCode;

use anyhow::Context;

use crate::cli::session::Session;
use crate::spec::id::ContainerId;
use crate::workspace::found::Workspace;

/// Let a paused workspace go on
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which workspace
    id: ContainerId,
}

/// Runs `resume`.
pub(super) fn run(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    Workspace::find(&session.store()?, &args.id)
        .and_then(|workspace| workspace.resume())
        .with_context(|| format!("cannot resume {}", args.id))?;
    Ok(ExitCode::SUCCESS)
}
