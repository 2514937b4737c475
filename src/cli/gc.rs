//! `gc`: remove what lost workspaces have left.

use std::process::ExitCode;

use anyhow::Context;
use anyhow::bail;

use crate::cli::log;
use crate::cli::session::Session;
use crate::cli::table;
use crate::monitor;

/// Remove what lost workspaces have left on the host, and watch over those that lost their monitor
///
/// Lost are: workspaces whose maker was killed or that ran before the host was restarted; files of workspaces that are
/// not there any more; what is held for programs that have ended unseen; leases that nobody watches over. Workspaces
/// that have ended in peace are left to `down` and `delete`. Says what it did, a line each.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

/// Runs `gc`.
pub(super) fn run(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    let store = session.store()?;
    let found = monitor::left(&store).context("cannot look for what is left")?;
    let mut failures = Vec::new();
    for (id, left) in found {
        let done = match args.dry_run {
            true => Ok(()),
            false => monitor::clear(&store, &id, left, &session.log),
        };
        match done {
            Ok(()) => {
                let words = left.words(!args.dry_run);
                table::print(format!("{id}: {words}\n").as_bytes())?;
            }
            Err(error) => failures.push(format!("{id}: {}", log::one_line(&error.into()))),
        }
    }
    if failures.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    bail!("not everything could be cleared: {}", failures.join("; "))
}
