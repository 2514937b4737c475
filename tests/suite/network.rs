//! Workspaces on bridges: who reaches whom, who has which address, what a rate is worth, and that nothing is left.

mod collecting;
mod faults;
mod guarding;
mod leases;
pub(crate) mod rates;
mod reach;

use std::io::Read;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bulkhead::network;
use bulkhead::network::Attached;
use bulkhead::network::NetworkError;
use bulkhead::network::Places;
use bulkhead::plan::network::Link;
use bulkhead::plan::network::Names;
use bulkhead::plan::network::NetworkPlan;
use bulkhead::sys::namespace;
use serde_json::Value;

use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::home::Said;

/// Answers everybody who connects to port 5000 with its own name.
const SERVER: &str = "while true; do hostname | nc -l -p 5000; done";

/// How long an answer may take before it is asked for again, or held to be missing.
const ANSWER: Duration = Duration::from_secs(5);

/// A port of the host that no other test publishes.
pub(crate) fn port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(21_000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A bundle on a network, with more annotations of ours.
fn bridged(script: &str, network: &str, more: &[(&str, &str)]) -> Bundle {
    Bundle::shell(script).with(|config| {
        config["annotations"]["dev.bulkhead.network"] = network.into();
        for (key, value) in more {
            config["annotations"][format!("dev.bulkhead.{key}")] = (*value).into();
        }
        for set in ["bounding", "effective", "permitted"] {
            let set = config["process"]["capabilities"][set]
                .as_array_mut()
                .unwrap();
            set.push("CAP_NET_RAW".into());
        }
    })
}

/// Connects the network namespace of a process, as a workspace's maker does.
fn attach(plan: &NetworkPlan, places: &Places, pid: i32) -> Result<Attached, NetworkError> {
    let network = namespace::network_of(pid).unwrap();
    network::connect(plan, places, network.as_fd())
}

/// A workspace that runs; its bundle goes with this value, the workspace with its home.
struct Runs {
    id: String,
    _bundle: Bundle,
}

impl std::ops::Deref for Runs {
    type Target = str;

    fn deref(&self) -> &str {
        &self.id
    }
}

impl std::fmt::Display for Runs {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.id)
    }
}

/// Starts a workspace whose name inside is its id.
#[track_caller]
fn start(home: &Home, script: &str, network: &str, more: &[(&str, &str)]) -> Runs {
    let id = home.id();
    let bundle = bridged(script, network, more).with(|config| {
        config["hostname"] = id.as_str().into();
    });
    home.start(&bundle, &id);
    Runs {
        id,
        _bundle: bundle,
    }
}

/// Runs a script in a workspace.
fn inside(home: &Home, id: &str, script: &str) -> Said {
    home.bulkhead(["exec", id, "sh", "-c", script])
}

/// What `net inspect` says.
#[track_caller]
fn network(home: &Home, name: &str) -> Value {
    serde_json::from_str(&home.bulkhead(["net", "inspect", name]).ok()).unwrap()
}

/// The addresses of a workspace, IPv4 first.
#[track_caller]
pub(crate) fn addresses(home: &Home, name: &str, id: &str) -> Vec<IpAddr> {
    let network = network(home, name);
    let mut all = network["workspaces"].as_array().unwrap().iter();
    let own = all.find(|one| one["id"] == id).unwrap();
    let addresses = own["addresses"].as_array().unwrap().iter();
    addresses
        .map(|address| address.as_str().unwrap().parse().unwrap())
        .collect()
}

/// What is said at an address, to a program of the host; nothing when nobody answers.
pub(crate) fn heard(address: IpAddr, port: u16) -> Option<String> {
    let at = SocketAddr::new(address, port);
    let mut stream = TcpStream::connect_timeout(&at, ANSWER).ok()?;
    stream.set_read_timeout(Some(ANSWER)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text.trim().to_owned())
}

/// The words with which a workspace asks somebody, again and again until there is an answer.
fn asking(address: IpAddr, port: u16) -> String {
    format!(
        "for try in 1 2 3 4 5 6 7 8 9; do answer=$(nc -w 2 {address} {port} </dev/null); \
         test -n \"$answer\" && break; sleep 0.2; done; echo \"$answer\""
    )
}

/// What the host says about interfaces, and tables where there is `nft`.
fn host() -> String {
    let said = |words: &[&str]| {
        let output = Command::new(words[0]).args(&words[1..]).output();
        output.map_or_else(
            |_| String::new(),
            |output| String::from_utf8(output.stdout).unwrap(),
        )
    };
    said(&["ip", "-o", "link"]) + &said(&["nft", "list", "tables"])
}

/// Everything of a network and of workspaces on it that is still there.
pub(crate) fn left(home: &Home, networks: &[&str], ids: &[&str]) -> Vec<String> {
    let root = home.root();
    let mut names = Vec::new();
    for network in networks {
        let of = Names::of(&root, network);
        names.extend([of.bridge, of.table, of.towards, of.from]);
    }
    names.extend(ids.iter().map(|id| Link::of(&root, id).name));
    let host = host();
    names.retain(|name| host.contains(name.as_str()));
    if root.join("@networks").exists() {
        names.push("the directory of leases".to_owned());
    }
    names
}

/// A network namespace without a workspace: a process that sleeps in it, and ends with this value.
struct Bare {
    child: std::process::Child,
}

impl Bare {
    fn new() -> Self {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "echo; exec sleep 1000"]);
        let mut child = command
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut byte = [0];
        // It speaks when it is there.
        child.stdout.take().unwrap().read_exact(&mut byte).unwrap();
        Self { child }
    }

    fn pid(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The address of a network's bridge, by that of one of its workspaces.
pub(crate) fn gateway_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(four) => IpAddr::V4((u32::from(four) & !0x3ff | 1).into()),
        IpAddr::V6(six) => IpAddr::V6((u128::from(six) >> 64 << 64 | 1).into()),
    }
}
