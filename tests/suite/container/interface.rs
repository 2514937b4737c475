//! Interfaces of the host that move into a container, each test in a network namespace of its own.

use serde_json::json;

use super::elsewhere;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::home::Said;

/// Runs a script in a container into which interfaces move that `setup` has made.
fn moved(setup: &str, devices: serde_json::Value, script: &str) -> Said {
    let home = Home::new();
    let bundle = Bundle::shell(script).with(|config| config["linux"]["netDevices"] = devices);
    let mut command = elsewhere(&home, &format!("{setup}\n$RUN run -b $BUNDLE $ID"));
    command.env("BUNDLE", bundle.path()).env("ID", home.id());
    command.output().unwrap().into()
}

const VETH: &str = "ip link add veth0 type veth peer name veth1
    ip addr add 10.11.12.13/24 dev veth1; ip addr add fd00::13/64 dev veth1 nodad; ip link set veth1 up";

#[test]
fn an_interface_moves_in_with_its_addresses_and_is_up() {
    need!(root, cgroup2);
    let script = "busybox ip -o addr show veth1; busybox ip -o link show veth1";
    let seen = moved(VETH, json!({"veth1": {}}), script).ok();
    assert!(seen.contains("10.11.12.13/24"), "{seen}");
    assert!(seen.contains("fd00::13/64"), "{seen}");
    assert!(seen.contains(",UP"), "{seen}");
}

#[test]
fn an_interface_is_renamed_on_its_way() {
    need!(root, cgroup2);
    let seen = moved(
        VETH,
        json!({"veth1": {"name": "eth0"}}),
        "busybox ip -o addr show eth0",
    )
    .ok();
    assert!(seen.contains("10.11.12.13/24"), "{seen}");
}

#[test]
fn a_name_that_is_taken_inside_is_refused() {
    need!(root, cgroup2);
    let words = moved(VETH, json!({"veth1": {"name": "lo"}}), "true").failed();
    assert!(words.contains("linux.netDevices.veth1"), "{words}");
    assert!(words.contains("file exists"), "{words}");
}

#[test]
fn an_interface_that_is_not_there_is_refused_by_name() {
    need!(root, cgroup2);
    let words = moved("true", json!({"none0": {}}), "true").failed();
    let expected = ": linux.netDevices.none0: cannot find the interface: ";
    assert!(words.contains(expected), "{words}");
}
