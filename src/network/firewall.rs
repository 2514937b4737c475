//! What leaves and enters a network by way of the host: one table of nftables for each network, changed as a whole.
//!
//! The program `nft` reads scripts that the kernel carries out as a whole or not at all. It is run when a network is
//! made or removed, and for a workspace with published ports; never for any other.

use std::net::IpAddr;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use crate::defence::Defence;
use crate::network::error::NetworkError;
use crate::network::lease::Lease;
use crate::network::lease::Register;
use crate::network::link;
use crate::network::switch;
use crate::plan::network::Names;
use crate::plan::network::Publish;
use crate::plan::network::Transport;
use crate::sys::process::Exit;
use crate::sys::program;
use crate::sys::program::Program;

/// How long `nft` may take.
const LIMIT: Duration = Duration::from_secs(20);
/// What a router does not pass on (RFC 3927, section 2.7). At such an address clouds tell a machine its secrets, and a
/// workspace is not the machine.
const LINK_LOCAL: &str = "169.254.0.0/16";
/// All but questions for names: there are hosts whose resolver is at such an address.
const NO_NAMES: &str = "meta l4proto . th dport != { tcp . 53, udp . 53 }";
/// Where it is looked for besides `$PATH`.
const USUAL: &str = "/usr/sbin:/sbin:/usr/bin:/bin";

/// The program, where it is installed.
pub(super) fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let usual = std::env::split_paths(USUAL);
    // An empty path means that nothing is to be found.
    let usual = usual.filter(|_| !own.is_empty());
    let mut all = own
        .clone()
        .into_iter()
        .chain(usual)
        .map(|directory| directory.join("nft"));
    all.find(|path| path.is_file())
}

/// Makes the table of a network, in place of one that a dead command left, and lets the host pass on what it needs.
///
/// What is changed of the host for that is written down in the directory of the `leases`.
pub(super) fn make(names: &Names, register: &Register, leases: &Path) -> Result<(), NetworkError> {
    run("make the table of a network", &table(names, register))?;
    switch::forward(leases, &register.boot)
}

/// Removes the table of a network; one that is not there is removed already.
pub(super) fn remove(names: &Names) -> Result<(), NetworkError> {
    let table = &names.table;
    let script = format!("table inet {table} {{ }}\ndelete table inet {table}\n");
    run("remove the table of a network", &script)
}

/// Lets ports of the host lead to a workspace.
pub(super) fn publish(
    names: &Names,
    register: &Register,
    lease: &Lease,
) -> Result<(), NetworkError> {
    // So that what the host sends from 127.0.0.1 is answered; the table drops what claims to come to there.
    link::write_setting(
        &format!("net/ipv4/conf/{}/route_localnet", names.bridge),
        "1",
    )?;
    run("publish ports", &script(names, register, lease, false))
}

/// Lets the ports of the host lead nowhere again. Adding before removing makes it hold for what is not there, too.
pub(super) fn withdraw(
    names: &Names,
    register: &Register,
    lease: &Lease,
) -> Result<(), NetworkError> {
    run(
        "withdraw published ports",
        &script(names, register, lease, true),
    )
}

/// Adds the ports of a workspace to the maps of a table, and takes them out again where `removes`.
fn script(names: &Names, register: &Register, lease: &Lease, removes: bool) -> String {
    let lines = elements(register, lease).into_iter().map(|element| {
        let Element { map, key, value } = element;
        let at = format!("element inet {} {map} {{ {key}", names.table);
        let gone = match removes {
            true => format!("delete {at} }}\n"),
            false => String::new(),
        };
        format!("add {at} : {value} }}\n{gone}")
    });
    lines.collect()
}

/// One port in one map.
struct Element {
    map: &'static str,
    key: String,
    value: String,
}

fn elements(register: &Register, lease: &Lease) -> Vec<Element> {
    let mut elements = Vec::new();
    for port in &lease.publish {
        for address in &lease.addresses {
            elements.extend(element(port, *address, register));
        }
    }
    elements
}

/// A port on an address of one kind leads to the workspace's address of that kind.
fn element(port: &Publish, to: IpAddr, register: &Register) -> Option<Element> {
    let transport = match port.transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    };
    let service = format!("{transport} . {}", port.host_port);
    let on = port.address.filter(|address| !address.is_unspecified());
    let fits = port
        .address
        .is_none_or(|address| address.is_ipv4() == to.is_ipv4());
    let fits = fits && (to.is_ipv4() || register.subnet6.is_some());
    let map = match (to.is_ipv4(), on.is_some()) {
        (true, false) => "any4",
        (true, true) => "at4",
        (false, false) => "any6",
        (false, true) => "at6",
    };
    let key = on.map_or_else(
        || service.clone(),
        |address| format!("{address} . {service}"),
    );
    let value = format!("{to} . {}", port.port);
    fits.then_some(Element { map, key, value })
}

/// The whole table of a network, in words of `nft`.
fn table(names: &Names, register: &Register) -> String {
    let table = &names.table;
    let bridge = &names.bridge;
    let subnet = register.subnet;
    let out6 = register.subnet6.map_or_else(String::new, |subnet| {
        format!(
            "oifname != \"{bridge}\" ip6 saddr {subnet} ip6 daddr != {subnet} masquerade\n        \
             oifname \"{bridge}\" ip6 saddr {subnet} ct status dnat masquerade"
        )
    });
    let loopback = rule(
        Defence::HostLoopback,
        format!("iifname \"{bridge}\" ip daddr 127.0.0.0/8 drop"),
    );
    let between = between(bridge);
    format!(
        r#"table inet {table} {{ }}
delete table inet {table}
table inet {table} {{
    map any4 {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
    map any6 {{ type inet_proto . inet_service : ipv6_addr . inet_service; }}
    map at4 {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
    map at6 {{ type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }}
    chain guard {{
        type filter hook prerouting priority -300;
        {loopback}
    }}
    chain published {{
        dnat ip to ip daddr . meta l4proto . th dport map @at4
        dnat ip6 to ip6 daddr . meta l4proto . th dport map @at6
        fib daddr type local dnat ip to meta l4proto . th dport map @any4
        fib daddr type local dnat ip6 to meta l4proto . th dport map @any6
    }}
    chain outside {{
        type nat hook prerouting priority -100;
        jump published
    }}
    chain host {{
        type nat hook output priority -100;
        jump published
    }}
    chain leaving {{
        type nat hook postrouting priority 100;
        oifname "{bridge}" ip saddr 127.0.0.0/8 masquerade
        oifname "{bridge}" ip saddr {subnet} ct status dnat masquerade
        oifname != "{bridge}" ip saddr {subnet} ip daddr != {subnet} masquerade
        {out6}
    }}
    {between}
}}
"#
    )
}

/// What is passed on: to the network answers and what came by a published port, from it all but what is link-local.
fn between(bridge: &str) -> String {
    let link_local = rule(
        Defence::LinkLocal,
        format!("iifname \"{bridge}\" ip daddr {LINK_LOCAL} {NO_NAMES} drop"),
    );
    let closed = rule(Defence::NetworksClosed, "drop".to_owned());
    format!(
        r#"chain between {{
        type filter hook forward priority 0;
        ct state established,related accept
        {link_local}
        oifname != "{bridge}" accept
        iifname "{bridge}" accept
        ct status dnat accept
        {closed}
    }}"#
    )
}

/// A rule that keeps something out.
fn rule(defence: Defence, rule: String) -> String {
    if defence.is_out() {
        String::new()
    } else {
        rule
    }
}

fn run(what: &'static str, script: &str) -> Result<(), NetworkError> {
    let failed = |said: String| NetworkError::Nft { what, said };
    let path = program().ok_or_else(|| failed("it is not installed".to_owned()))?;
    let program = Program {
        path: &path,
        arguments: &["nft", "-f", "-"].map(str::to_owned),
        environment: &["LC_ALL=C".to_owned()],
        directory: None,
        input: script.as_bytes(),
        limit: Some(LIMIT),
    };
    let outcome = program::run(&program).map_err(|error| failed(error.to_string()))?;
    match outcome.exit {
        Some(Exit::Status(0)) => Ok(()),
        Some(_) => Err(failed(outcome.output.replace('\n', " "))),
        None => Err(failed(format!("it took longer than {} s", LIMIT.as_secs()))),
    }
}
