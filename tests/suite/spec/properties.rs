//! The table of properties in `runtime-spec/oci.md` against the code that reads them, both ways.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use bulkhead::spec::Spec;
use bulkhead::spec::mount_options;
use serde_json::Value;

use super::walk::leaves;
use super::walk::properties_of;

const TABLE: &str = include_str!("../../../runtime-spec/oci.md");
const EVERY_PROPERTY: &str = include_str!("../../../runtime-spec/examples/every-property.json");

/// Where the keys are the user's own and not names of properties.
const MAPS: [&str; 6] = [
    "annotations",
    "linux.sysctl",
    "linux.netDevices",
    "linux.timeOffsets",
    "linux.resources.rdma",
    "linux.resources.unified",
];

const OUTCOMES: [&str; 8] = [
    "honoured",
    "ignored",
    "ignored with a warning",
    "v1 only: refused",
    "v1 only: ignored with a warning",
    "microVM: honoured",
    "microVM: ignored",
    "microVM: refused",
];

/// The rows of the tables whose first cell is a single property: the property and what happens to it.
fn rows() -> Vec<(String, String)> {
    let rows = TABLE.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| {
        let mut cells = row.split(" | ");
        let property = cells.next()?.strip_suffix('`')?;
        let outcome = cells.next()?;
        let is_property = !property.contains(' ') && cells.next().is_some();
        is_property.then(|| (property.to_owned(), outcome.to_owned()))
    })
    .collect()
}

fn table() -> BTreeMap<String, String> {
    rows().into_iter().collect()
}

fn paths_in(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    found.insert(path.to_owned());
    match value {
        Value::Array(list) => {
            for inner in list {
                paths_in(inner, &format!("{path}[]"), found);
            }
        }
        Value::Object(map) => {
            for (key, inner) in map {
                let key = if MAPS.contains(&path) { "*" } else { key };
                paths_in(
                    inner,
                    format!("{path}.{key}").trim_start_matches('.'),
                    found,
                );
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What only the one has, and what only the other has.
type Differences = (Vec<String>, Vec<String>);

const NONE: Differences = (Vec::new(), Vec::new());

fn differences(one: &BTreeSet<String>, other: &BTreeSet<String>) -> Differences {
    let left = one.difference(other).cloned().collect();
    (left, other.difference(one).cloned().collect())
}

#[test]
fn no_property_stands_twice_in_the_table() {
    assert_eq!(table().len(), rows().len());
}

#[test]
fn the_table_says_one_of_few_things_of_each_property() {
    let table = table();
    let other = table
        .iter()
        .filter(|(_, outcome)| !OUTCOMES.contains(&outcome.as_str()));
    assert_eq!(other.collect::<Vec<_>>(), []);
}

#[test]
fn the_example_has_exactly_the_properties_of_the_table() {
    let mut found = BTreeSet::new();
    paths_in(
        &serde_json::from_str(EVERY_PROPERTY).unwrap(),
        "",
        &mut found,
    );
    found.remove("");
    assert_eq!(
        differences(&leaves(&found), &table().into_keys().collect()),
        NONE
    );
}

#[test]
fn what_is_read_stands_in_the_table_and_what_has_an_effect_is_read() {
    let table = table();
    let read = properties_of::<Spec>();
    let unnamed = read.iter().filter(|path| !table.contains_key(*path));
    let effective = table.iter().filter(|(_, outcome)| *outcome != "ignored");
    let unread = effective
        .map(|(path, _)| path)
        .filter(|path| !read.contains(*path));
    assert_eq!(
        unnamed.chain(unread).collect::<Vec<_>>(),
        Vec::<&String>::new()
    );
}

#[test]
fn every_mount_option_stands_in_the_document() {
    let section = TABLE.split("## Mount options").nth(1).unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = rows.filter_map(|row| row.split(" | ").next());
    let words = cells.flat_map(|cell| cell.split(' ').map(|word| word.trim_matches('`')));
    let documented: BTreeSet<&str> = words.collect();
    assert_eq!(
        documented,
        mount_options::known_words().collect::<BTreeSet<_>>()
    );
}

#[test]
fn a_document_with_every_property_is_accepted() {
    let spec = Spec::parse(EVERY_PROPERTY.as_bytes()).unwrap();
    let warnings = spec.validate().unwrap();
    let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn what_a_machine_is_refused_for_stands_in_the_document() {
    let rows = TABLE
        .lines()
        .filter_map(|line| line.strip_prefix("| refused | `"));
    let documented: Vec<(&str, &str)> = rows
        .filter_map(|row| row.strip_suffix(" |")?.split_once("` | "))
        .collect();
    let refused = bulkhead::plan::machine::REFUSED.iter();
    let coded: Vec<(&str, &str)> = refused.map(|one| (one.property, one.when)).collect();
    assert_eq!(documented, coded);
}
