//! The oci-spec crate beside our own types: what one writes the other reads as the same.

use std::collections::BTreeSet;

use bulkhead::spec::Spec;
use serde_json::Value;

const EVERY_PROPERTY: &str = include_str!("../../../runtime-spec/examples/every-property.json");

/// Every value with its path, without those that say nothing: `null`, `false`, 0, empty texts.
fn flat(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Array(list) => {
            // Capabilities are sets: the crate gives them back in any order.
            let is_set = path.contains(".capabilities.");
            for (index, inner) in list.iter().enumerate() {
                let index = if is_set { 0 } else { index };
                flat(inner, &format!("{path}[{index}]"), found);
            }
        }
        Value::Object(map) => {
            for (key, inner) in map {
                flat(inner, &format!("{path}.{key}"), found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            found.extend((!is_nothing(value)).then(|| format!("{path} = {value}")));
        }
    }
}

fn is_nothing(value: &Value) -> bool {
    let nothing = [
        Value::Null,
        Value::Bool(false),
        Value::from(0),
        Value::from(""),
    ];
    nothing.contains(value)
}

fn lines(value: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    flat(value, "", &mut found);
    found
}

/// Where the two readers do not find the same in a document: first what only we find, then what only they do.
fn differences(document: &str) -> (Vec<String>, Vec<String>) {
    let ours = Spec::parse(document.as_bytes()).unwrap();
    let theirs: oci_spec::runtime::Spec = serde_json::from_str(document).unwrap();
    let ours = lines(&serde_json::to_value(ours).unwrap());
    let theirs = lines(&serde_json::to_value(theirs).unwrap());
    let more = ours.difference(&theirs).cloned().collect();
    (more, theirs.difference(&ours).cloned().collect())
}

#[test]
fn the_default_document_of_the_other_is_read_as_it_stands() {
    let document = serde_json::to_string(&oci_spec::runtime::Spec::default()).unwrap();
    assert_eq!(differences(&document), (Vec::new(), Vec::new()));
}

#[test]
fn the_rootless_document_of_the_other_is_read_as_it_stands() {
    let spec = oci_spec::runtime::Spec::rootless(1000, 1000);
    let document = serde_json::to_string(&spec).unwrap();
    assert_eq!(differences(&document), (Vec::new(), Vec::new()));
}

#[test]
fn our_own_documents_mean_the_same_to_the_other() {
    for spec in [Spec::starter(), Spec::starter_rootless(1000, 100)] {
        let document = serde_json::to_string(&spec).unwrap();
        assert_eq!(differences(&document), (Vec::new(), Vec::new()));
    }
}

#[test]
fn every_property_means_the_same_to_both() {
    let mut document: Value = serde_json::from_str(EVERY_PROPERTY).unwrap();
    let both = document.as_object_mut().unwrap();
    both.remove("vm");
    let document = document.to_string();
    assert_eq!(differences(&document), (Vec::new(), Vec::new()));
}
