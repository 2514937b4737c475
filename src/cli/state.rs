//! `state`: what a workspace is and does, as the OCI runtime specification has it.

use std::process::ExitCode;

use anyhow::Context;

use crate::cli::session::Session;
use crate::cli::table;
use crate::cli::words::Words;
use crate::spec::id::ContainerId;
use crate::workspace::found::Workspace;

/// Print the state of a workspace as JSON
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which workspace
    id: ContainerId,
}

impl Args {
    /// Reads the words that follow the command, where they are plain (`cli::plain`).
    pub(super) fn plain(words: Words<'_>) -> Option<Self> {
        let id = words.only()?.parse().ok()?;
        Some(Self { id })
    }
}

/// Runs `state`.
pub(super) fn run(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    let document = Workspace::find(&session.store()?, &args.id)
        .and_then(|workspace| workspace.document())
        .with_context(|| format!("cannot tell the state of {}", args.id))?;
    table::print(&serde_json::to_vec_pretty(&document)?)?;
    Ok(ExitCode::SUCCESS)
}
