//! A network namespace that the caller has furnished: its interface is found inside as it is outside.

use std::process::Command;

use serde_json::json;

use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;

/// What the interface is in the namespace.
const MAC: &str = "02:00:5e:10:20:30";
const MTU: u32 = 1380;

/// A network namespace with an interface `net7`, whose other end is in this one; removed with the value.
struct Furnished {
    name: String,
}

impl Furnished {
    fn new(home: &Home) -> Self {
        let made = Self { name: home.id() };
        let (name, outside) = (&made.name, made.outside());
        run(&format!(
            "ip netns add {name}
             ip link add {outside} type veth peer name net7 netns {name}
             ip addr add 10.98.7.1/24 dev {outside}; ip addr add fd98::1/64 dev {outside} nodad; ip link set {outside} mtu {MTU} up
             inside() {{ ip -n {name} \"$@\"; }}
             inside link set net7 address {MAC} mtu {MTU} up
             inside addr add 10.98.7.2/24 dev net7; inside addr add fd98::2/64 dev net7 nodad
             inside route add default via 10.98.7.1 dev net7; inside route add 192.0.2.0/24 via 10.98.7.9 dev net7 metric 77
             inside -6 route add default via fd98::1 dev net7"
        ));
        made
    }

    fn outside(&self) -> String {
        format!("o{}", self.name.replace("test-", "").replace('-', ""))
    }
}

impl Drop for Furnished {
    fn drop(&mut self) {
        let script = format!(
            "ip netns del {}; ip link del {} 2>/dev/null || true",
            self.name,
            self.outside()
        );
        Command::new("sh").args(["-c", &script]).status().unwrap();
    }
}

#[track_caller]
fn run(script: &str) {
    let ran = Command::new("sh")
        .args(["-e", "-c", script])
        .status()
        .unwrap();
    assert!(ran.success(), "{script}");
}

#[test]
fn an_interface_of_the_callers_namespace_has_its_addresses_routes_and_size_inside() {
    need!(root, cgroup2);
    let home = Home::new();
    let network = Furnished::new(&home);
    let script = "ip link show net7 | grep -o 'mtu [0-9]*\\|ether [0-9a-f:]*'
        ip addr show net7 | grep -o 'inet [0-9./]*\\|inet6 fd[0-9a-f:/]*'
        ip route | grep -o 'default via [0-9.]* dev net7\\|192.0.2.0/24 via [0-9.]* dev net7.*metric 77'
        ip -6 route | grep -o 'default via fd98::1 dev net7'
        ping -c 1 -W 5 10.98.7.1 >/dev/null && echo reached; ping -6 -c 1 -W 5 fd98::1 >/dev/null && echo reached too
        ping -c 1 -W 5 -s 1352 10.98.7.1 >/dev/null && echo whole";
    let bundle = Bundle::shell(script).with(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|one| one["type"] != "network");
        namespaces.push(json!({"type": "network", "path": format!("/run/netns/{}", network.name)}));
        for set in ["bounding", "effective", "permitted"] {
            let set = config["process"]["capabilities"][set]
                .as_array_mut()
                .unwrap();
            set.push("CAP_NET_RAW".into());
        }
    });
    let seen = home.run(&bundle).ok();
    let mut lines: Vec<String> = seen
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let mtu = format!("mtu {MTU}");
    let ether = format!("ether {MAC}");
    let mut expected = [
        mtu.as_str(),
        &ether,
        "inet 10.98.7.2/24",
        "inet6 fd98::2/64",
        "default via 10.98.7.1 dev net7",
        "192.0.2.0/24 via 10.98.7.9 dev net7 metric 77",
        "default via fd98::1 dev net7",
        "reached",
        "reached too",
        "whole",
    ];
    lines.sort();
    expected.sort_unstable();
    assert_eq!(lines, expected);
    // The namespace is the caller's as it was before.
    run(&format!(
        "ip -n {} addr show net7 | grep -q 10.98.7.2/24",
        network.name
    ));
}
