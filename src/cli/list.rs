//! `list`: all workspaces of the state root.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::bail;

use crate::cli::session::Session;
use crate::cli::table;
use crate::spec::id::ContainerId;
use crate::workspace::document::Document;
use crate::workspace::error::WorkspaceError;
use crate::workspace::found::Workspace;
use crate::workspace::store::Store;

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
    for id in ids {
        match document(store, id, &mut owners) {
            Ok(document) => documents.push(document),
            Err(error) => session.ignore(&format!("{id} cannot be read"), error),
        }
    }
    documents
}

fn document(
    store: &Store,
    id: &ContainerId,
    owners: &mut Owners,
) -> Result<Document, WorkspaceError> {
    let workspace = Workspace::find(store, id)?;
    let uid = workspace.owner()?;
    Ok(Document {
        owner: owners.name(uid),
        ..workspace.document()?
    })
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
