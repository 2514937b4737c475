//! `start`: let the program of a created workspace run.

use std::process::ExitCode;

use anyhow::Context;

use crate::cli::session::Session;
use crate::cli::words::Words;
use crate::spec::id::ContainerId;
use crate::workspace::starting;

/// Run the program of a created workspace
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

/// Runs `start`.
pub(super) fn run(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    starting::start(&session.store()?, &args.id, &session.log)
        .with_context(|| format!("cannot start {}", args.id))?;
    Ok(ExitCode::SUCCESS)
}
