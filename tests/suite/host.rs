//! `host`: what is said of this machine, for people and for programs.

use serde_json::Value;

use crate::need;
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

#[test]
fn kvm_is_named_and_is_usable_or_has_a_way_out() {
    let document = document();
    let findings = document["findings"].as_array().unwrap();
    let kvm = findings.iter().find(|finding| finding["name"] == "KVM");
    let kvm = kvm.unwrap();
    let found = kvm["found"].as_str().unwrap();
    let names = ["VT-x", "SVM", "PVM", "neither VT-x nor SVM", "no "];
    assert!(names.iter().any(|name| found.starts_with(name)), "{found}");
    assert_eq!(kvm["usable"] == true, kvm["remedy"].is_null());
}

#[test]
fn a_guest_runs_in_the_test_machine_and_not_where_guests_must_be_made_for_it() {
    need!(kvm);
    let document = document();
    let findings = document["findings"].as_array().unwrap();
    let kvm = findings.iter().find(|finding| finding["name"] == "KVM");
    let in_software = std::path::Path::new("/sys/module/kvm_pvm").exists();
    assert_eq!(kvm.unwrap()["usable"], !in_software, "{kvm:?}");
}
