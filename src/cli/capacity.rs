//! `capacity`: what this host can promise, and to whom it has promised how much.

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::Context;
use anyhow::bail;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::cli::session::Session;
use crate::cli::table;
use crate::host::cgroup::Cgroups;
use crate::plan::admission;
use crate::plan::admission::Resource;
use crate::workspace::admission::Survey;
use crate::workspace::admission::survey;

/// Print what can be promised to workspaces, what is, and to whom
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// table or json
    #[arg(long, short = 'f', value_name = "FORMAT", default_value = "table")]
    format: String,
}

/// Runs `capacity`.
pub(super) fn run(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    let survey = survey(&session.store()?).context("cannot find what can be promised")?;
    let text = match args.format.as_str() {
        "table" => table::aligned(&rows(&survey)) + &remarks(&Cgroups::look()?),
        "json" => serde_json::to_string_pretty(&document(&survey))? + "\n",
        other => bail!("invalid format option: {other}"),
    };
    table::print(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Why nothing of a resource can be promised here though it is free.
fn remarks(cgroups: &Cgroups) -> String {
    let missing = ["cpu", "memory"].into_iter();
    let missing = missing.filter(|controller| !cgroups.controllers.contains(*controller));
    missing
        .map(|controller| match cgroups.legacy.get(controller) {
            Some(place) => format!(
                "{controller}: cannot be promised, its controller is bound to cgroup v1 at {}; see host\n",
                place.display()
            ),
            None => format!("{controller}: cannot be promised, there is no controller for it; see host\n"),
        })
        .collect()
}

/// What there is of, and what anybody holds of.
fn resources(survey: &Survey) -> BTreeSet<&Resource> {
    let held = survey.holders.iter().flat_map(|one| one.amounts.keys());
    survey.capacity.total.keys().chain(held).collect()
}

/// What somebody has of a resource.
struct Held<'a> {
    id: &'a str,
    amount: u64,
    /// Of that, what is for a machine and not for the program in it.
    machine: u64,
}

/// What each holder has of a resource, the greatest first.
fn holders<'a>(survey: &'a Survey, resource: &Resource) -> Vec<Held<'a>> {
    let held = survey.holders.iter().filter_map(|one| {
        Some(Held {
            id: &one.id,
            amount: *one.amounts.get(resource)?,
            machine: if *resource == Resource::Memory {
                one.machine_bytes
            } else {
                0
            },
        })
    });
    let mut held: Vec<Held<'_>> = held.collect();
    held.sort_by(|one, other| other.amount.cmp(&one.amount).then(one.id.cmp(other.id)));
    held
}

impl Held<'_> {
    fn words(&self, resource: &Resource) -> String {
        let all = format!("{} {}", self.id, resource.amount(self.amount));
        match self.machine {
            0 => all,
            machine => format!("{all} ({} for its machine)", resource.amount(machine)),
        }
    }
}

fn rows(survey: &Survey) -> Vec<[String; 6]> {
    let heading = ["RESOURCE", "CAPACITY", "HOST", "GRANTED", "FREE", "HELD BY"];
    let capacity = &survey.capacity;
    let rows = resources(survey).into_iter().map(|resource| {
        let words = |amount: Option<u64>| {
            amount.map_or("unknown".to_owned(), |amount| resource.amount(amount))
        };
        let held = holders(survey, resource).into_iter();
        let held: Vec<String> = held.map(|one| one.words(resource)).collect();
        [
            resource.to_string(),
            words(capacity.all(resource)),
            resource.amount(capacity.host.get(resource).copied().unwrap_or_default()),
            resource.amount(admission::granted(resource, &survey.holders)),
            words(capacity.free(resource, &survey.holders)),
            held.join(", "),
        ]
    });
    std::iter::once(heading.map(str::to_owned))
        .chain(rows)
        .collect()
}

/// The unit of a resource's amounts, as the end of a name.
fn unit(resource: &Resource) -> &'static str {
    match resource {
        Resource::Cpu => "millicpus",
        Resource::Memory => "bytes",
        Resource::Read(_) | Resource::Write(_) => "bytes_per_second",
        Resource::Inward(_) | Resource::Outward(_) => "bps",
    }
}

fn document(survey: &Survey) -> Value {
    let capacity = &survey.capacity;
    let entries = resources(survey).into_iter().map(|resource| {
        let unit = unit(resource);
        let mut entry = Map::new();
        let (kind, subject) = match resource {
            Resource::Cpu => ("cpu", None),
            Resource::Memory => ("memory", None),
            Resource::Read(disk) => ("disk_read", Some(("disk", disk))),
            Resource::Write(disk) => ("disk_write", Some(("disk", disk))),
            Resource::Inward(name) => ("network_in", Some(("network", name))),
            Resource::Outward(name) => ("network_out", Some(("network", name))),
        };
        entry.insert("resource".to_owned(), json!(kind));
        if let Some((key, name)) = subject {
            entry.insert(key.to_owned(), json!(name));
        }
        let host = capacity.host.get(resource).copied().unwrap_or_default();
        let amounts = [
            ("capacity", capacity.all(resource)),
            ("host", Some(host)),
            (
                "granted",
                Some(admission::granted(resource, &survey.holders)),
            ),
            ("free", capacity.free(resource, &survey.holders)),
        ];
        for (name, amount) in amounts {
            entry.insert(format!("{name}_{unit}"), json!(amount));
        }
        let held = holders(survey, resource).into_iter().map(|one| {
            let mut entry = Map::from_iter([
                ("id".to_owned(), json!(one.id)),
                (format!("held_{unit}"), json!(one.amount)),
            ]);
            if one.machine > 0 {
                entry.insert(format!("machine_{unit}"), json!(one.machine));
            }
            entry
        });
        entry.insert("holders".to_owned(), held.collect());
        Value::Object(entry)
    });
    json!({ "host_file": capacity.file, "resources": entries.collect::<Vec<Value>>() })
}
