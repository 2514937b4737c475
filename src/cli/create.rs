//! `create`: make a workspace from a bundle, up to the point where its program would run.

use std::process::ExitCode;

use anyhow::Context;

use crate::cli::making::Making;
use crate::cli::making::Starting;
use crate::cli::session::Session;
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
