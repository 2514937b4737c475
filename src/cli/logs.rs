//! `logs`: what a workspace wrote.

use std::collections::VecDeque;
use std::io;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;
use std::time::SystemTime;

use anyhow::Context;
use anyhow::bail;

use crate::cli::session::Session;
use crate::monitor;
use crate::monitor::Entry;
use crate::monitor::Reader;
use crate::monitor::Stream;
use crate::spec::id::ContainerId;
use crate::spec::quantity;
use crate::workspace::estate;
use crate::workspace::found::Workspace;

/// Print what the program of a workspace wrote
///
/// Standard output and standard error go where they went in the workspace; what its monitor has to say (that the lease
/// ended, that it was started again) goes to standard error. The last 16 to 24 MiB are kept.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Go on until the workspace has ended
    #[arg(long, short = 'f')]
    follow: bool,
    /// The last N lines only
    #[arg(long, short = 'n', value_name = "N")]
    lines: Option<usize>,
    /// Not older than this, such as 10m or 1h 30m
    #[arg(long, value_name = "SPAN", value_parser = span)]
    since: Option<Duration>,
    /// Write the time before each line
    #[arg(long, short = 't')]
    timestamps: bool,
    /// Which workspace
    name: ContainerId,
}

fn span(text: &str) -> Result<Duration, String> {
    quantity::span(text).ok_or_else(|| format!("{text:?} is not {}", quantity::SPAN))
}

/// Runs `logs`.
pub(super) fn run(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    let store = session.store()?;
    let workspace = Workspace::find(&store, &args.name)
        .with_context(|| format!("cannot read the output of {}", args.name))?;
    if !monitor::is_kept(&store, &args.name) {
        bail!(
            "the output of {} is not kept: it was not made by up",
            args.name
        );
    }
    let directory = estate::place(store.places(), &args.name);
    let mut reader =
        Reader::open(&directory).with_context(|| format!("cannot read {}", directory.display()))?;
    match show(args, &workspace, &mut reader) {
        // Who has read enough, such as head(1), need not be told.
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        shown => shown.map(|()| ExitCode::SUCCESS),
    }
}

fn show(args: &Args, workspace: &Workspace, reader: &mut Reader) -> anyhow::Result<()> {
    let mut printer = Printer::new(args);
    printer.first(reader)?;
    let mut goes_on = args.follow;
    while goes_on {
        goes_on = monitor::wait_for_more(workspace, reader)?;
        printer.next(reader)?;
    }
    Ok(())
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

struct Printer {
    lines: Option<usize>,
    since: Option<String>,
    timestamps: bool,
    /// Whether each stream is at the begin of a line.
    fresh: [bool; 3],
}

impl Printer {
    fn new(args: &Args) -> Self {
        let since = args
            .since
            .and_then(|span| SystemTime::now().checked_sub(span));
        Self {
            lines: args.lines,
            since: since.map(monitor::time_text),
            timestamps: args.timestamps,
            fresh: [true; 3],
        }
    }

    /// Prints what is there.
    fn first(&mut self, reader: &mut Reader) -> anyhow::Result<()> {
        let Some(lines) = self.lines else {
            return self.next(reader);
        };
        let mut last: VecDeque<Entry> = VecDeque::new();
        let mut whole = 0;
        let ends = |entry: &Entry| usize::from(entry.bytes.ends_with(b"\n"));
        reader.read(&mut |entry| {
            whole += ends(&entry);
            last.push_back(entry);
            while whole > lines {
                whole -= last.pop_front().as_ref().map_or(0, ends);
            }
            Ok(())
        })?;
        // A line that has not ended yet is a line.
        let begun = last.back().map_or(0, |entry| 1 - ends(entry));
        while whole + begun > lines && !last.is_empty() {
            whole -= last.pop_front().as_ref().map_or(0, ends);
        }
        last.into_iter().try_for_each(|entry| self.print(&entry))?;
        flush()
    }

    /// Prints what has come since.
    fn next(&mut self, reader: &mut Reader) -> anyhow::Result<()> {
        reader.read(&mut |entry| self.print(&entry))?;
        flush()
    }

    fn print(&mut self, entry: &Entry) -> io::Result<()> {
        if self.since.as_ref().is_some_and(|since| entry.time < *since) {
            return Ok(());
        }
        let number = match entry.stream {
            Some(Stream::Out) => 0,
            Some(Stream::Err) => 1,
            None => 2,
        };
        let mut text = Vec::with_capacity(entry.bytes.len() + 40);
        let fresh = std::mem::replace(&mut self.fresh[number], entry.bytes.ends_with(b"\n"));
        if self.timestamps && fresh {
            text.extend_from_slice(entry.time.as_bytes());
            text.push(b' ');
        }
        if entry.stream.is_none() && fresh {
            text.extend_from_slice(b"bulkhead: ");
        }
        text.extend_from_slice(&entry.bytes);
        match number {
            0 => io::stdout().lock().write_all(&text),
            _ => io::stderr().lock().write_all(&text),
        }
    }
}

fn flush() -> anyhow::Result<()> {
    io::stdout()
        .lock()
        .flush()
        .context("cannot write to standard output")
}
