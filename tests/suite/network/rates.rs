//! What a limit and a reserve are worth, by the bytes that arrive.

use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use bulkhead::network;
use bulkhead::network::Places;
use bulkhead::plan::network::Bridged;
use bulkhead::plan::network::Capacity;
use bulkhead::plan::network::NetworkPlan;
use bulkhead::plan::network::Rate;

use super::Bare;
use super::bridged;
use super::left;
use crate::need;
use crate::support::home::Home;
use crate::support::home::eventually;

/// The part of a full Ethernet frame that is TCP's payload.
const PAYLOAD: f64 = 1448.0 / 1514.0;

/// A place on a network, without a workspace around it.
struct Member {
    bare: Bare,
    plan: NetworkPlan,
    address: IpAddr,
}

fn rate(reserve_bps: Option<u64>, limit_bps: Option<u64>) -> Rate {
    Rate {
        reserve_bps,
        limit_bps,
    }
}

fn places(home: &Home) -> Places {
    Places {
        root: home.root(),
        leases: home.root().join("@networks"),
    }
}

fn member(home: &Home, inward: Rate, outward: Rate, capacity: Option<Capacity>) -> Member {
    let bridged = Bridged {
        bridge: "net".to_owned(),
        inward,
        outward,
        ..Bridged::default()
    };
    let id = home.id();
    let mut plan = NetworkPlan::of(&bridged, &id, &id, &home.root());
    plan.capacity = capacity;
    let bare = Bare::new();
    let attached = network::attach(&plan, &places(home), bare.pid()).unwrap();
    Member {
        bare,
        plan,
        address: attached.addresses[0],
    }
}

impl Member {
    /// A program in its network.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.bare.pid().to_string(), "-n", program]);
        command
    }
}

/// A program that is ended with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A server of iperf3 on the host that takes one client after the other.
fn server(port: u16) -> Running {
    let mut command = Command::new("iperf3");
    command.args(["-s", "-p", &port.to_string()]);
    command.stdout(Stdio::null()).process_group(0);
    let server = Running(command.spawn().unwrap());
    let wanted = format!(":{port:04X} ");
    eventually("iperf3 listens", || {
        let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
        let mut texts = tables
            .iter()
            .map(|table| std::fs::read_to_string(table).unwrap());
        texts.any(|text| text.contains(&wanted))
    });
    server
}

/// Bits per second that a client in a network receives (`-R`) or sends, after a second of warming up.
fn measured(member: &Member, server: IpAddr, port: u16, more: &[&str]) -> f64 {
    let mut command = member.command("iperf3");
    command.args(["-c", &server.to_string(), "-p", &port.to_string()]);
    command.args(["-J", "-t", "4", "-O", "1"]).args(more);
    let output = command.output().unwrap();
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let rate = &said["end"]["sum_received"]["bits_per_second"];
    assert!(rate.is_f64(), "{said}");
    rate.as_f64().unwrap()
}

/// The host's address on a member's bridge.
fn bridge(member: &Member) -> IpAddr {
    let four: std::net::Ipv4Addr = member.address.to_string().parse().unwrap();
    IpAddr::V4((u32::from(four) & !0x3ff | 1).into())
}

#[test]
fn limits_hold_within_five_percent_in_both_directions() {
    need!(root, iperf3);
    let home = Home::new();
    let member = member(
        &home,
        rate(None, Some(40_000_000)),
        rate(None, Some(20_000_000)),
        None,
    );
    let port = super::port();
    let _server = server(port);
    for (limit, more) in [(40_000_000.0, &["-R"][..]), (20_000_000.0, &[][..])] {
        let found = measured(&member, bridge(&member), port, more) / PAYLOAD;
        let off = (found / limit - 1.0).abs();
        assert!(off < 0.05, "{found} bit/s of {limit}");
    }
    network::detach(&member.plan.id, &places(&home)).unwrap();
    assert_eq!(
        left(&home, &["net"], &[&member.plan.id]),
        Vec::<String>::new()
    );
}

#[test]
fn a_reserve_holds_while_others_flood() {
    need!(root, iperf3);
    let home = Home::new();
    let capacity = Some(Capacity {
        in_bps: 100_000_000,
        out_bps: 100_000_000,
    });
    let victim = member(
        &home,
        Rate::default(),
        rate(Some(60_000_000), None),
        capacity,
    );
    let floods: Vec<Member> = (0..3)
        .map(|_| member(&home, Rate::default(), Rate::default(), capacity))
        .collect();
    let ports = [super::port(), super::port()];
    let _server = server(ports[0]);
    let host = bridge(&victim).to_string();
    let flooding: Vec<Running> = floods
        .iter()
        .map(|flood| {
            let mut command = flood.command("sh");
            let script = format!("exec busybox nc -u {host} {} </dev/zero", ports[1]);
            command
                .args(["-c", &script])
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            Running(command.spawn().unwrap())
        })
        .collect();
    let found = measured(&victim, bridge(&victim), ports[0], &[]) / PAYLOAD;
    drop(flooding);
    assert!(found > 57_000_000.0, "{found} bit/s of 60 Mbit/s reserved");
    let all = floods.iter().chain([&victim]);
    for member in all {
        network::detach(&member.plan.id, &places(&home)).unwrap();
    }
    assert_eq!(
        left(&home, &["net"], &[&victim.plan.id]),
        Vec::<String>::new()
    );
}

#[test]
fn a_reserve_of_an_unknown_whole_is_refused_with_the_way_out() {
    need!(root, cgroup2);
    let home = Home::new();
    let wanted = bridged("true", "net", &[("network.in.reserve", "10mbit")]);
    let refused = home.run(&wanted).failed();
    assert!(refused.contains("network.in.reserve"), "{refused}");
    assert!(refused.contains("host.toml"), "{refused}");
}
