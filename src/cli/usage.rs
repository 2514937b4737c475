//! `usage`: what workspaces have used so far, once or again and again.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use anyhow::bail;
use clap::ValueEnum;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;

use crate::accounting::AccountingError;
use crate::accounting::Ledger;
use crate::accounting::Usage;
use crate::accounting::openmetrics;
use crate::accounting::usage::Role;
use crate::cli::figures;
use crate::cli::log;
use crate::cli::session::Session;
use crate::cli::table;
use crate::spec::id::ContainerId;
use crate::spec::quantity;
use crate::spec::state::Status;
use crate::workspace::found::Workspace;
use crate::workspace::record::Record;
use crate::workspace::store::Store;

/// Report what workspaces have used
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Report again after so many seconds, until interrupted
    #[arg(long, short = 'w', value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2")]
    watch: Option<String>,
    /// How it is written
    #[arg(long, short = 'f', value_name = "FORMAT", default_value = "table")]
    format: Format,
    /// Which workspaces [default: all]
    ids: Vec<ContainerId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
    #[value(name = "openmetrics")]
    OpenMetrics,
}

/// What one command line asks for.
struct Wish {
    ids: Vec<ContainerId>,
    every: Option<Duration>,
    format: Format,
}

/// What a look has found.
struct Found {
    known: Vec<(Status, Usage)>,
    /// Why the rest is not known.
    missing: Vec<String>,
}

/// Runs `usage`.
pub(super) fn run(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    let wish = wish(args)?;
    let store = session.store()?;
    loop {
        let Found { known, missing } = look(&wish, &store, session)?;
        if !known.is_empty() || missing.is_empty() {
            let text = text(&wish, &known)?;
            table::print(text.as_bytes())?;
        }
        if !missing.is_empty() {
            bail!("{}", missing.join("; "));
        }
        match wish.every {
            Some(every) if still_read(every) => {}
            _ => return Ok(ExitCode::SUCCESS),
        }
    }
}

/// A word after `--watch` that is no time is the first of the names.
fn wish(args: &Args) -> anyhow::Result<Wish> {
    let mut ids: Vec<ContainerId> = Vec::new();
    for id in &args.ids {
        // Whoever is named twice is told of once.
        if !ids.contains(id) {
            ids.push(id.clone());
        }
    }
    let every = match &args.watch {
        None => None,
        Some(word) => Some(seconds(word).map_or_else(
            || match word.parse() {
                Ok(id) => {
                    ids.retain(|other| *other != id);
                    ids.insert(0, id);
                    Ok(Duration::from_secs(2))
                }
                Err(_) => bail!("invalid value {word:?} for --watch: neither a time nor a name"),
            },
            Ok,
        )?),
    };
    Ok(Wish {
        ids,
        every,
        format: args.format,
    })
}

/// A time such as `2`, `0.5` or `500ms`, of more than none.
fn seconds(word: &str) -> Option<Duration> {
    let plain = word.parse::<f64>().ok();
    let plain = plain.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    plain
        .or_else(|| quantity::span(word))
        .filter(|span| !span.is_zero())
}

/// What is known, and why the rest is not. One that is named must be there; of all, one that is deleted meanwhile or was
/// never counted does not matter.
fn look(wish: &Wish, store: &Store, session: &Session) -> anyhow::Result<Found> {
    let (mut known, mut missing) = (Vec::new(), Vec::new());
    let named = !wish.ids.is_empty();
    let ids = match named {
        true => wish.ids.clone(),
        false => store.ids()?,
    };
    for id in ids {
        match of(store, &id) {
            Ok(usage) => known.push(usage),
            Err(error) if named => {
                let error = error.context(format!("cannot tell the usage of {id}"));
                missing.push(log::one_line(&error));
            }
            Err(error) => session.ignore(&format!("the usage of {id} is not known"), error),
        }
    }
    Ok(Found { known, missing })
}

/// How a workspace stands and what it has used. What counted one that has ended has gone, and its bill says what it used.
pub(super) fn of(store: &Store, id: &ContainerId) -> anyhow::Result<(Status, Usage)> {
    let workspace = Workspace::find(store, id)?;
    let status = workspace.status()?;
    let usage = match crate::accounting::sample(&workspace) {
        Err(AccountingError::Uncounted { .. }) if status == Status::Stopped => {
            last_billed(store, workspace.record())?
        }
        sampled => sampled?,
    };
    Ok((status, usage))
}

fn last_billed(store: &Store, record: &Record) -> anyhow::Result<Usage> {
    let ledger = Ledger::open(store.places()).context("cannot open the ledger")?;
    let life = (record.id.to_string(), record.created.clone());
    let mut last = None;
    ledger
        .replay(|entry| {
            if entry.life() == life {
                last = Some(entry.usage);
            }
        })
        .context("cannot read the ledger")?;
    last.context("it has ended and was not billed")
}

fn text(wish: &Wish, found: &[(Status, Usage)]) -> anyhow::Result<String> {
    let all = || found.iter().map(|(_, usage)| usage);
    let watched = wish.every.is_some();
    Ok(match wish.format {
        Format::OpenMetrics => openmetrics::text(&all().cloned().collect::<Vec<_>>()),
        Format::Json if watched => {
            let lines = all().map(|usage| Ok(serde_json::to_string(usage)? + "\n"));
            lines.collect::<anyhow::Result<String>>()?
        }
        Format::Json => match (&wish.ids[..], found) {
            ([_], [(_, usage)]) => serde_json::to_string_pretty(usage)? + "\n",
            _ => serde_json::to_string_pretty(&all().collect::<Vec<_>>())? + "\n",
        },
        Format::Table => {
            let table = match found.is_empty() {
                true => "there are no workspaces\n".to_owned(),
                false => people(found),
            };
            match (watched, std::io::stdout().is_terminal()) {
                (true, true) => format!("\x1b[H\x1b[2J{table}"),
                (true, false) => table + "\n",
                (false, _) => table,
            }
        }
    })
}

fn people(found: &[(Status, Usage)]) -> String {
    let heading = [
        "ID", "STATUS", "CPU", "HOLD", "BEHALF", "MEMORY", "PEAK", "READ", "WRITTEN", "IN", "OUT",
        "TASKS", "LEASE",
    ];
    let rows = found.iter().map(|(status, usage)| {
        let memory = usage.memory.as_ref();
        vec![
            usage.id.to_string(),
            status.to_string(),
            figures::seconds(Some(usage.cpu.total_us)),
            figures::seconds(usage.cpu.hold_ms.map(|hold| hold * 1000)),
            figures::seconds(usage.cpu.on_behalf.us),
            figures::bytes(memory.map(|memory| memory.current_bytes)),
            figures::bytes(memory.and_then(|memory| memory.peak_bytes)),
            figures::bytes(usage.of_devices(|device| device.read_bytes)),
            figures::bytes(usage.of_devices(|device| device.written_bytes)),
            figures::bytes(usage.of_links(|link| link.in_bytes)),
            figures::bytes(usage.of_links(|link| link.out_bytes)),
            figures::count(usage.pids.as_ref().map(|pids| pids.current)),
            figures::span(usage.lease.as_ref().map(|lease| lease.remaining_s)),
        ]
    });
    let table = figures::table(&heading, &rows.collect::<Vec<_>>());
    match machines(found) {
        Some(parts) => format!("{table}\n{parts}"),
        None => table,
    }
}

/// What machines used, by who used it; none when there is no machine.
fn machines(found: &[(Status, Usage)]) -> Option<String> {
    let heading = [
        "MICROVM",
        "GUEST",
        "VCPUS",
        "VMM",
        "FILES",
        "VHOST",
        "PROXY",
        "EXITS",
        "HALTS",
        "POLLING",
        "GUEST-MEM",
        "OVERHEAD",
    ];
    let machines = found.iter().map(|(_, usage)| usage);
    let machines = machines.filter(|usage| usage.cpu.roles.vmm.is_some());
    let rows = machines.map(|usage| {
        let roles = &usage.cpu.roles;
        let role = |role: Option<&Role>| figures::seconds(role.map(|role| role.total_us));
        let (machine, memory) = (usage.machine.as_ref(), usage.memory.as_ref());
        vec![
            usage.id.to_string(),
            figures::seconds(roles.workload.guest_us),
            role(Some(&roles.workload)),
            role(roles.vmm.as_ref()),
            role(roles.fileserver.as_ref()),
            role(roles.vhost.as_ref()),
            role(roles.proxy.as_ref()),
            figures::count(machine.map(|machine| machine.exits)),
            figures::count(machine.map(|machine| machine.halts)),
            figures::seconds(machine.map(|machine| machine.halt_polling_us)),
            figures::bytes(memory.and_then(|memory| memory.guest_bytes)),
            figures::bytes(memory.and_then(|memory| memory.overhead_bytes)),
        ]
    });
    let rows: Vec<Vec<String>> = rows.collect();
    (!rows.is_empty()).then(|| figures::table(&heading, &rows))
}

/// Waits, and says whether somebody still reads: a pipe that was closed ends the wait at once.
fn still_read(every: Duration) -> bool {
    let timeout = Timespec {
        tv_sec: i64::try_from(every.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(every.subsec_nanos()),
    };
    let stdout = std::io::stdout();
    let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
    match rustix::event::poll(&mut watched, Some(&timeout)) {
        Ok(0) => true,
        Ok(_) | Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wished(watch: &str) -> anyhow::Result<Wish> {
        wish(&Args {
            watch: Some(watch.to_owned()),
            format: Format::Table,
            ids: Vec::new(),
        })
    }

    #[test]
    fn a_time_to_watch_has_a_unit_or_is_in_seconds() {
        for (word, milliseconds) in [("2", 2000), ("0.5", 500), ("250ms", 250)] {
            let wish = wished(word).unwrap();
            assert_eq!(wish.every, Some(Duration::from_millis(milliseconds)));
            assert!(wish.ids.is_empty());
        }
    }

    #[test]
    fn a_name_after_watch_is_a_name() {
        let wish = wished("web").unwrap();
        assert_eq!(wish.ids, ["web".parse().unwrap()]);
        assert!(wished("a/b").is_err());
    }
}
