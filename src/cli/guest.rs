//! `guest`: the kernels that machines boot on this host, with the first files that they find.

use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use anyhow::bail;
use serde::Serialize;

use crate::cli::session::Session;
use crate::cli::table;
use crate::guest::About;
use crate::guest::Guest;
use crate::guest::GuestError;
use crate::guest::Guests;
use crate::guest::New;

/// What the agent is called beside this program.
const AGENT: &str = "bulkhead-agent";

/// Show what machines boot on this host, add to it, or remove from it
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the guests
    Ls {
        /// table or json
        #[arg(long, short = 'f', value_name = "FORMAT", default_value = "table")]
        format: String,
    },
    /// Show all that is known about a guest
    Inspect {
        /// Which; without it, the one that is booted unless another is named
        name: Option<String>,
    },
    /// Add a guest, or replace it
    Add(Adding),
    /// Remove a guest; machines that run keep what they have
    Rm {
        /// Which
        name: String,
    },
}

#[derive(Debug, clap::Args)]
struct Adding {
    /// Its kernel: an ELF file or a bzImage
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,
    /// The modules of that kernel: its lib/modules/VERSION
    #[arg(long, value_name = "DIR")]
    modules: Option<PathBuf>,
    /// The agent [default: the bulkhead-agent beside this program]
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// What the guest is called; slim is booted before stock, and both before others
    #[arg(long, value_name = "NAME", default_value = "stock")]
    name: String,
    /// The configuration that the kernel was built with; without it, devices are found by ACPI
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// A guest as it is shown.
#[derive(Debug, Serialize)]
struct Shown {
    name: String,
    usual: bool,
    vmlinux: PathBuf,
    initramfs: PathBuf,
    kernel_bytes: u64,
    initramfs_bytes: u64,
    #[serde(flatten)]
    about: About,
}

/// Runs `guest`.
pub(super) fn run(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    let store = session.store()?;
    match &args.action {
        Action::Ls { format } => list(&store.places().guests(), format)?,
        Action::Inspect { name } => {
            let guests = store.places().guests();
            let found = match name {
                Some(name) => guests.find(name),
                None => guests.usual(),
            };
            let shown = shown(found.context("cannot inspect it")?, &guests)?;
            table::print((serde_json::to_string_pretty(&shown)? + "\n").as_bytes())?;
        }
        Action::Add(adding) => {
            let added = add(&Guests::new(&store.places().data), adding);
            added.with_context(|| format!("cannot add guest {}", adding.name))?;
        }
        Action::Rm { name } => {
            let removed = Guests::new(&store.places().data).remove(name);
            removed.with_context(|| format!("cannot remove guest {name}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn add(guests: &Guests, adding: &Adding) -> Result<Guest, GuestError> {
    let agent = match &adding.agent {
        Some(given) => given.clone(),
        None => beside().ok_or(GuestError::NoAgent)?,
    };
    guests.add(&New {
        name: &adding.name,
        kernel: &adding.kernel,
        modules: adding.modules.as_deref(),
        agent: &agent,
        config: adding.config.as_deref(),
    })
}

/// The agent beside this program.
fn beside() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    Some(own.parent()?.join(AGENT)).filter(|path| path.is_file())
}

fn list(guests: &Guests, format: &str) -> anyhow::Result<()> {
    let all = guests.list().context("cannot list the guests")?;
    let all = all.into_iter().map(|guest| shown(guest, guests));
    let all = all.collect::<anyhow::Result<Vec<Shown>>>()?;
    let text = match format {
        "json" => serde_json::to_string(&all)? + "\n",
        "table" => table::aligned(&rows(&all)),
        other => bail!("--format: {other:?} is not table or json"),
    };
    table::print(text.as_bytes())
}

fn shown(guest: Guest, guests: &Guests) -> anyhow::Result<Shown> {
    let length = |path: &Path| {
        let found = std::fs::metadata(path).map(|found| found.len());
        found.with_context(|| format!("cannot look at {}", path.display()))
    };
    Ok(Shown {
        usual: guests.usual().is_ok_and(|usual| usual.name == guest.name),
        kernel_bytes: length(&guest.kernel())?,
        initramfs_bytes: length(&guest.initramfs())?,
        vmlinux: guest.kernel(),
        initramfs: guest.initramfs(),
        name: guest.name,
        about: guest.about,
    })
}

fn rows(all: &[Shown]) -> Vec<[String; 5]> {
    let heading = ["NAME", "USUAL", "DEVICES", "BYTES", "KERNEL"].map(str::to_owned);
    let rows = all.iter().map(|guest| {
        let words = |yes: bool, one: &str, other: &str| match yes {
            true => one.to_owned(),
            false => other.to_owned(),
        };
        [
            guest.name.clone(),
            words(guest.usual, "yes", "-"),
            words(guest.about.acpi, "acpi", "cmdline"),
            (guest.kernel_bytes + guest.initramfs_bytes).to_string(),
            guest.about.kernel.clone(),
        ]
    });
    std::iter::once(heading).chain(rows).collect()
}
