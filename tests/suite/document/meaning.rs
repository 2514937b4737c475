//! What a document compiles to says what the document says: any document, written in either language.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use bulkhead::spec::asked;
use bulkhead::spec::asked::Asked;
use bulkhead::spec::asked::Bridged;
use bulkhead::spec::asked::Expiry;
use bulkhead::spec::asked::Guarantee;
use bulkhead::spec::asked::Isolation;
use bulkhead::spec::asked::Layer;
use bulkhead::spec::asked::OverLimit;
use bulkhead::spec::asked::Publish;
use bulkhead::spec::asked::Transport;
use bulkhead::spec::image::ImageDefaults;
use bulkhead::spec::linux::NamespaceKind;
use bulkhead::spec::workspace::Addresses;
use bulkhead::spec::workspace::Bits;
use bulkhead::spec::workspace::Bytes;
use bulkhead::spec::workspace::Cpu;
use bulkhead::spec::workspace::Cpus;
use bulkhead::spec::workspace::Document;
use bulkhead::spec::workspace::Flow;
use bulkhead::spec::workspace::Format;
use bulkhead::spec::workspace::Lease;
use bulkhead::spec::workspace::Memory;
use bulkhead::spec::workspace::Mode;
use bulkhead::spec::workspace::Mount;
use bulkhead::spec::workspace::Network;
use bulkhead::spec::workspace::Port;
use bulkhead::spec::workspace::Rate;
use bulkhead::spec::workspace::Span;
use bulkhead::spec::workspace::Surroundings;
use bulkhead::spec::workspace::Who;
use proptest::option;
use proptest::prelude::any;
use proptest::prop_assert;
use proptest::prop_assert_eq;
use proptest::proptest;
use proptest::strategy::Just;
use proptest::strategy::Strategy;

use super::surroundings;

const EVERY_KEY: &str =
    include_str!("../../../runtime-spec/examples/valid/workspace-every-key.toml");

fn document(rest: &str) -> Document {
    let text = format!("name = \"web\"\nrootfs = \".\"\ncommand = [\"/bin/true\"]\n{rest}");
    Document::read(&text, Format::Toml, "web.toml").unwrap()
}

/// What is asked of the runtime by what a document compiles to.
fn asked_by(document: &Document, around: &Surroundings) -> Asked {
    Asked::of(&document.compile(around).unwrap().annotations).unwrap()
}

#[test]
fn what_oci_can_say_is_said_in_oci() {
    let document = Document::read(EVERY_KEY, Format::Toml, "every.toml").unwrap();
    let spec = document.compile(&surroundings()).unwrap();
    assert_eq!(spec.root.path, PathBuf::from("/srv/rootfs"));
    assert!(spec.root.readonly);
    assert_eq!(spec.hostname, "builder.example");
    assert_eq!(spec.process.args, ["make", "-j2"]);
    assert_eq!(spec.process.cwd, PathBuf::from("/src"));
    assert_eq!((spec.process.user.uid, spec.process.user.gid), (1000, 1000));
    assert_eq!(spec.annotations["org.example.ticket"], "42");
    let bound: Vec<_> = spec.mounts[spec.mounts.len() - 2..]
        .iter()
        .map(|mount| {
            (
                mount.source.as_str(),
                mount.options.last().unwrap().as_str(),
            )
        })
        .collect();
    assert_eq!(bound, [("/srv/src", "rw"), ("/etc/ssl/certs", "rro")]);
    let resources = serde_json::to_value(spec.linux.resources.unwrap()).unwrap();
    let expected = serde_json::json!({
        "devices": [{ "allow": false, "access": "rwm" }],
        "cpu": { "shares": 2048, "quota": 200_000, "period": 100_000, "burst": 50_000 },
        "memory": { "limit": 512 << 20, "swap": 512 << 20, "reservation": 128 << 20 },
        "pids": { "limit": 4096 },
        "blockIO": {
            "weight": 200,
            "throttleReadBpsDevice": [{ "major": 8, "minor": 16, "rate": 50 << 20 }],
            "throttleWriteBpsDevice": [{ "major": 8, "minor": 16, "rate": 50 << 20 }],
            "throttleReadIOPSDevice": [{ "major": 8, "minor": 16, "rate": 2000 }],
            "throttleWriteIOPSDevice": [{ "major": 8, "minor": 16, "rate": 2000 }],
        },
        "unified": { "memory.high": (448u64 << 20).to_string(), "memory.oom.group": "1" },
    });
    assert_eq!(resources, expected);
    assert_eq!(spec.vm.unwrap().hw_config.unwrap().vcpus, Some(2));
}

#[test]
fn what_oci_cannot_say_is_asked_in_annotations() {
    let document = Document::read(EVERY_KEY, Format::Toml, "every.toml").unwrap();
    let rate = |reserve, limit| asked::Rate {
        reserve_bps: Some(reserve),
        limit_bps: Some(limit),
    };
    let port = |address: Option<&str>, host_port, port, transport| Publish {
        address: address.map(|address| address.parse().unwrap()),
        host_port,
        port,
        transport,
    };
    let layer = Layer {
        upper: "/l/upper".to_owned(),
        work: "/l/work".to_owned(),
        volatile: true,
    };
    let around = Surroundings {
        layer: Some(layer.clone()),
        ..surroundings()
    };
    let expected = Asked {
        isolation: Some(Isolation::MicroVm),
        guarantee: Guarantee {
            cpu_milli: 250,
            cpu_share: Some(200),
            memory_bytes: 128 << 20,
            read_bps: 10 << 20,
            write_bps: 5 << 20,
        },
        over_limit: OverLimit::Reset,
        network: Some(asked::Network::Bridge(Box::new(Bridged {
            bridge: "default".to_owned(),
            addresses: ["10.88.0.7", "fd00:88::7"]
                .map(|one| one.parse().unwrap())
                .to_vec(),
            publish: vec![
                port(None, 8080, 80, Transport::Tcp),
                port(Some("127.0.0.1"), 5353, 53, Transport::Udp),
                port(Some("2001:db8::1"), 8443, 443, Transport::Tcp),
            ],
            mtu: Some(1400),
            inward: rate(10_000_000, 100_000_000),
            outward: rate(10_000_000, 1_500_000_000),
        }))),
        lease: Some(asked::Lease {
            ttl: Duration::from_secs(30_600),
            on_expiry: Expiry::Pause,
        }),
        layer: Some(layer),
        hugepages: true,
        billed: true,
    };
    assert_eq!(asked_by(&document, &around), expected);
}

#[test]
fn a_document_that_asks_for_little_is_billed_and_alone() {
    let asked = asked_by(&document(""), &surroundings());
    let expected = Asked {
        network: Some(asked::Network::None),
        billed: true,
        ..Asked::default()
    };
    assert_eq!(asked, expected);
}

#[test]
fn the_network_table_alone_means_the_default_bridge() {
    let asked = asked_by(&document("[network]\n"), &surroundings());
    let Some(asked::Network::Bridge(bridged)) = asked.network else {
        panic!("no bridge: {:?}", asked.network);
    };
    assert_eq!(bridged.bridge, "default");
}

#[test]
fn a_network_of_others_is_joined_and_nothing_is_asked_of_it() {
    let document = document("network = { bridge = \"/run/netns/blue\" }");
    let spec = document.compile(&surroundings()).unwrap();
    let joined = spec.linux.namespace(NamespaceKind::Network).unwrap();
    assert_eq!(joined.path, PathBuf::from("/run/netns/blue"));
    assert_eq!(Asked::of(&spec.annotations).unwrap().network, None);
}

#[test]
fn the_hosts_network_is_no_namespace() {
    let document = document("network = { bridge = \"host\" }");
    let spec = document.compile(&surroundings()).unwrap();
    assert!(!spec.linux.has(NamespaceKind::Network));
    assert!(spec.linux.has(NamespaceKind::Uts));
    let asked = Asked::of(&spec.annotations).unwrap();
    assert_eq!(asked.network, Some(asked::Network::Host));
}

#[test]
fn a_document_wins_over_its_image_key_by_key() {
    let around = Surroundings {
        image: Some(ImageDefaults {
            env: vec!["PATH=/image".to_owned(), "A=image".to_owned()],
            command: vec!["/image/run".to_owned(), "fast".to_owned()],
            cwd: Some("/image".to_owned()),
            user: Some("7:8".to_owned()),
        }),
        ..surroundings()
    };
    let text = "name = \"web\"\nrootfs = \"i\"\nenv = { A = \"own\", B = \"own\" }\n";
    let silent = Document::read(text, Format::Toml, "web.toml").unwrap();
    let process = silent.compile(&around).unwrap().process;
    assert_eq!(process.args, ["/image/run", "fast"]);
    assert_eq!(process.env, ["PATH=/image", "A=own", "B=own"]);
    assert_eq!(process.cwd, PathBuf::from("/image"));
    assert_eq!((process.user.uid, process.user.gid), (7, 8));
    let own = document("cwd = \"/own\"\nuser = \"1:2\"\n");
    let process = own.compile(&around).unwrap().process;
    assert_eq!(process.args, ["/bin/true"]);
    assert_eq!(process.cwd, PathBuf::from("/own"));
    assert_eq!((process.user.uid, process.user.gid), (1, 2));
}

#[test]
fn a_user_that_the_image_does_not_know_is_not_guessed_at() {
    let around = Surroundings {
        image: Some(ImageDefaults {
            user: Some("web".to_owned()),
            ..ImageDefaults::default()
        }),
        ..surroundings()
    };
    let refused = document("").compile(&around).unwrap_err().to_string();
    let expected =
        "web.toml: user: the image names the user \"web\", which it does not know; give UID:GID";
    assert_eq!(refused, expected);
}

#[test]
fn a_rate_of_a_root_on_no_disk_is_refused_with_its_line() {
    let around = Surroundings {
        device: None,
        ..surroundings()
    };
    let document = document("[io]\nread.iops = 5\n");
    let refused = document.compile(&around).unwrap_err().to_string();
    assert!(
        refused.starts_with("web.toml:5: io.read.iops: "),
        "{refused}"
    );
}

#[test]
fn a_document_that_was_changed_is_checked_again() {
    let mut changed = document("");
    changed.name = "n".repeat(65).parse().unwrap();
    let refused = changed.compile(&surroundings()).unwrap_err().to_string();
    let expected = "web.toml:1: name: expected a name of at most 64 bytes, found 65 bytes";
    assert_eq!(refused, expected);
}

fn pair<T: Clone + Ord + std::fmt::Debug>(
    amounts: impl Strategy<Value = T>,
) -> impl Strategy<Value = (Option<T>, Option<T>)> {
    proptest::collection::vec(option::of(amounts), 2).prop_map(|mut two| {
        if two.iter().all(Option::is_some) {
            two.sort();
        }
        (two[0].clone(), two[1].clone())
    })
}

fn cpu() -> impl Strategy<Value = Cpu> {
    let amounts = pair((10u64..1_000_000).prop_map(Cpus));
    (amounts, option::of(1u64..=10_000)).prop_map(|((reserve, limit), share)| Cpu {
        reserve,
        share,
        limit,
        burst: limit.map(|limit| Cpus(limit.0 / 2)),
    })
}

fn memory() -> impl Strategy<Value = Memory> {
    let amounts = pair((1u64 << 20..1 << 50).prop_map(Bytes));
    (amounts, any::<bool>()).prop_map(|((reserve, limit), reset)| Memory {
        reserve,
        high: limit,
        limit,
        on_over_limit: match reset && limit.is_some() {
            true => OverLimit::Reset,
            false => OverLimit::Kill,
        },
    })
}

fn flow() -> impl Strategy<Value = Flow> {
    let amounts = pair((1u64..1 << 50).prop_map(Bytes));
    (amounts, option::of(1u64..1 << 40)).prop_map(|((reserve, bps), iops)| Flow {
        bps,
        iops,
        reserve,
    })
}

fn rate() -> impl Strategy<Value = Rate> {
    pair((8000u64..1 << 50).prop_map(Bits)).prop_map(|(reserve, limit)| Rate { reserve, limit })
}

fn port() -> impl Strategy<Value = Port> {
    let transports = proptest::sample::select(vec![Transport::Tcp, Transport::Udp]);
    let parts = (option::of(any::<IpAddr>()), 1u16.., 1u16.., transports);
    parts.prop_map(|(address, host_port, port, transport)| {
        Port(Publish {
            address,
            host_port,
            port,
            transport,
        })
    })
}

fn addresses() -> impl Strategy<Value = Addresses> {
    let four = option::of(any::<std::net::Ipv4Addr>());
    let six = option::of(any::<std::net::Ipv6Addr>());
    (four, six).prop_map(|(four, six)| {
        let four = four.map(IpAddr::from);
        Addresses(four.into_iter().chain(six.map(IpAddr::from)).collect())
    })
}

fn bridged() -> impl Strategy<Value = Network> {
    let parts = (
        "[a-z][a-z0-9_-]{4,20}",
        addresses(),
        option::of(port()),
        option::of(1280u32..=65_535),
        rate(),
        rate(),
    );
    parts.prop_map(|(bridge, address, port, mtu, inward, outward)| Network {
        bridge,
        address,
        publish: port.into_iter().collect(),
        mtu,
        inward,
        outward,
    })
}

fn network() -> impl Strategy<Value = Option<Network>> {
    let plain = |bridge: &str| {
        Just(Some(Network {
            bridge: bridge.to_owned(),
            ..Network::default()
        }))
    };
    proptest::prop_oneof![
        Just(None),
        plain("none"),
        plain("host"),
        plain("/run/netns/x"),
        bridged().prop_map(Some),
    ]
}

fn lease() -> impl Strategy<Value = Lease> {
    let endings = proptest::sample::select(vec![Expiry::Stop, Expiry::Pause, Expiry::Trash]);
    (1u64..1 << 40, 0u32..1_000_000_000, endings).prop_map(|(seconds, nanos, on_expiry)| Lease {
        ttl: Span(Duration::new(seconds, nanos)),
        on_expiry,
    })
}

fn mounts() -> impl Strategy<Value = Vec<Mount>> {
    let modes = proptest::sample::select(vec![Mode::Ro, Mode::Rw]);
    let one = ("\\PC{1,20}", "/[a-o][^/.\\pC]{0,9}", modes);
    let one = one.prop_map(|(source, target, mode)| Mount {
        source: PathBuf::from(source),
        target: PathBuf::from(target),
        mode,
    });
    option::of(one).prop_map(|one| one.into_iter().collect())
}

fn any_document() -> impl Strategy<Value = Document> {
    let who = option::of((0..u32::MAX, 0..u32::MAX).prop_map(|(uid, gid)| Who { uid, gid }));
    let words = (
        "[a-zA-Z0-9_][a-zA-Z0-9_+.-]{0,63}",
        proptest::collection::vec("[^\\x00]{1,20}", 1..4),
        proptest::collection::btree_map("[^=\\x00]{1,9}", "[^\\x00]{0,20}", 0..4),
        option::of(1u64..1 << 40),
        who,
        mounts(),
    );
    let parts = (
        words,
        cpu(),
        memory(),
        (flow(), flow()),
        network(),
        option::of(lease()),
    );
    parts.prop_map(|(words, cpu, memory, (read, write), network, lease)| {
        let (name, command, env, pids, user, mount) = words;
        let mut made = document("");
        made.name = name.parse().unwrap();
        (made.command, made.env, made.pids) = (command, env, pids);
        (made.user, made.mount) = (user, mount);
        (made.cpu, made.memory) = (cpu, memory);
        (made.io.read, made.io.write) = (read, write);
        (made.network, made.lease) = (network, lease);
        made
    })
}

/// What a document asks of the runtime, by its own types.
fn meant(document: &Document) -> Asked {
    let rate = |rate: &Rate| asked::Rate {
        reserve_bps: rate.reserve.map(|rate| rate.0),
        limit_bps: rate.limit.map(|rate| rate.0),
    };
    let bridged = |network: &Network| Bridged {
        bridge: network.bridge.clone(),
        addresses: network.address.0.clone(),
        publish: network.publish.iter().map(|port| port.0).collect(),
        mtu: network.mtu,
        inward: rate(&network.inward),
        outward: rate(&network.outward),
    };
    let network = match &document.network {
        None => Some(asked::Network::None),
        Some(network) => match network.bridge.as_str() {
            "none" => Some(asked::Network::None),
            "host" => Some(asked::Network::Host),
            path if path.starts_with('/') => None,
            _ => Some(asked::Network::Bridge(Box::new(bridged(network)))),
        },
    };
    let bytes = |amount: Option<Bytes>| amount.unwrap_or_default().0;
    Asked {
        isolation: None,
        guarantee: Guarantee {
            cpu_milli: document.cpu.reserve.unwrap_or_default().0,
            cpu_share: document.cpu.share,
            memory_bytes: bytes(document.memory.reserve),
            read_bps: bytes(document.io.read.reserve),
            write_bps: bytes(document.io.write.reserve),
        },
        over_limit: document.memory.on_over_limit,
        network,
        lease: document.lease.as_ref().map(|lease| asked::Lease {
            ttl: lease.ttl.0,
            on_expiry: lease.on_expiry,
        }),
        layer: None,
        hugepages: document.machine.as_ref().is_some_and(|one| one.hugepages),
        billed: true,
    }
}

proptest! {
    #[test]
    fn any_document_is_read_as_it_was_written(document in any_document()) {
        let toml = toml::to_string(&document).unwrap();
        prop_assert_eq!(&Document::read(&toml, Format::Toml, "any").unwrap(), &document, "{}", toml);
        let json = serde_json::to_string(&document).unwrap();
        prop_assert_eq!(&Document::read(&json, Format::Json, "any").unwrap(), &document, "{}", json);
    }

    #[test]
    fn any_document_compiles_to_what_asks_for_the_same(document in any_document()) {
        let spec = document.compile(&surroundings()).unwrap();
        prop_assert_eq!(Asked::of(&spec.annotations).unwrap(), meant(&document));
        prop_assert_eq!(spec.validate().unwrap(), Vec::new());
        let text = serde_json::to_vec(&spec).unwrap();
        prop_assert_eq!(bulkhead::spec::Spec::parse(&text).unwrap(), spec);
    }

    #[test]
    fn no_text_makes_the_reader_fall(text in "\\PC{0,200}") {
        for format in [Format::Toml, Format::Json] {
            let read = Document::read(&text, format, "any");
            prop_assert!(read.is_err());
        }
    }

    #[test]
    fn an_example_cut_off_anywhere_is_refused_or_means_something(end in 0..EVERY_KEY.len()) {
        let read = Document::read(&EVERY_KEY[..end], Format::Toml, "cut.toml");
        let said = read.map_or_else(|error| error.to_string(), |whole| whole.name.to_string());
        prop_assert!(said.starts_with("cut.toml") || said == "every-key", "{}", said);
    }
}
