//! The command line: one file per command, each with its arguments and what they set in motion.
//!
//! Nothing here decides anything or talks to the kernel: a command turns words into a call of [`crate::workspace`] (or
//! of the pure layers) and its answer into text. Errors are printed in one place, by [`main`].

mod argv;
mod log;
mod narrow;
mod plain;
mod session;
mod words;

mod capacity;
mod check;
mod checkpoint;
mod choice;
mod compile;
mod completion;
mod create;
mod delete;
mod down;
mod events;
mod exec;
mod features;
mod figures;
mod gc;
mod guest;
mod host;
mod images;
mod inner;
mod kill;
mod lease;
mod ledger;
mod list;
mod logs;
mod ls;
mod making;
mod man;
mod mounts;
mod net;
mod pause;
mod plan;
mod ps;
mod restore;
mod resume;
mod run;
mod schema;
mod shell;
mod spec;
mod start;
mod state;
mod table;
mod top;
mod up;
mod update;
mod usage;
mod version;
mod wait;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Context;
use clap::CommandFactory;
use clap::Parser;
use clap::Subcommand;

use log::Log;
use session::Globals;
use session::Session;

use crate::sys::seal;

/// One workspace spec, two walls: run OCI bundles on the shared kernel
#[derive(Debug, Parser)]
#[command(
    name = "bulkhead",
    args_override_self = true,
    disable_version_flag = true
)]
#[command(arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(create::Args),
    Start(start::Args),
    Run(run::Args),
    Exec(exec::Args),
    Kill(kill::Args),
    Delete(delete::Args),
    State(state::Args),
    List(list::Args),
    Ps(ps::Args),
    Events(events::Args),
    Usage(usage::Args),
    Top(top::Args),
    Ledger(ledger::Args),
    Update(Box<update::Args>),
    Pause(pause::Args),
    Resume(resume::Args),
    Wait(wait::Args),
    Checkpoint(checkpoint::Args),
    Restore(restore::Args),
    Mounts(mounts::Args),
    Net(net::Args),
    Spec(spec::Args),
    Plan(plan::Args),
    Up(up::Args),
    Down(down::Args),
    Ls(ls::Args),
    Logs(logs::Args),
    Shell(shell::Args),
    Lease(lease::Args),
    Gc(gc::Args),
    Capacity(capacity::Args),
    Compile(compile::Args),
    Check(check::Args),
    #[command(hide = true)]
    Schema(schema::Args),
    Features(features::Args),
    Host(host::Args),
    Images(images::Args),
    Guest(guest::Args),
    Completion(completion::Args),
    Man(man::Args),
}

/// The commands whose process, or a copy of it, goes into a workspace.
const GOES_IN: [&str; 9] = [
    "create", "run", "exec", "restore", "mounts", "up", "shell", "lease", "gc",
];

/// Does what the command line says and reports how it went.
///
/// Failures of the runtime give 1, those of `exec` and `wait` 255 (their other statuses are the program's own).
#[must_use]
pub fn main() -> ExitCode {
    crate::sys::process::abort_on_panic();
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let Some(ended) = inner::part(&args) {
        return ended;
    }
    crate::sys::process::fit_heap();
    // Before anything is parsed, which may have to be done again then. A failure is met again, and told, in `protect`.
    if args
        .iter()
        .any(|word| GOES_IN.iter().any(|name| word == name))
    {
        seal::prepare().unwrap_or_default();
    }
    if args.is_empty() {
        return session::help(&mut Cli::command());
    }
    let args = argv::normalise(args, Cli::command);
    let words: Vec<OsString> = std::iter::once(OsString::from("bulkhead"))
        .chain(args.iter().cloned())
        .collect();
    let read = plain::read(&words).or_else(|| narrow::read(&words));
    match read.map_or_else(|| Cli::try_parse_from(words), Ok) {
        Ok(Cli { globals, .. }) if globals.version => version::print(),
        Ok(Cli {
            globals,
            command: Some(command),
        }) => run(globals, &command),
        Ok(Cli {
            globals,
            command: None,
        }) => {
            Session::new(globals)
                .log
                .failed("a command is missing; try --help");
            ExitCode::FAILURE
        }
        Err(error) => session::usage(&error, &args),
    }
}

fn run(globals: Globals, command: &Command) -> ExitCode {
    let tells_of_program = matches!(
        command,
        Command::Exec(_) | Command::Wait(_) | Command::Shell(_)
    );
    let failure = if tells_of_program {
        ExitCode::from(255)
    } else {
        ExitCode::FAILURE
    };
    let session = Session::new(globals);
    if let Err(error) = session.log.begin() {
        Log::failed_alone(&log::one_line(&error));
        return failure;
    }
    let done = protect(command).and_then(|()| dispatch(command, &session));
    match done {
        Ok(code) => {
            session.log.succeeded();
            code
        }
        Err(error) => {
            session.log.failed(&log::one_line(&error));
            failure
        }
    }
}

/// Commands whose process, or a copy of it, goes into a workspace run from a file that nobody there can write to. Where a
/// copy alone does, and nobody is there yet, the copy sees to it.
fn protect(command: &Command) -> anyhow::Result<()> {
    let copy_goes_in = matches!(command, Command::Create(_) | Command::Run(_));
    let goes_in = matches!(
        command,
        Command::Exec(_)
            | Command::Restore(_)
            | Command::Mounts(_)
            | Command::Up(_)
            | Command::Shell(_)
            | Command::Lease(_)
            | Command::Gc(_)
    );
    let protected = if copy_goes_in {
        seal::prepare()
    } else if goes_in {
        seal::ensure()
    } else {
        Ok(())
    };
    protected.context("cannot protect the runtime's own file")
}

fn dispatch(command: &Command, session: &Session) -> anyhow::Result<ExitCode> {
    match command {
        Command::Create(args) => alone(create::run, args, session),
        Command::Start(args) => alone(start::run, args, session),
        Command::Run(args) => alone(run::run, args, session),
        Command::Exec(args) => alone(exec::run, args, session),
        Command::Kill(args) => alone(kill::run, args, session),
        Command::Delete(args) => alone(delete::run, args, session),
        Command::State(args) => alone(state::run, args, session),
        Command::List(args) => alone(list::run, args, session),
        Command::Ps(args) => alone(ps::run, args, session),
        Command::Events(args) => alone(events::run, args, session),
        Command::Usage(args) => alone(usage::run, args, session),
        Command::Top(args) => alone(top::run, args, session),
        Command::Ledger(args) => alone(ledger::run, args, session),
        Command::Update(args) => alone(update::run, args, session),
        Command::Pause(args) => alone(pause::run, args, session),
        Command::Resume(args) => alone(resume::run, args, session),
        Command::Wait(args) => alone(wait::run, args, session),
        Command::Checkpoint(args) => alone(checkpoint::run, args, session),
        Command::Restore(args) => alone(restore::run, args, session),
        Command::Mounts(args) => alone(mounts::run, args, session),
        Command::Net(args) => alone(net::run, args, session),
        Command::Spec(args) => alone(spec::run, args, session),
        Command::Plan(args) => alone(plan::run, args, session),
        Command::Up(args) => alone(up::run, args, session),
        Command::Down(args) => alone(down::run, args, session),
        Command::Ls(args) => alone(ls::run, args, session),
        Command::Logs(args) => alone(logs::run, args, session),
        Command::Shell(args) => alone(shell::run, args, session),
        Command::Lease(args) => alone(lease::run, args, session),
        Command::Gc(args) => alone(gc::run, args, session),
        Command::Capacity(args) => alone(capacity::run, args, session),
        Command::Compile(args) => alone(compile::run, args, session),
        Command::Check(args) => alone(check::run, args, session),
        Command::Schema(args) => schema::run(args),
        Command::Features(args) => alone(features::run, args, session),
        Command::Host(args) => alone(host::run, args, session),
        Command::Images(args) => alone(images::run, args, session),
        Command::Guest(args) => alone(guest::run, args, session),
        Command::Completion(args) => alone(completion::run, args, session),
        Command::Man(args) => alone(man::run, args, session),
    }
}

/// Runs a command in a frame of its own: in one that has room for all of them, each would begin three pages further down.
#[inline(never)]
fn alone<A>(
    run: impl Fn(&A, &Session) -> anyhow::Result<ExitCode>,
    args: &A,
    session: &Session,
) -> anyhow::Result<ExitCode> {
    run(args, session)
}
