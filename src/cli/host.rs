//! `host`: what this machine can do.

use std::process::ExitCode;

use anyhow::Context;
use anyhow::bail;
use serde::Serialize;

use crate::cli::session::Session;
use crate::cli::table;
use crate::host::Host;
use crate::host::survey;
use crate::host::survey::Finding;

/// Print what this machine can do, and how to get what is missing
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// table or json
    #[arg(long, short = 'f', value_name = "FORMAT", default_value = "table")]
    format: String,
}

/// The document that `--format json` prints.
#[derive(Debug, Serialize)]
struct Document<'a> {
    host: &'a Host,
    findings: &'a [Finding],
}

/// Runs `host`.
pub(super) fn run(args: &Args, _session: &Session) -> anyhow::Result<ExitCode> {
    let host = Host::look().context("cannot look at this machine")?;
    let findings = survey::survey(&host);
    let text = match args.format.as_str() {
        "table" => as_table(&findings),
        "json" => {
            let document = Document {
                host: &host,
                findings: &findings,
            };
            serde_json::to_string_pretty(&document)? + "\n"
        }
        other => bail!("invalid format option: {other}"),
    };
    table::print(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn as_table(findings: &[Finding]) -> String {
    let heading = ["AREA", "WHAT", "USABLE", "FOUND", "TO GET IT"].map(str::to_owned);
    let rows = findings.iter().map(|finding| {
        let usable = if finding.usable { "yes" } else { "no" };
        [
            finding.area.to_owned(),
            finding.name.clone(),
            usable.to_owned(),
            finding.found.clone(),
            finding.remedy.clone().unwrap_or_default(),
        ]
    });
    let rows: Vec<[String; 5]> = std::iter::once(heading).chain(rows).collect();
    table::aligned(&rows)
}
