//! `ledger`: what workspaces have used, also those that are gone, summed up.

use std::process::ExitCode;
use std::time::Duration;
use std::time::SystemTime;

use anyhow::Context;
use clap::ValueEnum;

use crate::accounting::Ledger;
use crate::accounting::ledger::sums::Group;
use crate::accounting::ledger::sums::Question;
use crate::accounting::ledger::sums::Sum;
use crate::accounting::ledger::sums::Sums;
use crate::cli::figures;
use crate::cli::session::Session;
use crate::cli::table;
use crate::spec::quantity;
use crate::workspace::report::Report;

/// Sum up what workspaces have used, also those that are gone
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// From then on: a day, a time (RFC 3339), or how long ago, such as 24h
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<SystemTime>,
    /// Until then, that moment not included; as --since
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<SystemTime>,
    /// id, day (UTC), isolation, or annotation:KEY
    #[arg(long, value_name = "WHAT", default_value = "id", value_parser = group)]
    group_by: Group,
    /// How it is written
    #[arg(long, short = 'f', value_name = "FORMAT", default_value = "table")]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Json,
    Csv,
}

/// Runs `ledger`.
pub(super) fn run(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    let ledger = Ledger::open(&session.state_root()?).context("cannot open the ledger")?;
    let mut sums = Sums::new(Question {
        since: args.since,
        until: args.until,
        group: args.group_by.clone(),
    });
    let warnings = ledger
        .replay(|entry| sums.add(&entry))
        .context("cannot read the ledger")?;
    for warning in ledger.warnings().iter().chain(&warnings) {
        session.log.warning(warning);
    }
    let groups = sums.groups();
    let text = match args.format {
        Format::Table if groups.is_empty() => "nothing is in the ledger\n".to_owned(),
        Format::Table => people(&groups),
        Format::Json => serde_json::to_string_pretty(&groups)? + "\n",
        Format::Csv => csv(&groups)?,
    };
    table::print(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// A day, a time, or how long ago.
fn moment(text: &str) -> Result<SystemTime, String> {
    let ago = |span: Duration| SystemTime::now().checked_sub(span);
    let whole = format!("{text}T00:00:00Z");
    humantime::parse_rfc3339_weak(text)
        .or_else(|_| humantime::parse_rfc3339(&whole))
        .ok()
        .or_else(|| quantity::span(text).and_then(ago))
        .ok_or_else(|| {
            format!(
                "it is neither a day such as 2026-01-31, nor a time such as 2026-01-31T12:00:00Z, nor {}",
                quantity::SPAN
            )
        })
}

fn group(text: &str) -> Result<Group, String> {
    match (text, text.strip_prefix("annotation:")) {
        ("id", _) => Ok(Group::Id),
        ("day", _) => Ok(Group::Day),
        ("isolation", _) => Ok(Group::Isolation),
        (_, Some(key)) if !key.is_empty() => Ok(Group::Annotation(key.to_owned())),
        _ => Err("it is none of id, day, isolation and annotation:KEY".to_owned()),
    }
}

fn people(groups: &[Sum]) -> String {
    let heading = [
        "GROUP", "LIVES", "ENDED", "PRESENT", "CPU", "HOLD", "BEHALF", "PEAK", "READ", "WRITTEN",
        "IN", "OUT",
    ];
    let rows = groups.iter().map(|sum| {
        let name = match sum.group.is_empty() {
            true => "-".to_owned(),
            false => sum.group.clone(),
        };
        let of = |name: &str| sum.figure(name);
        vec![
            name,
            sum.lives.to_string(),
            sum.ended.to_string(),
            figures::span(of("present_s")),
            figures::seconds(of("cpu_total_us")),
            figures::seconds(of("cpu_hold_ms").map(|hold| hold * 1000)),
            figures::seconds(of("cpu_on_behalf_us")),
            figures::bytes(sum.memory_peak_bytes),
            figures::bytes(of("io_read_bytes")),
            figures::bytes(of("io_written_bytes")),
            figures::bytes(of("network_in_bytes")),
            figures::bytes(of("network_out_bytes")),
        ]
    });
    figures::table(&heading, &rows.collect::<Vec<_>>())
}

/// What is not known is an empty field.
fn csv(groups: &[Sum]) -> anyhow::Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let names = Sum::default();
    let names = names.columns().into_iter().map(|(name, _)| name);
    writer.write_record(std::iter::once("group").chain(names))?;
    for sum in groups {
        let values = sum.columns().into_iter();
        let values = values.map(|(_, value)| value.map(|value| value.to_string()));
        let values = values.map(Option::unwrap_or_default);
        writer.write_record(std::iter::once(sum.group.clone()).chain(values))?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_day_a_moment_or_a_span_ago() {
        let day = moment("2026-01-31").unwrap();
        assert_eq!(moment("2026-01-31T00:00:00Z").unwrap(), day);
        assert!(moment("24h").unwrap() < SystemTime::now());
        let refused = moment("yesterday").unwrap_err();
        assert!(refused.contains("neither a day"), "{refused}");
    }

    #[test]
    fn groups_have_names() {
        assert_eq!(group("day"), Ok(Group::Day));
        assert_eq!(group("annotation:a"), Ok(Group::Annotation("a".to_owned())));
        assert!(group("annotation:").is_err() && group("week").is_err());
    }
}
