//! `update`: limits change while a workspace runs, and only those that were named.

use std::path::PathBuf;

use serde_json::json;

use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;

/// A file of the cgroup in which the first process of a workspace is.
fn limit(home: &Home, id: &str, file: &str) -> String {
    let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", home.pid(id))).unwrap();
    let group = groups
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .unwrap();
    let path = PathBuf::from("/sys/fs/cgroup").join(group).join(file);
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

fn limited() -> Bundle {
    Bundle::new(&["sleep", "1000"]).with(|config| {
        config["linux"]["resources"] = json!({
            "memory": {"limit": 67_108_864},
            "pids": {"limit": 50},
            "cpu": {"quota": 50000, "period": 100_000, "shares": 1024},
        });
    })
}

#[test]
fn options_with_units_change_what_they_name_and_nothing_else() {
    need!(root, limits);
    let (home, bundle) = (Home::new(), limited());
    let id = home.id();
    home.start(&bundle, &id);
    home.bulkhead(["update", "--memory", "128m", "--pids-limit", "-1", &id])
        .ok();
    assert_eq!(limit(&home, &id, "memory.max"), "134217728");
    assert_eq!(limit(&home, &id, "pids.max"), "max");
    assert_eq!(limit(&home, &id, "cpu.max"), "50000 100000");
}

#[test]
fn resources_are_read_from_standard_input_and_zero_leaves_alone() {
    need!(root, limits);
    let (home, bundle) = (Home::new(), limited());
    let id = home.id();
    home.start(&bundle, &id);
    let docker = json!({
        "memory": {"limit": 100_663_296, "reservation": 0, "swap": 100_663_296, "kernel": 0},
        "cpu": {"shares": 0, "quota": 20000, "period": 100_000},
        "blockIO": {"weight": 0},
    });
    home.bulkhead_reading(&["update", "--resources=-", &id], &docker.to_string())
        .ok();
    assert_eq!(limit(&home, &id, "memory.max"), "100663296");
    assert_eq!(limit(&home, &id, "cpu.max"), "20000 100000");
    assert_eq!(limit(&home, &id, "pids.max"), "50");
}

#[test]
fn resources_are_read_from_a_file() {
    need!(root, limits);
    let (home, bundle) = (Home::new(), limited());
    let id = home.id();
    home.start(&bundle, &id);
    let file = home.beside("resources.json");
    std::fs::write(&file, json!({"pids": {"limit": 7}}).to_string()).unwrap();
    home.bulkhead(["update", "-r", file.to_str().unwrap(), &id])
        .ok();
    assert_eq!(limit(&home, &id, "pids.max"), "7");
}

#[test]
fn what_has_ended_has_no_limits_to_change() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::new(&["true"]);
    let id = home.id();
    home.start(&bundle, &id);
    home.bulkhead(["wait", &id]);
    let refused = home.bulkhead(["update", "--pids-limit", "5", &id]).failed();
    assert!(refused.contains("container not running"), "{refused}");
}

#[test]
fn shares_of_the_cache_need_a_class_and_change_nothing_without_one() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), Bundle::new(&["sleep", "1000"]));
    let id = home.id();
    home.start(&bundle, &id);
    let refused = home.bulkhead(["update", "--l3-cache-schema", "L3:0=f", &id]);
    assert!(refused.failed().contains("in no class of Intel RDT"));
}
