//! `compile`: what a workspace document asks for, as an OCI configuration.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use crate::cli::session::Session;
use crate::spec::Spec;
use crate::spec::asked::Isolation;
use crate::workspace::documents;

/// Print the config.json that a workspace document compiles to
///
/// The bundle runs under any OCI runtime; only the guarantees, the network and the lease are Bulkhead's own.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Wall to put it behind, in place of the document's: container or microvm
    #[arg(long, value_name = "WALL", value_parser = wall)]
    isolation: Option<Isolation>,
    /// Workspace document; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Reads the word for a wall.
pub(super) fn wall(word: &str) -> Result<Isolation, String> {
    match word {
        "container" => Ok(Isolation::Container),
        "microvm" => Ok(Isolation::MicroVm),
        _ => Err(format!("{word:?} is not container or microvm")),
    }
}

/// Runs `compile`.
pub(super) fn run(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    let loaded = documents::load(&args.file, args.isolation)?;
    let surroundings = loaded.surroundings(&session.state_root()?, None, &session.log)?;
    let spec = loaded.document.compile(&surroundings)?;
    let mut out = std::io::stdout().lock();
    out.write_all(&text(&spec)?)
        .and_then(|()| out.flush())
        .context("cannot write to standard output")?;
    Ok(ExitCode::SUCCESS)
}

/// Indented by two spaces; the order of the keys is that of the specification's types.
fn text(spec: &Spec) -> anyhow::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(spec)?;
    text.push(b'\n');
    Ok(text)
}
