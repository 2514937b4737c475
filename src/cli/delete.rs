//! `delete`: remove what a workspace leaves on the host.

use std::process::ExitCode;

use crate::cli::choice::Choice;
use crate::cli::session::Session;
use crate::cli::words;
use crate::cli::words::Words;
use crate::workspace::error::WorkspaceError;
use crate::workspace::removing;

/// Remove a workspace that has ended
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Kill it first when it has not ended; succeed when there is none
    #[arg(long, short = 'f')]
    force: bool,
    #[command(flatten)]
    choice: Choice,
}

impl Args {
    /// Reads the words that follow the command, where they are plain (`cli::plain`).
    pub(super) fn plain(mut words: Words<'_>) -> Option<Self> {
        let (mut force, mut choice, mut id) = (false, Choice::default(), None);
        while let Some(word) = words.next()? {
            match word {
                "--force" | "-f" => force = true,
                _ if choice.plain(word) => {}
                _ => words::fill(word, &mut id)?,
            }
        }
        let choice = choice.of(id?);
        Some(Self { force, choice })
    }
}

/// Runs `delete`.
pub(super) fn run(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    let store = session.store()?;
    args.choice.each(&store, |id| {
        removing::delete(&store, id, args.force, &session.log).map_err(|error| {
            // Its words are known to callers, and name the workspace themselves.
            let whole = matches!(error, WorkspaceError::NotStopped { .. });
            let error = anyhow::Error::from(error);
            if whole {
                error
            } else {
                error.context(format!("cannot delete {id}"))
            }
        })
    })?;
    Ok(ExitCode::SUCCESS)
}
