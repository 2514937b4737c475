//! `ps`: the processes of a workspace.

use std::process::Command;
use std::process::ExitCode;

use anyhow::Context;
use anyhow::bail;

use crate::cli::session::Session;
use crate::cli::table;
use crate::spec::id::ContainerId;
use crate::workspace::found::Workspace;

/// List the processes of a workspace
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// table or json
    #[arg(long, short = 'f', value_name = "FORMAT", default_value = "table")]
    format: String,
    /// Which workspace
    id: ContainerId,
    /// Options for ps(1) [default: -ef]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

/// Runs `ps`.
pub(super) fn run(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    let pids = Workspace::find(&session.store()?, &args.id)
        .and_then(|workspace| workspace.processes())
        .with_context(|| format!("cannot list the processes of {}", args.id))?;
    let text = match args.format.as_str() {
        "json" => serde_json::to_string(&pids)? + "\n",
        "table" => listed(&args.options, &pids)?,
        other => bail!("invalid format option: {other}"),
    };
    table::print(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// What ps(1) says of these processes, with its heading.
fn listed(options: &[String], pids: &[i32]) -> anyhow::Result<String> {
    let usual = ["-ef".to_owned()];
    let options = if options.is_empty() { &usual } else { options };
    let output = Command::new("ps")
        .args(options)
        .output()
        .context("cannot run ps")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("ps: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let heading = text.lines().next().unwrap_or_default();
    let column = heading
        .split_whitespace()
        .position(|word| word == "PID")
        .context("couldn't find PID field in ps output")?;
    let ours = |line: &&str| {
        let word = line.split_whitespace().nth(column);
        word.and_then(|word| word.parse().ok())
            .is_some_and(|pid| pids.contains(&pid))
    };
    let lines = std::iter::once(heading).chain(text.lines().skip(1).filter(ours));
    Ok(lines.map(|line| format!("{line}\n")).collect())
}
