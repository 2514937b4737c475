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
use bulkhead::sys::vanish::Remains;

use super::Bare;
use super::attach;
use super::bridged;
use super::left;
use crate::need;
use crate::support::home::Home;
use crate::support::home::eventually;
use crate::up::Document;

/// The part of a full Ethernet frame that is TCP's payload.
pub(crate) const PAYLOAD: f64 = 1448.0 / 1514.0;

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
    let attached = attach(&plan, &places(home), bare.pid()).unwrap();
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

/// Sends as much as goes, until it is to stop.
fn pour(socket: &std::net::UdpSocket, target: (IpAddr, u16), stop: &std::sync::atomic::AtomicBool) {
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        drop(socket.send_to(&[0; 1400], target));
    }
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
    network::detach(&member.plan.id, &places(&home), &mut Remains::default()).unwrap();
    assert_eq!(
        left(&home, &["net"], &[&member.plan.id]),
        Vec::<String>::new()
    );
}

#[test]
fn rates_are_changed_while_the_workspace_is_connected() {
    need!(root, iperf3);
    let home = Home::new();
    let member = member(&home, Rate::default(), rate(None, Some(40_000_000)), None);
    let port = super::port();
    let _server = server(port);
    for limit in [20_000_000_u32, 60_000_000] {
        let mut plan = member.plan.clone();
        plan.outward = rate(None, Some(limit.into()));
        network::regrant(&plan, &places(&home)).unwrap();
        let found = measured(&member, bridge(&member), port, &[]) / PAYLOAD;
        let off = (found / f64::from(limit) - 1.0).abs();
        assert!(off < 0.05, "{found} bit/s of {limit}");
    }
    let mut plan = member.plan.clone();
    plan.outward = rate(Some(10_000_000), None);
    let refused = network::regrant(&plan, &places(&home))
        .unwrap_err()
        .to_string();
    assert!(refused.contains("network.out.reserve"), "{refused}");
    plan.outward = Rate::default();
    network::regrant(&plan, &places(&home)).unwrap();
    let found = measured(&member, bridge(&member), port, &[]);
    assert!(found > 100_000_000.0, "{found} bit/s without a limit");
    network::detach(&member.plan.id, &places(&home), &mut Remains::default()).unwrap();
    assert_eq!(
        left(&home, &["net"], &[&member.plan.id]),
        Vec::<String>::new()
    );
}

#[test]
fn update_changes_what_a_workspace_may_send_and_is_promised() {
    need!(root, cgroup2);
    let home = Home::new();
    let document = Document::sleeper(&home, "[network]\nout = { limit = \"40mbit\" }\n");
    document.up(&home);
    let lease = || {
        let text = home.bulkhead(["net", "inspect", "default"]).ok();
        let network: serde_json::Value = serde_json::from_str(&text).unwrap();
        network["workspaces"][0].clone()
    };
    let id = document.id.as_str();
    let update = |words: &[&str]| home.bulkhead([&["update"], words, &[id]].concat());
    update(&["--network-out-limit", "5mbit"]).ok();
    assert!(lease().to_string().contains("5000000"), "{}", lease());
    update(&["--network-out-limit", "-1", "--network-in-reserve", "3mbit"]).ok();
    let after = lease().to_string();
    assert!(
        after.contains("3000000") && !after.contains("5000000"),
        "{after}"
    );
    let refused = update(&["--network-in-reserve", "4000gbit"]).failed();
    assert!(refused.contains("network.in.reserve"), "{refused}");
    assert_eq!(lease().to_string(), after);
    document.down(&home);
    let document = Document::sleeper(&home, "");
    document.up(&home);
    let update = ["update", "--network-in-limit", "1mbit", &document.id];
    let refused = home.bulkhead(update).failed();
    assert!(refused.contains("network.in.limit"), "{refused}");
    document.down(&home);
}

/// Sees to it that there was a flood: what went through is at least half of what was left by the reserve.
#[track_caller]
fn flooded(floods: &[Member], bytes: fn(&network::LinkCounters) -> u64) {
    let counted = floods
        .iter()
        .map(|flood| bytes(&network::counters(&flood.plan.link).unwrap()));
    let all: u64 = counted.sum();
    // Twenty megabits, half of them, in five seconds.
    assert!(all > 20_000_000 / 8 / 2 * 5, "{all} bytes are no flood");
}

#[test]
fn a_reserve_holds_while_others_flood() {
    need!(root, iperf3);
    let home = Home::new();
    let capacity = Some(Capacity {
        said: true,
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
    let host = bridge(&victim);
    // Somebody must be there who takes the packets, or the senders are told that nobody is.
    let sink = std::net::UdpSocket::bind((host, ports[1])).unwrap();
    let flooding: Vec<Running> = floods
        .iter()
        .map(|flood| {
            let script = format!(
                "exec 3>/dev/udp/{host}/{}; while :; do dd if=/dev/zero bs=1400 count=100000 >&3; done",
                ports[1]
            );
            let mut command = flood.command("bash");
            command
                .args(["-c", &script])
                .process_group(0)
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            Running(command.spawn().unwrap())
        })
        .collect();
    let found = measured(&victim, bridge(&victim), ports[0], &[]) / PAYLOAD;
    drop(flooding);
    drop(sink);
    assert!(found > 57_000_000.0, "{found} bit/s of 60 Mbit/s reserved");
    flooded(&floods, |counters| counters.out_bytes);
    let all = floods.iter().chain([&victim]);
    for member in all {
        network::detach(&member.plan.id, &places(&home), &mut Remains::default()).unwrap();
    }
    assert_eq!(
        left(&home, &["net"], &[&victim.plan.id]),
        Vec::<String>::new()
    );
}

#[test]
fn a_reserve_holds_for_what_is_received_too() {
    need!(root, iperf3);
    let home = Home::new();
    let capacity = Some(Capacity {
        said: true,
        in_bps: 50_000_000,
        out_bps: 50_000_000,
    });
    let victim = member(
        &home,
        rate(Some(30_000_000), None),
        Rate::default(),
        capacity,
    );
    let floods: Vec<Member> = (0..3)
        .map(|_| member(&home, Rate::default(), Rate::default(), capacity))
        .collect();
    let port = super::port();
    let _server = server(port);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let found = std::thread::scope(|scope| {
        for flood in &floods {
            // Sent without a connection: that nobody listens there is of no interest then.
            let (stop, target) = (&stop, (flood.address, 9));
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
            scope.spawn(move || pour(&socket, target, stop));
        }
        let found = measured(&victim, bridge(&victim), port, &["-R"]) / PAYLOAD;
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        found
    });
    assert!(found > 28_500_000.0, "{found} bit/s of 30 Mbit/s reserved");
    flooded(&floods, |counters| counters.in_bytes);
    for member in floods.iter().chain([&victim]) {
        network::detach(&member.plan.id, &places(&home), &mut Remains::default()).unwrap();
    }
}

#[test]
fn a_reserve_needs_nobodys_word_and_no_more_than_the_usual_is_promised() {
    need!(root, cgroup2);
    let home = Home::new();
    home.run(&bridged("true", "net", &[("network.in.reserve", "10mbit")]))
        .ok();
    let much = bridged("true", "net", &[("network.out.reserve", "900gbit")]);
    let refused = home.run(&much).failed();
    assert!(
        refused.contains("network.out.reserve: 900gbit asked, "),
        "{refused}"
    );
    assert!(refused.contains("nobody holds any"), "{refused}");
}

/// The classes of a queue, in the words of `tc`.
fn classes(home: &Home) -> String {
    let queue = bulkhead::plan::network::Names::of(&home.root(), "net").towards;
    let output = Command::new("tc")
        .args(["class", "show", "dev", &queue])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_a_network_carries_counts_for_those_who_are_there_when_it_changes() {
    need!(root, cgroup2);
    let home = Home::new();
    let plain = super::start(&home, "sleep 1000", "net", &[]);
    assert_eq!(classes(&home), "", "nobody was promised anything");
    let asked = [("network.in.reserve", "10mbit")];
    let first = super::start(&home, "sleep 1000", "net", &asked);
    // One for each, one for the whole and one for what is nobody's.
    let shaped = classes(&home);
    assert_eq!(shaped.lines().count(), 4, "{shaped}");
    assert!(shaped.contains("rate 10Mbit"), "{shaped}");
    std::fs::write(
        home.root().join("@host.toml"),
        "[network.net]\nin = \"77mbit\"\nout = \"55mbit\"\n",
    )
    .unwrap();
    let done = home.bulkhead(["gc"]).ok();
    assert_eq!(done, "renewed: the rates of network net\n");
    let shaped = classes(&home);
    assert_eq!(shaped.matches("ceil 77Mbit").count(), 4, "{shaped}");
    assert_eq!(home.bulkhead(["gc"]).ok(), "");
    std::fs::remove_file(home.root().join("@host.toml")).unwrap();
    home.bulkhead(["gc"]).ok();
    super::inside(
        &home,
        &plain,
        "ping -c 1 -W 5 $(ip route | grep default | cut -d' ' -f3)",
    )
    .ok();
    home.bulkhead(["delete", "--force", &*first]).ok();
    assert_eq!(classes(&home), "", "nobody is promised anything any more");
    super::inside(
        &home,
        &plain,
        "ping -c 1 -W 5 $(ip route | grep default | cut -d' ' -f3)",
    )
    .ok();
}
