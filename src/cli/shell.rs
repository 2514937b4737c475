//! `shell`: look around inside a workspace.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Context;

use crate::cli::session;
use crate::cli::session::Session;
use crate::spec::id::ContainerId;
use crate::spec::process::Process;
use crate::workspace::found::Workspace;
use crate::workspace::joining::Errand;
use crate::workspace::making::Receipts;

/// Run a shell, or a command, inside a workspace and exit as it does
///
/// With a terminal when there is one here. The shell is $SHELL of the workspace's environment, or /bin/sh.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which workspace
    name: ContainerId,
    /// Command and its arguments, in place of the shell
    #[arg(value_name = "COMMAND", last = true)]
    command: Vec<String>,
}

/// Runs `shell`.
pub(super) fn run(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    let exit = enter(args, session).with_context(|| format!("cannot enter {}", args.name))?;
    Ok(exit)
}

fn enter(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    let workspace = Workspace::find(&session.store()?, &args.name)?;
    let spec = workspace.spec()?;
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let mut process = (*spec.process).clone();
    process.args = match args.command.is_empty() {
        true => shell(&process, terminal),
        false => args.command.clone(),
    };
    process.terminal = terminal;
    let errand = Errand {
        process,
        cgroup: None,
        preserve_fds: 0,
        ignore_paused: false,
        detach: false,
        rootless: session.rootless(),
        timed: session.timed(),
    };
    let exit = workspace.exec(&spec, errand, &Receipts::default())?;
    Ok(exit.map_or(ExitCode::SUCCESS, session::code_of))
}

/// The workspace's own shell; an interactive one only where somebody can type.
fn shell(process: &Process, terminal: bool) -> Vec<String> {
    let own = process
        .env
        .iter()
        .rev()
        .find_map(|pair| pair.strip_prefix("SHELL="));
    let own = own
        .filter(|path| path.starts_with('/'))
        .unwrap_or("/bin/sh");
    let interactive = terminal.then(|| "-i".to_owned());
    std::iter::once(own.to_owned()).chain(interactive).collect()
}
