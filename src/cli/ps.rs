//! `ps`: the processes of a workspace.

use std::process::Command;
use std::process::ExitCode;

use anyhow::Context;
use anyhow::bail;

use crate::cli::session::Session;
use crate::cli::table;
use crate::spec::id::ContainerId;
use crate::sys::program;
use crate::workspace::error::WorkspaceError;
use crate::workspace::found::Workspace;
use crate::workspace::inside::Process;

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
    let found = Workspace::find(&session.store()?, &args.id)
        .and_then(|workspace| Found::of(&workspace))
        .with_context(|| format!("cannot list the processes of {}", args.id))?;
    let text = match (args.format.as_str(), found) {
        ("json", Found::Here(pids)) => serde_json::to_string(&pids)? + "\n",
        ("json", Found::Inside(processes)) => {
            let pids: Vec<i32> = processes.iter().map(|one| one.pid).collect();
            serde_json::to_string(&pids)? + "\n"
        }
        ("table", Found::Here(pids)) => listed(&args.options, &pids)?,
        ("table", Found::Inside(processes)) => described(&processes),
        (other, _) => bail!("invalid format option: {other}"),
    };
    table::print(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// The processes of a workspace, and whose numbers they have.
enum Found {
    /// This kernel's.
    Here(Vec<i32>),
    /// Those of the kernel inside.
    Inside(Vec<Process>),
}

impl Found {
    fn of(workspace: &Workspace) -> Result<Self, WorkspaceError> {
        Ok(match workspace.inside()? {
            Some(processes) => Self::Inside(processes),
            None => Self::Here(workspace.processes()?),
        })
    }
}

/// Processes that no ps(1) of the host's can see, in columns that it would have.
fn described(processes: &[Process]) -> String {
    let heading = ["UID", "PID", "PPID", "TIME", "CMD"].map(str::to_owned);
    let lines = processes.iter().map(|one| {
        let seconds = one.cpu_ms / 1000;
        let time = format!(
            "{:02}:{:02}:{:02}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        );
        [
            one.uid.to_string(),
            one.pid.to_string(),
            one.parent.to_string(),
            time,
            one.command.clone(),
        ]
    });
    let rows: Vec<[String; 5]> = std::iter::once(heading).chain(lines).collect();
    table::aligned(&rows)
}

/// What ps(1) says of these processes, with its heading.
fn listed(options: &[String], pids: &[i32]) -> anyhow::Result<String> {
    let usual = ["-ef".to_owned()];
    let options = if options.is_empty() { &usual } else { options };
    let mut command = Command::new("ps");
    program::streams_alone(command.args(options));
    let output = command.output().context("cannot run ps")?;
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
