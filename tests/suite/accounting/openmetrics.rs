//! A reader of OpenMetrics text that accepts nothing but what the format allows, for what we write.

use std::collections::BTreeMap;

use bulkhead::accounting::openmetrics;
use serde_json::json;

/// Samples by family: name with suffix, labels, value.
type Families = BTreeMap<String, Family>;

#[derive(Debug, Default)]
struct Family {
    kind: String,
    unit: Option<String>,
    help: Option<String>,
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

/// Reads the whole text, and fails at the first line that the format does not allow.
fn read(text: &str) -> Families {
    let body = text.strip_suffix("# EOF\n").expect_end();
    let mut families = Families::new();
    let mut current = String::new();
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.splitn(3, ' ');
            let (what, name) = (words.next().unwrap(), words.next().unwrap());
            let value = words.next().unwrap().to_owned();
            if name != current {
                assert!(!families.contains_key(name), "{name} stands in two places");
                name.clone_into(&mut current);
            }
            let family = families.entry(name.to_owned()).or_default();
            assert!(family.samples.is_empty(), "{line}: after its samples");
            match what {
                "TYPE" => family.kind = value,
                "UNIT" => family.unit = Some(value),
                _ => {
                    assert_eq!(what, "HELP", "{line}");
                    family.help = Some(value);
                }
            }
            continue;
        }
        sample(line, &current, &mut families);
    }
    families
}

fn sample(line: &str, current: &str, families: &mut Families) {
    let (name, rest) = line.split_once('{').unwrap();
    let (labels, value) = rest.rsplit_once("} ").unwrap();
    let family = families.get_mut(current).unwrap();
    assert!(
        ["counter", "gauge"].contains(&family.kind.as_str()),
        "{line}"
    );
    let expected = match family.kind.as_str() {
        "counter" => format!("{current}_total"),
        _ => current.to_owned(),
    };
    assert_eq!(name, expected, "{line}");
    let labels = read_labels(labels);
    let known = |sample: &(String, BTreeMap<String, String>, f64)| sample.1 == labels;
    assert!(!family.samples.iter().any(known), "{line}: twice");
    let value: f64 = value.parse().unwrap();
    family.samples.push((name.to_owned(), labels, value));
}

fn read_labels(mut text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"").unwrap();
        let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        assert!(name.chars().all(plain), "{name} is no name of a label");
        let (value, rest) = read_value(rest);
        assert!(labels.insert(name.to_owned(), value).is_none());
        text = rest.strip_prefix(',').unwrap_or(rest);
    }
    labels
}

/// A value up to its quote, and what stands behind.
fn read_value(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut letters = text.char_indices();
    loop {
        match letters.next().unwrap() {
            (at, '"') => return (value, &text[at + 1..]),
            (_, '\\') => {
                let letter = letters.next().unwrap().1;
                assert!("n\"\\".contains(letter), "\\{letter} is no escape");
                value.push(if letter == 'n' { '\n' } else { letter });
            }
            (_, letter) => value.push(letter),
        }
    }
}

trait ExpectEnd<'a> {
    fn expect_end(self) -> &'a str;
}

impl<'a> ExpectEnd<'a> for Option<&'a str> {
    #[track_caller]
    fn expect_end(self) -> &'a str {
        self.filter(|body| !body.contains("# EOF")).unwrap()
    }
}

/// What a workspace has used, with everything in it.
pub(super) fn full() -> bulkhead::accounting::Usage {
    let role = json!({"total_us": 1, "guest_us": 1});
    let pressure = json!({"some_us": 2_500_000, "full_us": 1, "some_avg10_percent": 0.5,
        "full_avg10_percent": 0.25});
    let value = json!({
        "id": "web", "created": "2026-01-01T00:00:00Z", "boot": "b", "at": "2026-01-01T00:00:01Z",
        "isolation": "container",
        "cpu": {
            "total_us": 1_500_000, "user_us": 1_000_000, "system_us": 500_000, "throttled_us": 7,
            "hold_ms": 1234,
            "roles": {"workload": role, "vmm": role, "fileserver": role, "vhost": role, "proxy": role},
            "on_behalf": {"how": "estimated", "us": 9, "network_softirq_us": 9},
        },
        "memory": {"current_bytes": 10, "guest_bytes": 6, "overhead_bytes": 3, "peak_bytes": 20, "swap_current_bytes": 1,
            "by_kind": {"anon_bytes": 1, "file_bytes": 2, "shmem_bytes": 3, "kernel_bytes": 4,
                "slab_bytes": 5, "sock_bytes": 6},
            "events": {"high": 1, "max": 2, "oom": 3, "oom_kill": 4}},
        "io": {"devices": {"8:0": {"read_bytes": 1, "written_bytes": 2, "discarded_bytes": 3,
            "read_operations": 4, "write_operations": 5, "discard_operations": 6}}},
        "pids": {"current": 3},
        "network": {"eth\"0": {"in_bytes": 1, "in_packets": 2, "in_drops": 3, "out_bytes": 4,
            "out_packets": 5, "out_drops": 6}},
        "pressure": {"cpu": pressure, "memory": pressure, "io": pressure},
        "lease": {"granted_s": 10, "used_s": 4, "remaining_s": 6},
        "energy": {"how": "estimated", "package_uj": 42},
        "machine": {"exits": 1000, "halts": 100, "halt_polling_us": 7000},
    });
    serde_json::from_value(value).unwrap()
}

#[test]
fn nothing_is_only_the_end() {
    assert_eq!(openmetrics::text(&[]), "# EOF\n");
}

#[test]
fn everything_is_written_as_the_format_wants_it() {
    let mut other = full();
    other.id = "db".parse().unwrap();
    let families = read(&openmetrics::text(&[full(), other]));
    assert_eq!(families.len(), 24);
    for (name, family) in &families {
        assert!(
            family.help.as_ref().is_some_and(|help| help.ends_with('.')),
            "{name}"
        );
        let unit = family.unit.as_deref().unwrap_or_default();
        assert!(
            name.ends_with(unit),
            "{name} does not end with its unit {unit}"
        );
        assert_eq!(family.samples.len() % 2, 0, "{name} lacks a workspace");
    }
}

#[test]
fn values_are_in_base_units_and_exact() {
    let families = read(&openmetrics::text(&[full()]));
    let value = |name: &str, label: (&str, &str)| {
        let samples = families[name].samples.iter();
        let mut values = samples
            .filter(|(_, labels, _)| labels.get(label.0).is_some_and(|word| word == label.1));
        values.next().unwrap().2.to_string()
    };
    assert_eq!(value("bulkhead_cpu_seconds", ("mode", "system")), "0.5");
    assert_eq!(value("bulkhead_cpu_hold_seconds", ("id", "web")), "1.234");
    assert_eq!(
        value("bulkhead_pressure_seconds", ("resource", "io")),
        "2.5"
    );
    assert_eq!(value("bulkhead_energy_joules", ("id", "web")), "0.000042");
    assert_eq!(
        value("bulkhead_network_bytes", ("interface", "eth\"0")),
        "1"
    );
}

/// The text of a real command is read by the same reader.
pub(super) fn ids(text: &str) -> Vec<String> {
    let families = read(text);
    let samples = families["bulkhead_cpu_seconds"].samples.iter();
    let mut ids: Vec<String> = samples.map(|(_, labels, _)| labels["id"].clone()).collect();
    ids.dedup();
    ids
}
