//! What annotations are understood as, and what is refused.

use super::*;

fn asked(pairs: &[(&str, &str)]) -> Result<Asked> {
    let annotations = pairs
        .iter()
        .map(|(key, value)| (format!("{PREFIX}{key}"), (*value).to_owned()));
    Asked::of(&annotations.collect())
}

#[test]
fn a_bundle_without_annotations_asks_for_nothing() {
    assert_eq!(asked(&[]).unwrap(), Asked::default());
}

#[test]
fn what_is_asked_is_understood() {
    let asked = asked(&[
        ("cpu.reserve", "0.25"),
        ("memory.reserve", "128M"),
        ("lease.ttl", "8h"),
        ("network", "default"),
        (
            "network.publish",
            "8080:80/tcp, 127.0.0.1:53:5353/udp, [2001:db8::1]:1:2",
        ),
        ("network.out.limit", "100mbit"),
    ])
    .unwrap();
    assert_eq!(asked.guarantee.cpu_milli, 250);
    assert_eq!(asked.guarantee.memory_bytes, 128 << 20);
    assert_eq!(asked.lease.unwrap().ttl, Duration::from_secs(28_800));
    let Some(Network::Bridge(bridged)) = asked.network else {
        panic!("no bridge: {:?}", asked.network);
    };
    let ports: Vec<String> = bridged.publish.iter().map(ToString::to_string).collect();
    assert_eq!(
        ports,
        [
            "8080:80/tcp",
            "127.0.0.1:53:5353/udp",
            "[2001:db8::1]:1:2/tcp"
        ]
    );
    assert_eq!(bridged.outward.limit_bps, Some(100_000_000));
}

#[test]
fn an_unknown_annotation_is_refused_with_the_nearest_known_one() {
    let text = asked(&[("cpu.reserved", "1")]).unwrap_err().to_string();
    assert_eq!(
        text,
        "annotations.dev.bulkhead.cpu.reserved: unknown; did you mean dev.bulkhead.cpu.reserve?"
    );
}

#[test]
fn a_wrong_value_is_refused_with_what_it_may_be() {
    for (key, value) in [
        ("cpu.reserve", "lots"),
        ("cpu.share", "0"),
        ("memory.reserve", "-1"),
        ("lease.ttl", "0s"),
        ("network", "a/b"),
        ("isolation", "jail"),
        ("rootfs.upper", "up"),
        ("rootfs.volatile", "yes"),
    ] {
        let text = asked(&[(key, value)]).unwrap_err().to_string();
        assert!(
            text.contains(&format!("{PREFIX}{key}: {value:?} is not")),
            "{text}"
        );
    }
}

#[test]
fn what_has_no_meaning_alone_is_refused() {
    for (key, value) in [
        ("network.publish", "1:1"),
        ("lease.on_expiry", "stop"),
        ("rootfs.upper", "/u"),
        ("rootfs.work", "/w"),
        ("rootfs.volatile", "true"),
    ] {
        let text = asked(&[(key, value)]).unwrap_err().to_string();
        assert!(text.contains("has no meaning without"), "{text}");
    }
}

#[test]
fn the_list_of_names_is_sorted() {
    assert!(KEYS.is_sorted());
}
