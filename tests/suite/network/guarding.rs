//! Nobody takes a neighbour's address, and the host is as it was when the last network has gone.

use std::net::IpAddr;
use std::net::UdpSocket;
use std::process::Command;

use bulkhead::plan::network::Link;
use bulkhead::sys::bpf;

use super::SERVER;
use super::addresses;
use super::bridged;
use super::gateway_of;
use super::heard;
use super::inside;
use super::network;
use super::port;
use super::start;
use crate::need;
use crate::support::home::Home;
use crate::support::home::eventually;

fn ip(words: &[&str]) -> String {
    let output = Command::new("ip").args(words).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// A workspace that may do everything with its own network.
fn mighty(home: &Home) -> (crate::support::bundle::Bundle, String) {
    let id = home.id();
    let bundle = bridged("sleep 1000", "net", &[]).with(|config| {
        for set in ["bounding", "effective", "permitted"] {
            let set = config["process"]["capabilities"][set]
                .as_array_mut()
                .unwrap();
            set.push("CAP_NET_ADMIN".into());
        }
    });
    home.start(&bundle, &id);
    (bundle, id)
}

#[test]
fn a_neighbours_address_cannot_be_taken() {
    need!(root, cgroup2);
    let home = Home::new();
    let victim = start(&home, SERVER, "net", &[]);
    let (_bundle, thief) = mighty(&home);
    let bridge = network(&home, "net")["bridge"].as_str().unwrap().to_owned();
    for address in addresses(&home, "net", &victim) {
        eventually("an answer of the victim", || {
            heard(address, 5000).as_deref() == Some(&*victim)
        });
        let plain = address.to_string();
        let station = || {
            let text = ip(&["neigh", "show", &plain, "dev", &bridge]);
            let mut words = text.split_whitespace().skip_while(|word| *word != "lladdr");
            words.nth(1).unwrap_or_default().to_owned()
        };
        let before = station();
        let claim = match address {
            IpAddr::V4(_) => {
                format!("/bin/busybox arping -U -c 3 -w 4 -I eth0 {address}")
            }
            // The kernel says by itself that it has the address.
            IpAddr::V6(_) => {
                "echo 1 >/proc/sys/net/ipv6/conf/eth0/ndisc_notify 2>/dev/null".to_owned()
            }
        };
        let take = format!("ip addr add {address}/32 dev eth0 2>/dev/null; {claim}; true");
        inside(&home, &thief, &take).ok();
        ip(&["neigh", "flush", "dev", &bridge]);
        eventually("an answer of the victim still", || {
            heard(address, 5000).as_deref() == Some(&*victim)
        });
        assert_eq!(station(), before, "{address}");
    }
}

#[test]
fn what_a_workspace_sends_in_anothers_name_does_not_leave_its_link() {
    need!(root, cgroup2);
    let home = Home::new();
    let victim = start(&home, "sleep 1000", "net", &[]);
    let (_bundle, thief) = mighty(&home);
    let four = addresses(&home, "net", &victim)[0];
    let link = Link::of(&home.root(), &thief).name;
    let bridge = network(&home, "net")["bridge"].as_str().unwrap().to_owned();
    let own = addresses(&home, "net", &thief)[0];
    let count = || -> u64 {
        let text = ip(&["-s", "-j", "link", "show", "dev", &bridge]);
        let link: serde_json::Value = serde_json::from_str(&text).unwrap();
        link[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
    };
    // Ten times two, which no other packets of a link that has just come up are mistaken for.
    let ask = format!(
        "ip addr add {four}/32 dev eth0 2>/dev/null; for n in 1 2 3 4 5 6 7 8 9 10; do \
         /bin/busybox arping -U -c 2 -w 3 -I eth0 {four} >/dev/null & done; wait"
    );
    // Its own questions are heard by the bridge.
    inside(
        &home,
        &thief,
        &format!("ping -c 1 -W 2 {}", gateway_of(own)),
    )
    .ok();
    let quiet = count();
    inside(&home, &thief, &ask).ok();
    let guarded = count() - quiet;
    // The same without the filter: what was dropped is there.
    let gone = Command::new("tc")
        .args(["filter", "del", "dev", &link, "ingress", "prio", "1"])
        .status();
    assert!(gone.unwrap().success(), "there was no filter");
    let quiet = count();
    inside(&home, &thief, &ask).ok();
    let open = count() - quiet;
    assert!(open >= guarded + 12, "{guarded} with, {open} without");
}

#[test]
fn a_workspace_cannot_reach_what_listens_on_the_hosts_loopback() {
    need!(root, cgroup2, nft);
    let home = Home::new();
    // The host takes packets to its loopback from a bridge (`route_localnet`) once a port is published there.
    let publish = format!("{}:5000", port());
    let _neighbour = start(&home, SERVER, "net", &[("network.publish", &publish)]);
    let (_bundle, thief) = mighty(&home);
    let secret = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = secret.local_addr().unwrap().port();
    let gateway = gateway_of(addresses(&home, "net", &thief)[0]);
    let way = format!(
        "ip addr del 127.0.0.1/8 dev lo && ip route add 127.0.0.1/32 via {gateway} && \
         {{ timeout 2 busybox tftp -g -r secret 127.0.0.1 {at} 2>/dev/null; true; }}"
    );
    inside(&home, &thief, &way).ok();
    secret.set_nonblocking(true).unwrap();
    let heard = secret.recv_from(&mut [0; 8]);
    assert!(heard.is_err(), "{heard:?}");
}

#[test]
fn another_hardware_address_is_not_heard() {
    need!(root, cgroup2);
    let home = Home::new();
    let (_bundle, thief) = mighty(&home);
    let bridge = gateway_of(addresses(&home, "net", &thief)[0]);
    let ping = format!("ping -c 1 -W 2 {bridge}");
    inside(&home, &thief, &ping).ok();
    let own = inside(
        &home,
        &thief,
        "cat /sys/class/net/eth0/address 2>/dev/null; ip link show eth0",
    )
    .ok();
    let mut words = own
        .split_whitespace()
        .skip_while(|word| *word != "link/ether");
    let own = words.nth(1).unwrap().to_owned();
    inside(
        &home,
        &thief,
        "ip link set dev eth0 address 02:00:00:00:00:99",
    )
    .ok();
    inside(&home, &thief, &ping).failed();
    inside(
        &home,
        &thief,
        &format!("ip link set dev eth0 address {own}"),
    )
    .ok();
    eventually("an answer", || inside(&home, &thief, &ping).status == 0);
}

#[test]
fn the_links_of_a_network_share_a_filter_while_one_has_it() {
    need!(root, cgroup2);
    let home = Home::new();
    let filter = |id: &str, words: &[&str]| {
        let link = Link::of(&home.root(), id).name;
        let output = Command::new("tc")
            .args(["filter", words[0], "dev", &link, "ingress"])
            .args(&words[1..])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let program = |id: &str| -> u32 {
        let text = filter(id, &["show"]);
        let mut words = text.split_whitespace().skip_while(|word| *word != "id");
        words.nth(1).unwrap_or(&text).parse().unwrap()
    };
    let known = || {
        let register = home.root().join("@networks/net.json");
        let register: serde_json::Value =
            serde_json::from_slice(&std::fs::read(register).unwrap()).unwrap();
        u32::try_from(register["filter"]["id"].as_u64().unwrap()).unwrap()
    };
    let first = start(&home, "sleep 1000", "net", &[]);
    let second = start(&home, "sleep 1000", "net", &[]);
    assert_eq!(program(&first), program(&second));
    let elsewhere = start(&home, "sleep 1000", "other", &[]);
    assert_ne!(program(&first), program(&elsewhere));
    // It stays when who had it first has gone, and who comes next has it.
    let shared = program(&first);
    home.bulkhead(["delete", "--force", &first]).ok();
    let third = start(&home, "sleep 1000", "net", &[]);
    assert_eq!((program(&third), known()), (shared, shared));
    // When no link has it any more, the next one loads another.
    for id in [&second, &third] {
        filter(id, &["del", "prio", "1"]);
    }
    eventually("the end of the program", || {
        bpf::by_name(shared, *b"bulkhead_source\0").is_err()
    });
    let fourth = start(&home, "sleep 1000", "net", &[]);
    assert_ne!(program(&fourth), shared);
    assert_eq!(program(&fourth), known());
}

/// What the host's switch says before, while and after a workspace has a network, in a network of the test's own.
fn switched(home: &Home, before: &str) -> Vec<String> {
    let id = home.id();
    let bundle = bridged("sleep 1000", "net", &[]);
    let plain = home.command();
    let script = format!(
        "cd /proc/sys/net/ipv4; ip link set lo up; echo 0 >ip_forward; {before}\n\
         cat ip_forward; \"$@\" create -b {} {id} >/dev/null 2>&1; cat ip_forward\n\
         \"$@\" delete --force {id}; cat ip_forward",
        bundle.path().display()
    );
    let output = Command::new("unshare")
        .args(["--net", "sh", "-c", &script, "sh"])
        .arg(plain.get_program())
        .args(plain.get_args())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn the_host_passes_nothing_on_any_more_when_the_last_network_has_gone() {
    need!(root, cgroup2, nft);
    let home = Home::new();
    assert_eq!(switched(&home, ""), ["0", "1", "0"]);
}

#[test]
fn a_switch_that_another_bridge_may_need_stays() {
    need!(root, cgroup2, nft);
    let home = Home::new();
    let before = "ip link add others type bridge";
    assert_eq!(switched(&home, before), ["0", "1", "1"]);
}

#[test]
fn a_switch_that_was_on_stays() {
    need!(root, cgroup2, nft);
    let home = Home::new();
    let before = "echo 1 >ip_forward";
    assert_eq!(switched(&home, before), ["1", "1", "1"]);
}
