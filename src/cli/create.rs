//! `create`: make a workspace from a bundle, up to the point where its program would run.

use std::process::ExitCode;

use anyhow::Context;

use crate::cli::making::Making;
use crate::cli::making::Starting;
use crate::cli::session::Session;
use crate::cli::words;
use crate::cli::words::Words;
use crate::spec::id::ContainerId;
use crate::workspace::making;

/// Make a workspace from a bundle; `start` then runs its program
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    making: Making,
    #[command(flatten)]
    starting: Starting,
    /// Name of the new workspace
    id: ContainerId,
}

impl Args {
    /// Reads the words that follow the command, where they are plain (`cli::plain`).
    pub(super) fn plain(mut words: Words<'_>) -> Option<Self> {
        let (mut making, mut starting, mut id) = (Making::default(), Starting::default(), None);
        while let Some(word) = words.next()? {
            if !making.plain(word, &mut words)? && !starting.plain(word, &mut words)? {
                words::fill(word, &mut id)?;
            }
        }
        let id = id?.parse().ok()?;
        Some(Self {
            making,
            starting,
            id,
        })
    }
}

/// Runs `create`.
pub(super) fn run(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    let wish = session.wish(&args.id, &args.making, &args.starting);
    let receipts = args.making.receipts(args.starting.pidfd_socket.as_ref());
    making::create(
        &session.store()?,
        &wish,
        &receipts,
        session.timed(),
        &session.log,
    )
    .with_context(|| format!("cannot create {}", args.id))?;
    Ok(ExitCode::SUCCESS)
}
