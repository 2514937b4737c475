//! `run`: create, start and, unless detached, wait and delete.

use std::process::ExitCode;

use anyhow::Context;

use crate::cli::making::Making;
use crate::cli::making::Starting;
use crate::cli::session;
use crate::cli::session::Session;
use crate::cli::words;
use crate::cli::words::Words;
use crate::spec::id::ContainerId;
use crate::workspace::running;
use crate::workspace::running::Stay;

/// Make a workspace from a bundle, run its program and exit as it does
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    making: Making,
    #[command(flatten)]
    starting: Starting,
    /// Return as soon as the program runs
    #[arg(long, short = 'd')]
    detach: bool,
    /// Do not delete the workspace at its end
    #[arg(long)]
    keep: bool,
    /// Do not adopt processes that the workspace leaves behind
    #[arg(long)]
    no_subreaper: bool,
    /// Name of the new workspace
    id: ContainerId,
}

impl Args {
    /// Reads the words that follow the command, where they are plain (`cli::plain`).
    pub(super) fn plain(mut words: Words<'_>) -> Option<Self> {
        let (mut making, mut starting) = (Making::default(), Starting::default());
        let (mut detach, mut keep, mut no_subreaper, mut id) = (false, false, false, None);
        while let Some(word) = words.next()? {
            match word {
                "--detach" | "-d" => detach = true,
                "--keep" => keep = true,
                "--no-subreaper" => no_subreaper = true,
                _ if making.plain(word, &mut words)? || starting.plain(word, &mut words)? => {}
                _ => words::fill(word, &mut id)?,
            }
        }
        let id = id?.parse().ok()?;
        Some(Self {
            making,
            starting,
            detach,
            keep,
            no_subreaper,
            id,
        })
    }
}

/// Runs `run`.
pub(super) fn run(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    let wish = session.wish(&args.id, &args.making, &args.starting);
    let receipts = args.making.receipts(args.starting.pidfd_socket.as_ref());
    let stay = Stay {
        detach: args.detach,
        keep: args.keep,
        adopt: !args.no_subreaper,
        timed: session.timed(),
    };
    let exit = running::run(&session.store()?, &wish, &receipts, stay, &session.log)
        .with_context(|| format!("cannot run {}", args.id))?;
    Ok(exit.map_or(ExitCode::SUCCESS, session::code_of))
}
