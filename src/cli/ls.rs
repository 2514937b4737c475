//! `ls`: all workspaces, with what they are granted.

use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;
use std::time::SystemTime;

use anyhow::bail;
use serde::Serialize;

use crate::cli::lease;
use crate::cli::session::Session;
use crate::cli::table;
use crate::monitor;
use crate::monitor::Resets;
use crate::spec::asked::Asked;
use crate::spec::id::ContainerId;
use crate::spec::quantity;
use crate::spec::state::Status;
use crate::workspace::error::WorkspaceError;
use crate::workspace::found::Workspace;
use crate::workspace::lease::now_us;
use crate::workspace::store::Store;
use crate::workspace::wiring;

/// List the workspaces with what they are granted
///
/// STATUS says (alone) when the monitor of a workspace has been killed: its output is not kept, its end not seen to and
/// its lease not watched over until `gc` has given it another. CPU and MEMORY are what is guaranteed; LEASE is what is
/// left of it; EXIT is how the program ended; RESETS how often it was started again because it needed more memory than its limit.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// table or json
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: String,
}

/// A workspace as it is listed; `null` is for what it has not.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    isolation: &'static str,
    status: String,
    alone: bool,
    pid: Option<i32>,
    addresses: Vec<IpAddr>,
    cpu_reserve_milli: Option<u64>,
    memory_reserve_bytes: Option<u64>,
    lease: Option<Granted>,
    exit_status: Option<i32>,
    resets: u32,
    created: String,
    age_ms: Option<u64>,
}

/// A lease as it is listed.
#[derive(Debug, Serialize)]
struct Granted {
    granted_us: u64,
    remaining_us: u64,
    watched: bool,
}

/// Runs `ls`.
pub(super) fn run(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    let store = session.store()?;
    let mut rows = Vec::new();
    let mut addresses = wiring::addresses(store.places());
    for id in store.ids()? {
        match row(&store, &id) {
            Ok(row) => rows.push(Row {
                addresses: addresses.remove(id.as_str()).unwrap_or_default(),
                ..row
            }),
            // One that is deleted meanwhile does not keep the others from being listed.
            Err(error) => session.ignore(&format!("{id} cannot be read"), error),
        }
    }
    let text = match args.format.as_str() {
        "json" => serde_json::to_string(&rows)? + "\n",
        "table" => table::aligned(&cells(&rows)),
        other => bail!("invalid format option: {other}"),
    };
    table::print(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn row(store: &Store, id: &ContainerId) -> Result<Row, WorkspaceError> {
    let workspace = Workspace::find(store, id)?;
    let record = workspace.record();
    let asked = Asked::of(&record.annotations)?;
    let status = workspace.status()?;
    let exit = workspace.noted_exit().filter(|_| status == Status::Stopped);
    let watched = workspace.monitor().is_some();
    let now = now_us();
    let lease = workspace.term()?.filter(|_| status != Status::Stopped);
    let granted = |amount: u64| (amount > 0).then_some(amount);
    let comes_back =
        status == Status::Stopped && watched && exit.is_none() && monitor::is_kept(store, id);
    Ok(Row {
        name: id.to_string(),
        isolation: record.isolation.word(),
        status: match comes_back {
            true => "restarting".to_owned(),
            false => status.to_string(),
        },
        alone: monitor::is_alone(store, &workspace)?,
        pid: record
            .init
            .as_ref()
            .filter(|_| status != Status::Stopped)
            .map(|init| init.pid),
        addresses: Vec::new(),
        cpu_reserve_milli: granted(asked.guarantee.cpu_milli),
        memory_reserve_bytes: granted(asked.guarantee.memory_bytes),
        lease: lease.map(|term| Granted {
            granted_us: term.granted_us(),
            remaining_us: term.remaining_us(now),
            watched,
        }),
        exit_status: exit.map(|exit| exit.code()),
        resets: Resets::of(&workspace).count,
        created: record.created.clone(),
        age_ms: age(&record.created).and_then(|age| u64::try_from(age.as_millis()).ok()),
    })
}

fn age(created: &str) -> Option<Duration> {
    let created = humantime::parse_rfc3339(created).ok()?;
    SystemTime::now().duration_since(created).ok()
}

const HEADING: [&str; 10] = [
    "NAME",
    "ISOLATION",
    "STATUS",
    "ADDRESS",
    "CPU",
    "MEMORY",
    "LEASE",
    "EXIT",
    "RESETS",
    "AGE",
];

fn cells(rows: &[Row]) -> Vec<[String; 10]> {
    let none = || "-".to_owned();
    let cells = rows.iter().map(|row| {
        [
            row.name.clone(),
            row.isolation.to_owned(),
            match row.alone {
                true => format!("{} (alone)", row.status),
                false => row.status.clone(),
            },
            match row.addresses.is_empty() {
                true => none(),
                false => row
                    .addresses
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(","),
            },
            row.cpu_reserve_milli.map_or_else(none, quantity::cpus_text),
            row.memory_reserve_bytes.map_or_else(none, bytes),
            row.lease.as_ref().map_or_else(none, Granted::text),
            row.exit_status
                .map_or_else(none, |status| status.to_string()),
            match row.resets {
                0 => none(),
                resets => resets.to_string(),
            },
            row.age_ms
                .map_or_else(none, |ms| lease::text(ms / 1000 * 1_000_000)),
        ]
    });
    std::iter::once(HEADING.map(str::to_owned))
        .chain(cells)
        .collect()
}

impl Granted {
    fn text(&self) -> String {
        let left = match self.remaining_us {
            0 => "ended".to_owned(),
            us => lease::text(us),
        };
        match self.watched {
            true => left,
            false => format!("{left} (unwatched)"),
        }
    }
}

/// A size in the largest unit that it is a whole number of.
fn bytes(bytes: u64) -> String {
    let units = [
        (1 << 40, "T"),
        (1 << 30, "G"),
        (1 << 20, "M"),
        (1 << 10, "K"),
    ];
    let unit = units.iter().find(|(size, _)| bytes.is_multiple_of(*size));
    unit.map_or_else(
        || bytes.to_string(),
        |(size, name)| format!("{}{name}", bytes / size),
    )
}
