//! `gc`: remove what lost workspaces have left.

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::Context;
use anyhow::bail;

use crate::cli::log;
use crate::cli::session::Session;
use crate::cli::table;
use crate::monitor;
use crate::network;
use crate::workspace::store::Store;
use crate::workspace::wiring;

/// Remove what lost workspaces have left on the host, and watch over those that lost their monitor
///
/// Lost are: workspaces whose maker was killed or that ran before the host was restarted; files of workspaces that are
/// not there any more; what is held for programs that have ended unseen; leases that nobody watches over. Workspaces
/// that have ended in peace are left to `down` and `delete`. What host.toml says by now counts from then on for networks
/// in use too. Says what it did, a line each.
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
    match networks(&store, args.dry_run) {
        Ok(gone) => {
            let text: String = gone.iter().map(|line| format!("{line}\n")).collect();
            table::print(text.as_bytes())?;
        }
        Err(error) => failures.push(log::one_line(&error)),
    }
    if failures.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    bail!("not everything could be cleared: {}", failures.join("; "))
}

/// Takes workspaces that are not there any more off their networks, and removes networks without any.
fn networks(store: &Store, dry_run: bool) -> anyhow::Result<Vec<String>> {
    let live: BTreeSet<String> = store.ids()?.iter().map(ToString::to_string).collect();
    if !dry_run {
        let gone = network::collect(&wiring::places(store.places()), &live)?;
        let renewed = wiring::renew(store.places())?;
        let gone = gone.iter().map(|what| format!("removed: {what}"));
        let renewed = renewed.iter();
        let renewed = renewed.map(|name| format!("renewed: the rates of network {name}"));
        return Ok(gone.chain(renewed).collect());
    }
    let all = wiring::addresses(store.places());
    let dead = all.keys().filter(|id| !live.contains(*id));
    Ok(dead
        .map(|id| format!("to be removed: lease of {id} on its network"))
        .collect())
}
