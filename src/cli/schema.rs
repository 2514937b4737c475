//! `schema`: the JSON Schema of workspace documents, for editors and for the file in `runtime-spec/schema`.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;

use crate::spec::workspace;

/// Print the JSON Schema of workspace documents
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

/// Runs `schema`.
pub(super) fn run(_args: &Args) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    out.write_all(workspace::schema()?.as_bytes())
        .and_then(|()| out.flush())
        .context("cannot write to standard output")?;
    Ok(ExitCode::SUCCESS)
}
