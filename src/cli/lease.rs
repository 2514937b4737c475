//! `lease`: for how long a workspace is granted.

use std::process::ExitCode;
use std::time::Duration;
use std::time::SystemTime;

use anyhow::Context;
use anyhow::bail;

use crate::cli::session::Session;
use crate::cli::table;
use crate::monitor;
use crate::spec::asked::Expiry;
use crate::spec::id::ContainerId;
use crate::spec::quantity;
use crate::spec::state::Status;
use crate::workspace::found::Workspace;
use crate::workspace::lease;
use crate::workspace::lease::Change;
use crate::workspace::lease::Term;

/// Show or change for how long a workspace is granted
///
/// A workspace that stands still because its lease has ended goes on when the lease is extended; then the time counts
/// from now on. Time in which the host was suspended counts.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Grant so much more, such as 2h or 1h 30m
    #[arg(long, value_name = "SPAN", value_parser = span, conflicts_with = "set")]
    extend: Option<Duration>,
    /// Grant so much from now on, longer or shorter than before
    #[arg(long, value_name = "SPAN", value_parser = span)]
    set: Option<Duration>,
    /// Which workspace
    name: ContainerId,
}

fn span(text: &str) -> Result<Duration, String> {
    quantity::span(text).ok_or_else(|| format!("{text:?} is not {}", quantity::SPAN))
}

/// Runs `lease`.
pub(super) fn run(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    let store = session.store()?;
    let context = || format!("cannot tell the lease of {}", args.name);
    let workspace = Workspace::find(&store, &args.name).with_context(context)?;
    let change = args
        .extend
        .map(Change::Extend)
        .or(args.set.map(Change::Set));
    let term = match change {
        None => workspace.term().with_context(context)?,
        Some(change) => {
            if workspace.status()? == Status::Stopped {
                bail!("cannot change the lease of {}: it has ended", args.name);
            }
            refuse_what_is_being_ended(&workspace)
                .with_context(|| format!("cannot change the lease of {}", args.name))?;
            let term = workspace.change_term(change)?;
            monitor::adopt(&store, &args.name)
                .with_context(|| format!("nobody watches over the lease of {}", args.name))?;
            Some(term)
        }
    };
    let text = match term {
        Some(term) => show(&workspace, &term),
        None => format!("{}: granted without end\n", args.name),
    };
    table::print(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// A lease that has ended is extended only where its end makes the workspace stand still.
fn refuse_what_is_being_ended(workspace: &Workspace) -> anyhow::Result<()> {
    if workspace.on_expiry() != Expiry::Pause && workspace.term_is_over()? {
        bail!("it has ended, and the workspace is being ended; see ls for when it has been");
    }
    Ok(())
}

/// The moment so far from now, in the form of RFC 3339, which has four digits for a year.
fn moment(left: Duration) -> String {
    /// The last second of the year 9999.
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let end = now.unwrap_or_default().saturating_add(left);
    match end <= LAST {
        true => humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + end).to_string(),
        false => "after the year 9999".to_owned(),
    }
}

fn show(workspace: &Workspace, term: &Term) -> String {
    let now = lease::now_us();
    let left = Duration::from_micros(term.remaining_us(now));
    let then = match workspace.on_expiry() {
        Expiry::Stop => "stop",
        Expiry::Pause => "pause",
        Expiry::Trash => "trash",
    };
    let watched = workspace.monitor().map_or_else(
        || "nobody: run gc".to_owned(),
        |monitor| format!("process {}", monitor.pid),
    );
    let rows = [
        ["granted".to_owned(), text(term.granted_us())],
        ["used".to_owned(), text(term.used_us(now))],
        ["remaining".to_owned(), text(term.remaining_us(now))],
        ["ends".to_owned(), moment(left)],
        ["then".to_owned(), then.to_owned()],
        ["watched by".to_owned(), watched],
    ];
    table::aligned(&rows)
}

/// A span in words, to the second; shorter ones to the millisecond.
pub(super) fn text(us: u64) -> String {
    let span = match us {
        0..60_000_000 => Duration::from_millis(us / 1000),
        _ => Duration::from_secs(us / 1_000_000),
    };
    humantime::format_duration(span).to_string()
}
