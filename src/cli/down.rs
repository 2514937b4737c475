//! `down`: end workspaces and remove everything of them.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use anyhow::bail;

use crate::cli::log;
use crate::cli::session::Session;
use crate::monitor;
use crate::spec::id::ContainerId;

/// End workspaces and remove everything of them, what they wrote included
///
/// With --keep-files the writable layer and the output of a workspace that `up` made stay: the next `up` of the same name
/// goes on with them, and the next `down` of that name without the option removes them.
///
/// The program is told to end (SIGTERM) and killed when it has not after --time seconds. Works for every workspace,
/// however it was made; a mount of the host's that it had is left as it is.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Seconds to wait for the program to end by itself
    #[arg(long, short = 't', value_name = "SECONDS", default_value_t = 10)]
    time: u64,
    /// Leave what they wrote to the next of the same name
    #[arg(long)]
    keep_files: bool,
    /// Which workspaces
    #[arg(value_name = "NAME", required = true)]
    names: Vec<ContainerId>,
}

/// Runs `down`.
pub(super) fn run(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    let store = session.store()?;
    let grace = Duration::from_secs(args.time);
    let failures: Vec<anyhow::Error> = args
        .names
        .iter()
        .filter_map(|name| {
            let lowered = monitor::lower(&store, name, (grace, args.keep_files), &session.log);
            lowered
                .with_context(|| format!("cannot bring down {name}"))
                .err()
        })
        .collect();
    match failures.as_slice() {
        [] => Ok(ExitCode::SUCCESS),
        several => {
            let texts: Vec<String> = several.iter().map(log::one_line).collect();
            bail!("{}", texts.join("; "))
        }
    }
}
