//! `up`: bring up what workspace documents describe.

use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use anyhow::bail;

use crate::cli::compile;
use crate::cli::log;
use crate::cli::session;
use crate::cli::session::Session;
use crate::cli::table;
use crate::monitor;
use crate::monitor::Launch;
use crate::monitor::Remote;
use crate::spec::asked::Isolation;
use crate::spec::asked::OverLimit;
use crate::spec::id::ContainerId;
use crate::sys::signal::Signals;
use crate::workspace::blueprint::Wish;
use crate::workspace::blueprint::Written;
use crate::workspace::documents;
use crate::workspace::estate;
use crate::workspace::layer;
use crate::workspace::raising;
use crate::workspace::store::Store;

/// Bring up the workspaces that documents describe
///
/// One document: stays with the workspace, passes its output and signals on, exits as its program does, and removes it
/// at its end; with --detach returns as soon as the program runs. Several documents: always returns when all run. A
/// workspace that is not stayed with is there until `down`; what it wrote is in `logs`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Return as soon as the program runs
    #[arg(long, short = 'd')]
    detach: bool,
    /// Wall to put it behind, in place of the document's: container or microvm
    #[arg(long, value_name = "WALL", value_parser = compile::wall)]
    isolation: Option<Isolation>,
    /// Make all of them before any program runs; when one fails, undo all
    #[arg(long)]
    all_or_nothing: bool,
    /// Name of the workspace, in place of the document's
    #[arg(long, value_name = "NAME")]
    name: Option<ContainerId>,
    /// Workspace documents; - is standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

/// What a document asks for, with nothing made yet.
#[derive(Debug)]
struct Checked {
    written: Written,
    lower: Option<PathBuf>,
    wish: Wish,
}

/// Runs `up`.
pub(super) fn run(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    let store = session.store()?;
    if args.name.is_some() && args.files.len() > 1 {
        bail!(
            "--name: names one workspace, and there are {} documents",
            args.files.len()
        );
    }
    match args.files.as_slice() {
        [file] if args.is_attached() => attached(args, file, &store, session),
        files if args.all_or_nothing => all_or_nothing(args, files, &store, session),
        files => each(args, files, &store, session),
    }
}

impl Args {
    /// Whether the command stays until the program ends, and the workspace goes then.
    fn is_attached(&self) -> bool {
        !self.detach && self.files.len() == 1
    }

    /// Reads a document and everything that its meaning depends on.
    fn check(&self, file: &Path, store: &Store, session: &Session) -> anyhow::Result<Checked> {
        let mut loaded = documents::load(file, self.isolation)?;
        if let Some(name) = &self.name {
            loaded.document.name = name.clone();
        }
        let id = loaded.document.name.clone();
        let places = store.places();
        let home = estate::place(places, &id);
        let writable = !loaded.document.readonly;
        // One that is started again in its life finds its layer used: the kernel takes a volatile one only once.
        let resets = loaded.document.memory.on_over_limit == OverLimit::Reset;
        let layer = writable.then(|| layer::of(places, &id, self.is_attached() && !resets));
        let around = loaded.surroundings(places, layer, &session.log)?;
        let mut spec = loaded.document.compile(&around)?;
        raising::fit_to_caller(&mut spec);
        Ok(Checked {
            written: Written::of(spec)?,
            lower: writable.then_some(around.rootfs),
            wish: session.wish_of(&id, home),
        })
    }
}

/// Starts the monitor of a workspace.
fn launch(
    checked: &Checked,
    store: &Store,
    session: &Session,
    (attached, waits): (bool, bool),
) -> anyhow::Result<Remote> {
    let launched = monitor::launch(&Launch {
        store,
        wish: &checked.wish,
        written: &checked.written,
        lower: checked.lower.as_deref(),
        attached,
        waits,
        timed: session.timed(),
    });
    launched.with_context(|| cannot(&checked.wish.id))
}

fn cannot(id: &ContainerId) -> String {
    format!("cannot bring up {id}")
}

/// One workspace, and its program's own exit status.
fn attached(
    args: &Args,
    file: &Path,
    store: &Store,
    session: &Session,
) -> anyhow::Result<ExitCode> {
    let checked = args.check(file, store, session)?;
    let id = &checked.wish.id;
    // One that comes while the workspace is made is passed to it when it runs.
    let signals = Signals::hold().context("cannot hold signals back")?;
    let remote = launch(&checked, store, session, (true, false))?;
    remote
        .until_running(&session.log)
        .with_context(|| cannot(id))?;
    let exit = remote
        .attend(&signals)
        .with_context(|| format!("{id} may still run, see ls"))?;
    exit.map(session::code_of)
        .with_context(|| format!("{id} was removed, and its exit status is not known"))
}

/// Every document for itself.
fn each(
    args: &Args,
    files: &[PathBuf],
    store: &Store,
    session: &Session,
) -> anyhow::Result<ExitCode> {
    let mut failures = Vec::new();
    for file in files {
        match one(args, file, store, session) {
            Ok(remote) => tell(&remote)?,
            Err(error) if files.len() == 1 => return Err(error),
            Err(error) => failures.push(log::one_line(&error)),
        }
    }
    if failures.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let (failed, all) = (failures.len(), files.len());
    bail!("{failed} of {all} did not come up: {}", failures.join("; "))
}

fn one(args: &Args, file: &Path, store: &Store, session: &Session) -> anyhow::Result<Remote> {
    let checked = args.check(file, store, session)?;
    let remote = launch(&checked, store, session, (false, false))?;
    remote
        .until_running(&session.log)
        .with_context(|| cannot(&checked.wish.id))?;
    Ok(remote)
}

/// All documents are checked, then all workspaces made, then all programs started.
fn all_or_nothing(
    args: &Args,
    files: &[PathBuf],
    store: &Store,
    session: &Session,
) -> anyhow::Result<ExitCode> {
    let checked = files
        .iter()
        .map(|file| args.check(file, store, session))
        .collect::<anyhow::Result<Vec<Checked>>>()?;
    let mut raised = Vec::new();
    let outcome =
        raise(&checked, store, session, &mut raised).and_then(|()| start(&raised, session));
    if let Err(error) = outcome {
        for remote in raised.into_iter().rev() {
            remote.undo(&session.log);
        }
        return Err(error.context("nothing was brought up"));
    }
    for remote in &raised {
        tell(remote)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn raise(
    checked: &[Checked],
    store: &Store,
    session: &Session,
    raised: &mut Vec<Remote>,
) -> anyhow::Result<()> {
    for one in checked {
        let remote = launch(one, store, session, (false, true))?;
        remote
            .until_raised(&session.log)
            .with_context(|| cannot(&one.wish.id))?;
        raised.push(remote);
    }
    Ok(())
}

fn start(raised: &[Remote], session: &Session) -> anyhow::Result<()> {
    raised.iter().for_each(Remote::go);
    for remote in raised {
        remote
            .until_running(&session.log)
            .with_context(|| cannot(remote.id()))?;
    }
    Ok(())
}

fn tell(remote: &Remote) -> anyhow::Result<()> {
    table::print(format!("{}: running\n", remote.id()).as_bytes())
}
