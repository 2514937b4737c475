//! The schema and the reference of the document against the types that are read.

use std::collections::BTreeSet;
use std::fs;

use bulkhead::spec::workspace;
use serde_json::Value;

use super::folder;
use super::right_documents;

const REFERENCE: &str = include_str!("../../../runtime-spec/workspace.md");

fn schema() -> Value {
    serde_json::from_str(&workspace::schema().unwrap()).unwrap()
}

/// The object that a part of the schema stands for: what it refers to, past `null`.
fn resolved<'a>(schema: &'a Value, mut part: &'a Value) -> &'a Value {
    loop {
        let choice = part["anyOf"].as_array().map(|choices| &choices[0]);
        let choice = choice.filter(|choice| choice.get("$ref").is_some());
        let named = part["$ref"]
            .as_str()
            .or(choice.and_then(|choice| choice["$ref"].as_str()));
        let Some(named) = named else { return part };
        part = schema.pointer(named.trim_start_matches('#')).unwrap();
    }
}

/// The paths of all keys: `network.in.limit`, `mount[].source`.
fn keys(schema: &Value, part: &Value, path: &str, found: &mut BTreeSet<String>) {
    let part = resolved(schema, part);
    if let Some(items) = part.get("items") {
        keys(schema, items, &format!("{path}[]"), found);
    }
    for (name, below) in part["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}").trim_start_matches('.').to_owned();
        keys(schema, below, &path, found);
        found.insert(path);
    }
}

fn all_keys() -> BTreeSet<String> {
    let schema = schema();
    let mut found = BTreeSet::new();
    keys(&schema, &schema, "", &mut found);
    found
}

/// Keys of a document that the schema does not have.
fn unknown(schema: &Value, part: &Value, value: &Value, path: &str) -> Vec<String> {
    let part = resolved(schema, part);
    match value {
        Value::Array(list) => list
            .iter()
            .flat_map(|inner| unknown(schema, &part["items"], inner, path))
            .collect(),
        Value::Object(map) if part["additionalProperties"] == Value::Bool(false) => map
            .iter()
            .flat_map(|(key, inner)| match part["properties"].get(key) {
                Some(below) => unknown(schema, below, inner, &format!("{path}.{key}")),
                None => vec![format!("{path}.{key}")],
            })
            .collect(),
        Value::Object(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            Vec::new()
        }
    }
}

#[test]
fn the_schema_in_the_specification_is_that_of_the_types() {
    let path = folder("runtime-spec/schema/workspace.schema.json");
    let generated = workspace::schema().unwrap();
    if std::env::var_os("BULKHEAD_BLESS").is_some() {
        fs::write(&path, &generated).unwrap();
    }
    let kept = fs::read_to_string(path).unwrap();
    assert!(
        kept == generated,
        "the types have changed: bulkhead schema >runtime-spec/schema/workspace.schema.json"
    );
}

#[test]
fn right_documents_have_only_keys_of_the_schema() {
    let schema = schema();
    for path in right_documents() {
        let text = fs::read_to_string(&path).unwrap();
        let value: Value = toml::from_str(&text).unwrap();
        assert_eq!(
            unknown(&schema, &schema, &value, ""),
            Vec::<String>::new(),
            "{}",
            path.display()
        );
    }
}

#[test]
fn a_key_that_is_not_in_the_schema_is_noticed() {
    let schema = schema();
    let value = serde_json::json!({ "network": { "in": { "limt": 1 } }, "mount": [{ "to": 1 }] });
    assert_eq!(
        unknown(&schema, &schema, &value, ""),
        [".mount.to", ".network.in.limt"]
    );
}

#[test]
fn the_reference_has_a_row_for_each_key_and_no_other() {
    let rows = REFERENCE
        .lines()
        .filter_map(|line| line.strip_prefix("| `"));
    let cells: Vec<Vec<&str>> = rows.map(|row| row.split(" | ").collect()).collect();
    let of_keys = cells.iter().filter(|cells| cells.len() == 6);
    let named: Vec<String> = of_keys.map(|cells| cells[0].replace('`', "")).collect();
    let once: BTreeSet<String> = named.iter().cloned().collect();
    assert_eq!(once.len(), named.len(), "a key has two rows");
    let keys = all_keys();
    let missing: Vec<&String> = keys.difference(&once).collect();
    let unknown: Vec<&String> = once.difference(&keys).collect();
    assert_eq!((missing, unknown), (Vec::new(), Vec::new()));
}

#[test]
fn an_example_has_every_key() {
    let text = include_str!("../../../runtime-spec/examples/valid/workspace-every-key.toml");
    let value: Value = toml::from_str(text).unwrap();
    let mut found = BTreeSet::new();
    present(&value, "", &mut found);
    let keys = all_keys();
    let absent: Vec<&String> = keys.difference(&found).collect();
    assert_eq!(absent, Vec::<&String>::new());
}

fn present(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    found.insert(path.to_owned());
    match value {
        Value::Array(list) => {
            for inner in list {
                present(inner, &format!("{path}[]"), found);
            }
        }
        Value::Object(map) => {
            for (key, inner) in map {
                let path = format!("{path}.{key}");
                present(inner, path.trim_start_matches('.'), found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
