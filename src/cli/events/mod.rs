//! `events`: what workspaces use and what happens to them, as a stream of JSON objects, one a line.
//!
//! One process reports on as many workspaces as are named. It waits for the kernel to tell that memory ran out or that
//! nobody is left, and reports what is used whenever the interval is over.

mod interval;
mod machine;
mod report;

use std::process::ExitCode;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::bail;

use crate::cli::session::Session;
use crate::cli::table;
use crate::enclosure::watch;
use crate::enclosure::watch::Event;
use crate::enclosure::watch::Watch;
use crate::spec::id::ContainerId;
use crate::spec::state::Status;
use crate::workspace::found::Workspace;
use crate::workspace::store::Store;

/// Report what workspaces use, and when one runs out of memory
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Time between two reports, such as 5s or 100ms
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = interval::parse)]
    interval: Duration,
    /// Report once and return
    #[arg(long)]
    stats: bool,
    /// Which workspaces
    #[arg(required = true, num_args = 1..)]
    ids: Vec<ContainerId>,
}

/// Runs `events`.
pub(super) fn run(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    let store = session.store()?;
    let mut subjects = Vec::new();
    for id in &args.ids {
        let workspace =
            Workspace::find(&store, id).with_context(|| format!("cannot report on {id}"))?;
        if workspace.status()? == Status::Stopped {
            bail!("cannot report on {id}: container with id {id} is not running");
        }
        subjects.push((id.clone(), workspace));
    }
    if args.stats {
        subjects
            .iter()
            .try_for_each(|(id, workspace)| stats(id, workspace))?;
    } else {
        follow(&store, subjects, args.interval)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn stats(id: &ContainerId, workspace: &Workspace) -> anyhow::Result<()> {
    let mut counters = workspace
        .enclosure()?
        .counters()
        .with_context(|| format!("cannot report on {id}"))?;
    machine::correct(workspace, &mut counters);
    let interfaces = workspace.interfaces();
    print(&report::stats(id.as_str(), &counters, interfaces))
}

fn print<T: serde::Serialize>(object: &T) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(object)?;
    line.push(b'\n');
    table::print(&line)
}

/// Reports until all are gone.
fn follow(
    store: &Store,
    mut subjects: Vec<(ContainerId, Workspace)>,
    interval: Duration,
) -> anyhow::Result<()> {
    let watches = subjects.iter().map(|(id, workspace)| {
        let mut watch = workspace.enclosure()?.watch()?;
        if let Some(told) = machine::listen(store, id, workspace)? {
            watch.hear(told);
        }
        Ok(watch)
    });
    let mut watches = watches.collect::<anyhow::Result<Vec<Watch>>>()?;
    let mut next = Instant::now() + interval;
    while !watches.is_empty() {
        match watch::first(&mut watches, Some(next)).context("cannot watch")? {
            Some((index, Event::Empty)) => {
                subjects.remove(index);
                watches.remove(index);
            }
            Some((index, Event::OutOfMemory { .. })) => {
                print(&report::out_of_memory(subjects[index].0.as_str()))?;
            }
            None => {
                next += interval;
                for (id, workspace) in &subjects {
                    // Whoever ends just now is told by the watch.
                    stats(id, workspace).or_else(|error| gone(workspace, error))?;
                }
            }
        }
    }
    Ok(())
}

/// An error about a workspace that is not there any more is none.
fn gone(workspace: &Workspace, error: anyhow::Error) -> anyhow::Result<()> {
    match workspace.enclosure()?.populated() {
        Ok(false) => Ok(()),
        _ => Err(error),
    }
}
