//! Who reaches whom: workspaces, the host, published ports, other networks.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::process::Child;
use std::process::Command;

use serde_json::json;

use super::Bare;
use super::SERVER;
use super::addresses;
use super::asking;
use super::bridged;
use super::gateway_of;
use super::heard;
use super::inside;
use super::left;
use super::port;
use super::start;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::home::Said;
use crate::support::home::eventually;

/// A machine beyond the host, where clouds tell their guests' secrets: it says one at two ports.
struct Beyond {
    servers: Vec<Child>,
    _ground: Bare,
}

impl Beyond {
    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));
    const PORTS: [u16; 2] = [53, 80];

    fn new() -> Self {
        let ground = Bare::new();
        let place = ground.pid();
        let enter = format!("nsenter --net=/proc/{place}/ns/net");
        let script = format!(
            "ip link add beyond0 type veth peer name beyond1 netns {place} &&
            ip addr add 169.254.0.1/16 dev beyond0 && ip link set beyond0 up &&
            {enter} ip addr add {}/16 dev beyond1 && {enter} ip link set beyond1 up",
            Self::ADDRESS
        );
        let made = Command::new("sh").args(["-c", &script]).status().unwrap();
        assert!(made.success());
        let serve = |port: u16| {
            let words = format!("{enter} busybox nc -ll -p {port} -e /bin/echo secret");
            let mut words = words.split(' ');
            let mut command = Command::new(words.next().unwrap());
            command.args(words).spawn().unwrap()
        };
        Self {
            servers: Self::PORTS.map(serve).into(),
            _ground: ground,
        }
    }
}

impl Drop for Beyond {
    fn drop(&mut self) {
        for server in &mut self.servers {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }
}

#[test]
fn workspaces_and_the_host_reach_each_other_and_nothing_is_left() {
    need!(root, cgroup2);
    let home = Home::new();
    let server = start(&home, SERVER, "net", &[]);
    let client = start(&home, "sleep 1000", "net", &[]);
    for address in addresses(&home, "net", &server) {
        inside(&home, &client, &format!("ping -c 1 -W 2 {address}")).ok();
        let heard_inside = inside(&home, &client, &asking(address, 5000)).ok();
        assert_eq!(heard_inside.trim(), &*server);
        eventually("an answer to the host", || {
            heard(address, 5000).as_deref() == Some(&*server)
        });
        let bridge = gateway_of(address);
        inside(&home, &client, &format!("ping -c 1 -W 2 {bridge}")).ok();
    }
    home.bulkhead(["delete", "--force", &*server]).ok();
    assert!(left(&home, &[], &[&server]).len() == 1, "the network stays");
    home.bulkhead(["delete", "--force", &*client]).ok();
    assert_eq!(
        left(&home, &["net"], &[&server, &client]),
        Vec::<String>::new()
    );
}

#[test]
fn a_workspace_knows_the_others_by_name_and_has_its_own_files() {
    need!(root, cgroup2);
    let home = Home::new();
    let first = start(&home, SERVER, "net", &[]);
    let second = start(&home, "sleep 1000", "net", &[]);
    let pinged = inside(
        &home,
        &second,
        &format!("ping -c 1 -W 2 {first} && cat /etc/hostname"),
    );
    assert!(pinged.ok().ends_with(&format!("{second}\n")));
    let resolvers = inside(&home, &second, "cat /etc/resolv.conf").ok();
    assert!(!resolvers.contains("nameserver 127."), "{resolvers}");
}

#[test]
fn a_bundle_that_mounts_its_own_hosts_keeps_them() {
    need!(root, cgroup2);
    let home = Home::new();
    let own = home.beside("hosts");
    std::fs::write(&own, "192.0.2.7 mine\n").unwrap();
    let bundle = bridged("cat /etc/hosts", "net", &[]).with(|config| {
        let mount = json!({"destination": "/etc/hosts", "type": "bind", "source": own, "options": ["bind"]});
        config["mounts"].as_array_mut().unwrap().push(mount);
    });
    assert_eq!(home.run(&bundle).ok(), "192.0.2.7 mine\n");
}

#[test]
fn a_published_port_is_reached_from_everywhere() {
    need!(root, cgroup2, nft);
    let home = Home::new();
    let port = port();
    let publish = format!("{port}:5000");
    let server = start(&home, SERVER, "net", &[("network.publish", &publish)]);
    let neighbour = start(&home, "sleep 1000", "net", &[]);
    let stranger = start(&home, "sleep 1000", "other", &[]);
    let four = addresses(&home, "net", &server)[0];
    let of_host = gateway_of(four);
    for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), of_host] {
        eventually("an answer at the host's port", || {
            heard(address, port).as_deref() == Some(&*server)
        });
    }
    for asker in [&neighbour, &stranger, &server] {
        let answer = inside(&home, asker, &asking(of_host, port)).ok();
        assert_eq!(answer.trim(), &*server, "asked by {asker}");
    }
    home.bulkhead(["delete", "--force", &*server]).ok();
    assert_eq!(heard(of_host, port), None);
}

#[test]
fn a_port_on_one_address_is_not_on_the_others() {
    need!(root, cgroup2, nft);
    let home = Home::new();
    let port = port();
    let publish = format!("127.0.0.1:{port}:5000");
    let server = start(&home, SERVER, "net", &[("network.publish", &publish)]);
    eventually("an answer at the loopback", || {
        heard(Ipv4Addr::LOCALHOST.into(), port).as_deref() == Some(&*server)
    });
    let four = addresses(&home, "net", &server)[0];
    assert_eq!(heard(gateway_of(four), port), None);
}

#[test]
fn networks_are_closed_to_each_other() {
    need!(root, cgroup2, nft);
    let home = Home::new();
    let server = start(&home, SERVER, "net", &[]);
    let neighbour = start(&home, "sleep 1000", "net", &[]);
    let stranger = start(&home, "sleep 1000", "other", &[]);
    for address in addresses(&home, "net", &server) {
        let ping = format!("ping -c 1 -W 1 {address}");
        inside(&home, &neighbour, &ping).ok();
        let said = inside(&home, &stranger, &ping);
        assert!(said.out.contains("100% packet loss"), "{said:?}");
        said.failed();
    }
}

#[test]
fn link_local_addresses_beyond_the_host_answer_questions_for_names_alone() {
    need!(root, cgroup2, nft);
    let home = Home::new();
    let _beyond = Beyond::new();
    let inner = start(&home, "sleep 1000", "net", &[]);
    for port in Beyond::PORTS {
        eventually("an answer to the host", || {
            heard(Beyond::ADDRESS, port).as_deref() == Some("secret")
        });
    }
    let names = inside(&home, &inner, &asking(Beyond::ADDRESS, 53)).ok();
    assert_eq!(names.trim(), "secret");
    let other = format!("nc -w 2 {} 80 </dev/null", Beyond::ADDRESS);
    let said = inside(&home, &inner, &other);
    assert_eq!(said.out, "");
    said.failed();
    let ping = format!("ping -c 1 -W 1 {}", Beyond::ADDRESS);
    inside(&home, &inner, &ping).failed();
}

#[test]
fn none_is_a_loopback_alone() {
    need!(root, cgroup2);
    let home = Home::new();
    let links = "ip -o link | wc -l";
    let none = Bundle::shell(links).with(|config| {
        config["annotations"]["dev.bulkhead.network"] = "none".into();
    });
    assert_eq!(home.run(&none).ok().trim(), "1");
}

#[test]
fn the_hosts_is_the_one_of_who_calls() {
    need!(root, cgroup2);
    let home = Home::new();
    let shared = Bundle::shell("readlink /proc/self/ns/net").with(|config| {
        config["annotations"]["dev.bulkhead.network"] = "host".into();
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "network");
    });
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(home.run(&shared).ok().trim(), own.to_str().unwrap());
}

#[test]
fn a_namespace_that_the_caller_gives_is_refused_with_a_bridge_and_left_alone_without() {
    need!(root, cgroup2);
    let home = Home::new();
    let bare = super::Bare::new();
    let path = format!("/proc/{}/ns/net", bare.pid());
    let given = |config: &mut serde_json::Value| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        let network = namespaces.iter_mut().find(|one| one["type"] == "network");
        network.unwrap()["path"] = path.as_str().into();
    };
    let refused = home.run(&bridged("true", "net", &[]).with(given)).failed();
    assert!(refused.contains("linux.namespaces[1].path"), "{refused}");
    let alone = home.run(&Bundle::shell("ip -o link | wc -l").with(given));
    assert_eq!(alone.ok().trim(), "1");
    assert_eq!(left(&home, &["net"], &[]), Vec::<String>::new());
}

/// Runs a bundle where the program nft is hidden, in a network of its own.
fn without_nft(home: &Home, bundle: &Bundle) -> Said {
    let script = "ip link set lo up; mount --bind /dev/null $(command -v nft); exec \"$0\" \"$@\"";
    let plain = home.command();
    let mut command = std::process::Command::new("unshare");
    command
        .args([
            "--mount",
            "--net",
            "--propagation",
            "private",
            "sh",
            "-e",
            "-c",
            script,
        ])
        .arg(plain.get_program())
        .args(plain.get_args())
        .args(["run", "-b"])
        .arg(bundle.path())
        .arg(home.id());
    command.output().unwrap().into()
}

#[test]
fn without_nft_there_is_a_warning_and_ports_are_refused_with_the_way_out() {
    need!(root, cgroup2, nft);
    let home = Home::new();
    let script = "ping -c 1 -W 2 $(ip route | grep default | cut -d ' ' -f 3)";
    let plain = without_nft(&home, &bridged(script, "net", &[]));
    let words = plain.err.clone();
    plain.ok();
    assert!(words.contains("install nftables"), "{words}");
    let publish = format!("{}:5000", port());
    let wanted = bridged("true", "net", &[("network.publish", &publish)]);
    let refused = without_nft(&home, &wanted).failed();
    assert!(refused.contains("install nftables"), "{refused}");
    assert!(!home.root().join("@networks").exists());
}

#[test]
fn a_published_port_of_udp_is_reached() {
    need!(root, cgroup2, nft);
    let home = Home::new();
    let port = port();
    let publish = format!("{port}:5000/udp");
    // Busybox has no server for packets: one of this test is put into the workspace's network.
    let server = start(&home, "sleep 1000", "net", &[("network.publish", &publish)]);
    let path = format!("/proc/{}/ns/net", home.pid(&server));
    let inner = std::fs::File::open(path).unwrap();
    let socket = std::thread::spawn(move || {
        let kind = rustix::thread::LinkNameSpaceType::Network;
        rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&inner), Some(kind))
            .unwrap();
        std::net::UdpSocket::bind("0.0.0.0:5000").unwrap()
    });
    let socket = socket.join().unwrap();
    let four = addresses(&home, "net", &server)[0];
    let patience = Some(std::time::Duration::from_secs(30));
    for host in [Ipv4Addr::LOCALHOST.into(), gateway_of(four)] {
        let client = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let mut space = [0; 64];
        client.set_read_timeout(patience).unwrap();
        socket.set_read_timeout(patience).unwrap();
        client.send_to(b"who", (host, port)).unwrap();
        let (length, asker) = socket.recv_from(&mut space).unwrap();
        assert_eq!(&space[..length], b"who");
        socket.send_to(b"me", asker).unwrap();
        let (length, answerer) = client.recv_from(&mut space).unwrap();
        assert_eq!(&space[..length], b"me");
        assert_eq!(answerer, (host, port).into());
    }
}

#[test]
fn a_published_port_is_reached_by_ipv6() {
    need!(root, cgroup2, nft);
    let home = Home::new();
    let port = port();
    let publish = format!("{port}:5000");
    let server = start(&home, SERVER, "net", &[("network.publish", &publish)]);
    let neighbour = start(&home, "sleep 1000", "net", &[]);
    let all = addresses(&home, "net", &server);
    let six = all.into_iter().find(IpAddr::is_ipv6).unwrap();
    let host = gateway_of(six);
    eventually("an answer at the host's port", || {
        heard(host, port).as_deref() == Some(&*server)
    });
    let answer = inside(&home, &neighbour, &asking(host, port)).ok();
    assert_eq!(answer.trim(), &*server);
}
