//! `list`: all workspaces of the state root.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::process::ExitCode;

use anyhow::bail;

use crate::cli::session::Session;
use crate::cli::table;
use crate::spec::id::ContainerId;
use crate::sys::processor;
use crate::workspace::document::Document;
use crate::workspace::error::WorkspaceError;
use crate::workspace::found::Workspace;
use crate::workspace::store::Store;

/// How many workspaces are read in the time that a thread takes to begin and end, and a few times more.
const WORTH_A_THREAD: usize = 16;

/// List the workspaces
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// table or json
    #[arg(long, short = 'f', value_name = "FORMAT", default_value = "table")]
    format: String,
    /// Names only
    #[arg(long, short = 'q')]
    quiet: bool,
}

/// Runs `list`.
pub(super) fn run(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    let store = session.store()?;
    let documents = documents(&store, &store.ids()?, session);
    let text = match args.format.as_str() {
        _ if args.quiet => documents
            .iter()
            .map(|one| format!("{}\n", one.id))
            .collect(),
        "json" if documents.is_empty() => "null\n".to_owned(),
        "json" => serde_json::to_string(&documents)? + "\n",
        "table" => table::aligned(&rows(&documents)),
        other => bail!("invalid format option: {other}"),
    };
    table::print(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// One that cannot be read, or is deleted meanwhile, does not keep the others from being listed.
fn documents(store: &Store, ids: &[ContainerId], session: &Session) -> Vec<Document> {
    let mut documents = Vec::new();
    let mut owners = Owners::default();
    for (id, found) in ids.iter().zip(read_all(store, ids)) {
        match found {
            Ok((uid, document)) => documents.push(Document {
                owner: owners.name(uid),
                ..document
            }),
            Err(error) => session.ignore(&format!("{id} cannot be read"), error),
        }
    }
    documents
}

/// A workspace as it is listed, and the user who made it.
type Found = Result<(u32, Document), WorkspaceError>;

/// Reads all of them, in their order; where there are many, on every processor, since each is for itself.
fn read_all(store: &Store, ids: &[ContainerId]) -> Vec<Found> {
    // How many there are is asked of the cgroups too, which takes a dozen calls.
    let processors = match ids.len() > WORTH_A_THREAD {
        true => std::thread::available_parallelism().map_or(1, usize::from),
        false => 1,
    };
    let share = ids.len().div_ceil(processors).max(WORTH_A_THREAD);
    let (own, others) = ids.split_at(share.min(ids.len()));
    let read = |ids: &[ContainerId]| ids.iter().map(|id| document(store, id)).collect();
    std::thread::scope(|scope| {
        let others = others.chunks(share);
        let others: Vec<_> = others.map(|ids| scope.spawn(move || read(ids))).collect();
        if !others.is_empty() {
            processor::send_others_away();
        }
        let mut found: Vec<Found> = read(own);
        for other in others {
            let more: Vec<Found> = other.join().unwrap_or_else(|why| resume_unwind(why));
            found.extend(more);
        }
        found
    })
}

fn document(store: &Store, id: &ContainerId) -> Found {
    let workspace = Workspace::find(store, id)?;
    Ok((workspace.owner()?, workspace.document()?))
}

/// The names of the users who were met: most workspaces have the same.
#[derive(Default)]
struct Owners {
    met: BTreeMap<u32, String>,
}

impl Owners {
    fn name(&mut self, uid: u32) -> String {
        let name = self.met.entry(uid).or_insert_with(|| owner_name(uid));
        name.clone()
    }
}

/// The name of a user, or `#` and the number when it has none.
fn owner_name(uid: u32) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("#{uid}"))
}

fn rows(documents: &[Document]) -> Vec<[String; 6]> {
    let heading = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let rows = documents.iter().map(|document| {
        [
            document.id.clone(),
            document.pid.to_string(),
            document.status.to_string(),
            document.bundle.display().to_string(),
            document.created.clone(),
            document.owner.clone(),
        ]
    });
    std::iter::once(heading).chain(rows).collect()
}
