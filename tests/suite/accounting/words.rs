//! Every key that is written stands in `runtime-spec/accounting.md`, and every key there is written.

use std::collections::BTreeSet;

use bulkhead::accounting::ledger::entry::Entry;
use bulkhead::accounting::ledger::entry::Kind;
use bulkhead::accounting::ledger::entry::Reason;
use bulkhead::accounting::ledger::sums::Sum;
use serde_json::Value;

use crate::accounting::openmetrics::full;

/// The first column of the tables below a heading.
fn documented(heading: &str) -> BTreeSet<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/runtime-spec/accounting.md");
    let text = std::fs::read_to_string(path).unwrap();
    let section = text.split("\n## ").find(|part| part.starts_with(heading));
    let rows = section.unwrap().lines();
    rows.filter_map(|line| Some(line.strip_prefix("| `")?.split('`').next()?.to_owned()))
        .collect()
}

/// The paths of all leaves; names that the machine gives are a `*`.
fn keys(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    let Value::Object(map) = value else {
        found.insert(path.to_owned());
        return;
    };
    for (key, value) in map {
        let named = ["io.devices", "network", "annotations"].contains(&path);
        let key = if named { "*" } else { key };
        let path = match path {
            "" => key.to_owned(),
            before => format!("{before}.{key}"),
        };
        keys(value, &path, found);
    }
}

#[test]
fn every_key_of_the_usage_stands_in_the_table() {
    let mut written = BTreeSet::new();
    keys(&serde_json::to_value(full()).unwrap(), "", &mut written);
    assert_eq!(written, documented("The keys"));
}

#[test]
fn every_key_of_the_ledger_stands_in_the_table() {
    let entry = Entry {
        version: 1,
        kind: Kind::Ended,
        reason: Some(Reason::Killed),
        exit_status: Some(0),
        signal: Some(9),
        annotations: [("a".to_owned(), "b".to_owned())].into(),
        usage: full(),
    };
    let mut value = serde_json::to_value(entry).unwrap();
    value["usage"] = Value::Null;
    let mut written = BTreeSet::new();
    keys(&value, "", &mut written);
    assert_eq!(written, documented("The ledger"));
}

#[test]
fn every_column_of_a_sum_stands_in_the_table() {
    let columns = Sum::default().columns().into_iter();
    let columns = columns.map(|(name, _)| name.to_owned());
    let written: BTreeSet<String> = columns.chain(["group".to_owned()]).collect();
    assert_eq!(written, documented("Sums"));
}
