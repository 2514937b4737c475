//! Which address belongs to whom, and that networks come and go with those who use them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::net::IpAddr;

use bulkhead::network;
use bulkhead::network::Places;
use bulkhead::plan::network::Bridged;
use bulkhead::plan::network::NetworkPlan;
use bulkhead::sys::vanish::Remains;

use super::Bare;
use super::Runs;
use super::addresses;
use super::attach;
use super::bridged;
use super::left;
use super::port;
use super::start;
use crate::need;
use crate::support::home::Home;

fn places(home: &Home) -> Places {
    Places {
        root: home.root(),
        leases: home.root().join("@networks"),
    }
}

fn plan(home: &Home, id: &str, network: &str) -> NetworkPlan {
    let bridged = Bridged {
        bridge: network.to_owned(),
        ..Bridged::default()
    };
    NetworkPlan::of(&bridged, id, id, &home.root())
}

#[test]
fn eight_at_once_have_addresses_of_their_own() {
    need!(root, cgroup2);
    let home = Home::new();
    let ids: Vec<Runs> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| start(&home, "sleep 1000", "net", &[])))
            .collect();
        starts.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let all = ids.iter().flat_map(|id| addresses(&home, "net", id));
    let all: BTreeSet<IpAddr> = all.collect();
    assert_eq!(all.len(), 8 * addresses(&home, "net", &ids[0]).len());
}

#[test]
fn an_address_that_is_asked_for_is_had_and_refused_to_the_next() {
    need!(root, cgroup2);
    let home = Home::new();
    let asked = [("network.address", "10.213.7.9, fd77:1::9")];
    let id = start(&home, "sleep 1000", "fixed", &asked);
    let wanted: Vec<IpAddr> = ["10.213.7.9", "fd77:1::9"]
        .map(|text| text.parse().unwrap())
        .into();
    assert_eq!(addresses(&home, "fixed", &id), wanted);
    let refused = home.run(&bridged("true", "fixed", &asked)).failed();
    assert!(
        refused.contains(&format!("10.213.7.9 belongs to {id}")),
        "{refused}"
    );
    let elsewhere = bridged("true", "fixed", &[("network.address", "10.214.0.1")]);
    let refused = home.run(&elsewhere).failed();
    assert!(refused.contains("which has 10.213.4.0/22"), "{refused}");
}

#[test]
fn a_port_that_is_published_or_bound_is_refused_with_its_holder() {
    need!(root, cgroup2, nft);
    let home = Home::new();
    let publish = format!("{}:5000", port());
    let asked = [("network.publish", publish.as_str())];
    let id = start(&home, "sleep 1000", "net", &asked);
    let refused = home.run(&bridged("true", "other", &asked)).failed();
    assert!(
        refused.contains(&format!("held by workspace {id} of network net")),
        "{refused}"
    );
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let bound = format!("{}:5000", listener.local_addr().unwrap().port());
    let refused = home
        .run(&bridged("true", "net", &[("network.publish", &bound)]))
        .failed();
    assert!(
        refused.contains(&format!("(process {})", std::process::id())),
        "{refused}"
    );
}

#[test]
fn a_network_in_use_is_removed_only_by_force() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = start(&home, "sleep 1000", "net", &[]);
    let listed = home.bulkhead(["net", "ls"]).ok();
    assert!(
        listed.lines().any(|line| line.starts_with("net  ")),
        "{listed}"
    );
    let refused = home.bulkhead(["net", "rm", "net"]).failed();
    assert!(refused.contains(&*id), "{refused}");
    home.bulkhead(["net", "rm", "--force", "net"]).ok();
    assert_eq!(left(&home, &["net"], &[&id]), Vec::<String>::new());
    let gone = home.bulkhead(["net", "inspect", "net"]).failed();
    assert!(gone.contains("network net does not exist"), "{gone}");
}

#[test]
fn a_hundred_on_one_bridge_come_and_go_and_nothing_is_left() {
    need!(root);
    let home = Home::new();
    let ids: Vec<String> = (0..100).map(|_| home.id()).collect();
    let bare: Vec<Bare> = ids.iter().map(|_| Bare::new()).collect();
    let mut seen = BTreeSet::new();
    for (id, bare) in ids.iter().zip(&bare) {
        let attached = attach(&plan(&home, id, "many"), &places(&home), bare.pid());
        seen.extend(attached.unwrap().addresses);
    }
    assert_eq!(
        network::inspect("many", &places(&home))
            .unwrap()
            .leases
            .len(),
        100
    );
    assert_eq!(seen.iter().filter(|address| address.is_ipv4()).count(), 100);
    for id in &ids {
        network::detach(id, &places(&home), &mut Remains::default()).unwrap();
    }
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    assert_eq!(left(&home, &["many"], &ids), Vec::<String>::new());
}

#[test]
fn counters_are_those_of_the_workspace() {
    need!(root);
    let home = Home::new();
    let bare = Bare::new();
    let plan = plan(&home, &home.id(), "counted");
    let attached = attach(&plan, &places(&home), bare.pid()).unwrap();
    let before = network::counters(&plan.link).unwrap();
    let to = attached.addresses[0].to_string();
    let ping = std::process::Command::new("busybox")
        .args(["ping", "-q", "-c", "50", "-i", "0.01", "-s", "1400", &to])
        .output()
        .unwrap();
    assert!(ping.status.success(), "{ping:?}");
    let after = network::counters(&plan.link).unwrap();
    for (before, after) in [
        (before.in_bytes, after.in_bytes),
        (before.out_bytes, after.out_bytes),
    ] {
        let frames = after - before;
        // Heads of 42 bytes are on each. What neighbours ask each other is not much, but new links ask for long.
        assert!(
            (72_100..77_000).contains(&frames),
            "{frames} bytes for fifty pings"
        );
    }
    network::detach(&plan.id, &places(&home), &mut Remains::default()).unwrap();
    assert_eq!(network::counters(&plan.link), None);
}

#[test]
fn what_an_earlier_uptime_left_is_void_and_collected() {
    need!(root);
    let home = Home::new();
    let places = places(&home);
    let bare = [Bare::new(), Bare::new()];
    let dead = plan(&home, &home.id(), "net");
    attach(&dead, &places, bare[0].pid()).unwrap();
    let file = places.leases.join("net.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let now = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    std::fs::write(&file, text.replace(now.trim(), "an-earlier-one")).unwrap();
    for link in [&dead.link.name, &dead.names.bridge] {
        let gone = std::process::Command::new("ip")
            .args(["link", "del", link])
            .status();
        assert!(gone.unwrap().success());
    }
    // A new one finds the network as it was, and makes what is gone.
    let next = plan(&home, &home.id(), "net");
    attach(&next, &places, bare[1].pid()).unwrap();
    let leases = network::inspect("net", &places).unwrap().leases;
    assert_eq!(leases.keys().collect::<Vec<_>>(), [&next.id]);
    let gone = network::collect(&places, &BTreeSet::new()).unwrap();
    assert!(gone.iter().any(|line| line.contains(&next.id)), "{gone:?}");
    assert_eq!(
        left(&home, &["net"], &[&dead.id, &next.id]),
        Vec::<String>::new()
    );
}

#[test]
fn collecting_spares_those_who_live() {
    need!(root);
    let home = Home::new();
    let places = places(&home);
    let bare = [Bare::new(), Bare::new()];
    let plans = [(); 2].map(|()| plan(&home, &home.id(), "net"));
    for (plan, bare) in plans.iter().zip(&bare) {
        attach(plan, &places, bare.pid()).unwrap();
    }
    let live = BTreeSet::from([plans[0].id.clone()]);
    network::collect(&places, &live).unwrap();
    let leases = network::inspect("net", &places).unwrap().leases;
    assert_eq!(leases.keys().collect::<Vec<_>>(), [&plans[0].id]);
    assert!(network::counters(&plans[0].link).is_some());
    assert!(network::counters(&plans[1].link).is_none());
    network::collect(&places, &BTreeSet::new()).unwrap();
    assert_eq!(left(&home, &["net"], &[&plans[0].id]), Vec::<String>::new());
}

#[test]
fn a_bundle_that_asks_twice_for_a_port_is_refused() {
    need!(root, cgroup2);
    let home = Home::new();
    let twice = bridged("true", "net", &[("network.publish", "80:1,80:2")]);
    let refused = home.bulkhead([
        OsStr::new("run"),
        OsStr::new("-b"),
        twice.path().as_os_str(),
        OsStr::new("twice"),
    ]);
    assert!(refused.failed().contains("80:2/tcp is there twice"));
}

#[test]
fn a_workspace_on_a_bridge_is_not_saved_and_goes_on() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = start(&home, "sleep 1000", "net", &[]);
    let images = home.beside("images");
    let words = ["checkpoint", "--image-path", images.to_str().unwrap(), &id];
    let refused = home.bulkhead(words).failed();
    assert!(
        refused.contains("annotations.dev.bulkhead.network"),
        "{refused}"
    );
    assert_eq!(home.status(&id), "running");
}
