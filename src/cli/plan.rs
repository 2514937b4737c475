//! `plan`: what would be done for a bundle, without doing it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use crate::cli::compile;
use crate::cli::session::Session;
use crate::cli::table;
use crate::spec::asked::Isolation;
use crate::workspace::blueprint::Blueprint;
use crate::workspace::blueprint::Wish;

/// Print the steps that would make a workspace from a bundle
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Directory of the bundle
    #[arg(default_value = ".", hide_default_value = true)]
    bundle: PathBuf,
    /// Configuration to use in place of the bundle's config.json
    #[arg(long, short = 'f', value_name = "FILE")]
    config: Option<PathBuf>,
    /// Wall to put it behind, in place of the configuration's: container or microvm
    #[arg(long, value_name = "WALL", value_parser = compile::wall)]
    isolation: Option<Isolation>,
}

/// Runs `plan`.
pub(super) fn run(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    let wish = Wish {
        config: args.config.clone(),
        isolation: args.isolation.or(session.called),
        ..session.wish_of(&"plan".parse()?, args.bundle.clone())
    };
    let blueprint = Blueprint::draw(&wish, &session.store()?, &session.log)
        .with_context(|| format!("cannot plan {}", args.bundle.display()))?;
    let mut text = format!("bundle: {}\n", blueprint.bundle.display());
    if let Some(cgroup) = blueprint.cgroup.place.directory() {
        text += &format!("cgroup: {}\n", cgroup.display());
    }
    for write in &blueprint.cgroup.limits.writes {
        text += &format!("cgroup: {write}\n");
    }
    text += &match &blueprint.machine {
        Some(machine) => machine.plan.to_string(),
        None => blueprint.plan.to_string(),
    };
    table::print(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
