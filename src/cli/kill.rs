//! `kill`: send a signal to a workspace.

use std::process::ExitCode;

use anyhow::Context;

use crate::cli::choice::Choice;
use crate::cli::session::Session;
use crate::cli::words;
use crate::cli::words::Words;
use crate::sys::signal;
use crate::workspace::found::Workspace;

/// Send a signal to the init of a workspace
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Send it to every process of the workspace; succeed when there is none
    #[arg(long, short = 'a')]
    all: bool,
    #[command(flatten)]
    choice: Choice,
    /// Name (SIG may be left out) or number
    #[arg(default_value = "SIGTERM")]
    signal: String,
}

impl Args {
    /// Reads the words that follow the command, where they are plain (`cli::plain`).
    pub(super) fn plain(mut words: Words<'_>) -> Option<Self> {
        let (mut all, mut choice) = (false, Choice::default());
        let (mut id, mut signal) = (None, None);
        while let Some(word) = words.next()? {
            match word {
                "--all" | "-a" => all = true,
                _ if choice.plain(word) => {}
                _ if id.is_none() => words::fill(word, &mut id)?,
                _ => words::fill(word, &mut signal)?,
            }
        }
        Some(Self {
            all,
            choice: choice.of(id?),
            signal: signal.unwrap_or("SIGTERM").to_owned(),
        })
    }
}

/// Runs `kill`.
pub(super) fn run(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    let number = signal::number(&args.signal)
        .with_context(|| format!("unknown signal {:?}", args.signal))?;
    let store = session.store()?;
    args.choice.each(&store, |id| {
        Workspace::find(&store, id)
            .and_then(|workspace| match args.all {
                true => workspace.signal_all(number),
                false => workspace.signal(number),
            })
            .with_context(|| format!("cannot kill {id}"))
    })?;
    Ok(ExitCode::SUCCESS)
}
