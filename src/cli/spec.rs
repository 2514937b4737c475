//! `spec`: write a configuration to start from.

use std::fs::File;
use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use anyhow::bail;

use crate::cli::session::Session;
use crate::spec::Spec;
use crate::sys::identity;

/// Write a config.json to start from
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Directory of the bundle
    #[arg(
        long,
        short = 'b',
        value_name = "DIR",
        default_value = ".",
        hide_default_value = true
    )]
    bundle: PathBuf,
    /// For a workspace without the rights of root
    #[arg(long)]
    rootless: bool,
    /// File to write in place of config.json
    #[arg(
        long,
        short = 'f',
        value_name = "FILE",
        default_value = "config.json",
        hide_default_value = true
    )]
    file: PathBuf,
}

/// Runs `spec`.
pub(super) fn run(args: &Args, _session: &Session) -> anyhow::Result<ExitCode> {
    let spec = if args.rootless {
        let (uid, gid) = identity::effective();
        Spec::starter_rootless(uid, gid)
    } else {
        Spec::starter()
    };
    write(&args.bundle.join(&args.file), &args.file, &text(&spec)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Indented by tabs, as every other runtime writes it.
fn text(spec: &Spec) -> anyhow::Result<Vec<u8>> {
    use serde::Serialize;

    let mut text = Vec::new();
    let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    spec.serialize(&mut serde_json::Serializer::with_formatter(&mut text, tabs))?;
    text.push(b'\n');
    Ok(text)
}

fn write(path: &Path, name: &Path, text: &[u8]) -> anyhow::Result<()> {
    let mut file = match File::create_new(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            bail!("File {} exists. Remove it first", name.display())
        }
        Err(error) => {
            return Err(error).with_context(|| format!("cannot write {}", path.display()));
        }
    };
    file.write_all(text)
        .with_context(|| format!("cannot write {}", path.display()))
}
