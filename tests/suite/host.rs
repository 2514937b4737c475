//! `host`: what is said of this machine, for people and for programs.

use serde_json::Value;

use crate::support::home::Home;

fn document() -> Value {
    let said = Home::new().bulkhead(["host", "--format", "json"]).ok();
    serde_json::from_str(&said).unwrap()
}

#[test]
fn what_is_missing_has_a_way_to_get_it() {
    let document = document();
    let findings = document["findings"].as_array().unwrap();
    let unhelpful: Vec<&Value> = findings
        .iter()
        .filter(|finding| finding["usable"] == false && finding["remedy"].is_null())
        .collect();
    assert_eq!(unhelpful, Vec::<&Value>::new());
}

#[test]
fn the_layout_of_cgroups_is_told_with_each_controller() {
    let document = document();
    let mode = document["host"]["cgroup"]["mode"].as_str().unwrap();
    assert!(["unified", "hybrid", "legacy", "none"].contains(&mode));
    let controllers = document["findings"].as_array().unwrap();
    let named = |name: &str| controllers.iter().any(|finding| finding["name"] == name);
    assert!(named("memory controller") && named("pids controller"));
}

#[test]
fn the_table_says_the_same_under_headings() {
    let table = Home::new().bulkhead(["host"]).ok();
    let rows = table.lines().count();
    assert!(table.starts_with("AREA "), "{table}");
    assert_eq!(rows, document()["findings"].as_array().unwrap().len() + 1);
}

#[test]
fn another_format_is_refused() {
    let refused = Home::new().bulkhead(["host", "--format", "yaml"]).failed();
    assert!(refused.contains("invalid format option: yaml"), "{refused}");
}
