//! `wait`: be told when a workspace ends, and how.

use std::process::ExitCode;

use anyhow::Context;

use crate::cli::session;
use crate::cli::session::Session;
use crate::spec::id::ContainerId;
use crate::workspace::found::Workspace;

/// Wait for the end of a workspace and exit as its program did
///
/// The status of a program that was killed by signal N is 128+N. A status that only the program's parent could have
/// known, and collected before this command was there, is an error; so is everything else that keeps the status from
/// being known: 255. Before Linux 6.15 it takes root to be told of a program that its parent collects at once.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which workspace
    id: ContainerId,
}

/// Runs `wait`.
pub(super) fn run(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    let exit = Workspace::find(&session.store()?, &args.id)
        .and_then(|workspace| workspace.wait())
        .with_context(|| format!("cannot wait for {}", args.id))?;
    let exit = exit.with_context(|| {
        format!(
            "{} has ended, and its exit status is not known: its parent collected it before",
            args.id
        )
    })?;
    Ok(session::code_of(exit))
}
