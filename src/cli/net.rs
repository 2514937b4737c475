//! `net`: the networks of the state root, who is on them, and their removal.

use std::net::IpAddr;
use std::process::ExitCode;

use anyhow::Context;
use anyhow::bail;
use serde::Serialize;

use crate::cli::session::Session;
use crate::cli::table;
use crate::network;
use crate::network::Places;
use crate::network::Register;
use crate::plan::network::Link;
use crate::plan::network::Names;
use crate::plan::network::Rate;

/// Show networks, or remove one
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the networks
    Ls {
        /// table or json
        #[arg(long, short = 'f', value_name = "FORMAT", default_value = "table")]
        format: String,
    },
    /// Show a network and who is on it
    Inspect {
        /// table or json
        #[arg(long, short = 'f', value_name = "FORMAT", default_value = "json")]
        format: String,
        /// Which network
        name: String,
    },
    /// Remove a network that nobody uses
    Rm {
        /// Take off who uses it
        #[arg(long)]
        force: bool,
        /// Which network
        name: String,
    },
}

/// A network, as it is shown.
#[derive(Debug, Serialize)]
struct Shown {
    name: String,
    bridge: String,
    subnets: Vec<String>,
    table: Option<String>,
    workspaces: Vec<Member>,
}

/// A workspace on it.
#[derive(Debug, Serialize)]
struct Member {
    id: String,
    hostname: String,
    interface: String,
    addresses: Vec<IpAddr>,
    publish: Vec<String>,
    /// Bits in a second that it may receive.
    #[serde(rename = "in")]
    inward: Rate,
    /// Bits in a second that it may send.
    #[serde(rename = "out")]
    outward: Rate,
}

/// Runs `net`.
pub(super) fn run(args: &Args, session: &Session) -> anyhow::Result<ExitCode> {
    let store = session.store()?;
    let places = Places {
        root: store.root().to_owned(),
        leases: store.places().shared("networks"),
    };
    match &args.action {
        Action::Ls { format } => {
            let networks = network::list(&places).context("cannot list the networks")?;
            let shown: Vec<Shown> = networks
                .into_iter()
                .map(|register| shown(register, &places))
                .collect();
            match format.as_str() {
                "json" => table::print((serde_json::to_string(&shown)? + "\n").as_bytes())?,
                "table" => table::print(table::aligned(&summary(&shown)).as_bytes())?,
                other => bail!("invalid format option: {other}"),
            }
        }
        Action::Inspect { format, name } => {
            let register = network::inspect(name, &places).context("cannot inspect it")?;
            let shown = shown(register, &places);
            match format.as_str() {
                "json" => table::print((serde_json::to_string(&shown)? + "\n").as_bytes())?,
                "table" => table::print(table::aligned(&members(&shown)).as_bytes())?,
                other => bail!("invalid format option: {other}"),
            }
        }
        Action::Rm { force, name } => {
            network::remove(name, &places, *force)
                .with_context(|| format!("cannot remove {name}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn shown(register: Register, places: &Places) -> Shown {
    let names = Names::of(&places.root, &register.network);
    let four = register.subnet.to_string();
    let six = register.subnet6.map(|subnet| subnet.to_string());
    let workspaces = register.leases.into_iter().map(|(id, lease)| Member {
        interface: Link::of(&places.root, &id).name,
        hostname: lease.hostname,
        addresses: lease.addresses,
        publish: lease.publish.iter().map(ToString::to_string).collect(),
        inward: lease.inward,
        outward: lease.outward,
        id,
    });
    Shown {
        bridge: names.bridge,
        subnets: std::iter::once(four).chain(six).collect(),
        table: register.firewall.then_some(names.table),
        workspaces: workspaces.collect(),
        name: register.network,
    }
}

fn summary(networks: &[Shown]) -> Vec<[String; 4]> {
    let heading = ["NAME", "WORKSPACES", "BRIDGE", "SUBNETS"].map(str::to_owned);
    let rows = networks.iter().map(|network| {
        [
            network.name.clone(),
            network.workspaces.len().to_string(),
            network.bridge.clone(),
            network.subnets.join(" "),
        ]
    });
    std::iter::once(heading).chain(rows).collect()
}

fn members(network: &Shown) -> Vec<[String; 4]> {
    let heading = ["WORKSPACE", "INTERFACE", "PUBLISHED", "ADDRESSES"].map(str::to_owned);
    let rows = network.workspaces.iter().map(|member| {
        let addresses: Vec<String> = member.addresses.iter().map(ToString::to_string).collect();
        [
            member.id.clone(),
            member.interface.clone(),
            member.publish.join(" "),
            addresses.join(" "),
        ]
    });
    std::iter::once(heading).chain(rows).collect()
}
