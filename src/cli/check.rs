//! `check`: whether workspace documents say what they may say.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use crate::cli::session::Session;
use crate::workspace::documents;

/// Check workspace documents without making anything
///
/// For each that is sound, `FILE: ok` is printed. The others are reported with file, line, key and what was expected
/// there, and the exit status is 1.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Workspace documents; - is standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

/// Runs `check`.
pub(super) fn run(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    let root = session.state_root()?;
    let mut all = ExitCode::SUCCESS;
    let mut out = std::io::stdout().lock();
    for file in &args.files {
        match documents::load(file, None).and_then(|loaded| loaded.check(&root)) {
            Ok(()) => writeln!(out, "{}: ok", file.display())
                .context("cannot write to standard output")?,
            Err(error) => {
                session
                    .log
                    .failed(&crate::cli::log::one_line(&error.into()));
                all = ExitCode::FAILURE;
            }
        }
    }
    Ok(all)
}
