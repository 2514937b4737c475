//! What the program may do: the five sets of capabilities, for the first program and for more, and no way to more.

use serde_json::Value;
use serde_json::json;

use super::inside;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;

const STATUS: &str = "grep -E '^(Cap|NoNewPrivs)' /proc/self/status | busybox tr '\\t\\n' '  '";

/// What the status says: inheritable, permitted, effective, bounding, ambient, and `no_new_privs`.
fn status(sets: [&str; 5], no_new_privileges: u32) -> String {
    let [inheritable, permitted, effective, bounding, ambient] =
        sets.map(|set| format!("{set:0>16}"));
    format!(
        "CapInh: {inheritable} CapPrm: {permitted} CapEff: {effective} CapBnd: {bounding} \
         CapAmb: {ambient} NoNewPrivs: {no_new_privileges}"
    )
}

fn all_sets(config: &mut Value, names: &[&str]) {
    for set in [
        "bounding",
        "effective",
        "permitted",
        "inheritable",
        "ambient",
    ] {
        config["process"]["capabilities"][set] = json!(names);
    }
}

#[test]
fn root_has_what_was_asked_for_and_nothing_inheritable() {
    need!(root, cgroup2);
    let expected = status(["0", "20000420", "20000420", "20000420", "0"], 1);
    assert_eq!(inside(STATUS, |_| {}), expected);
}

#[test]
fn without_capabilities_there_are_none() {
    need!(root, cgroup2);
    let seen = inside(STATUS, |config| {
        config["process"]
            .as_object_mut()
            .unwrap()
            .remove("capabilities");
        config["process"]["noNewPrivileges"] = json!(false);
    });
    assert_eq!(seen, status(["0"; 5], 0));
}

#[test]
fn another_user_has_only_what_is_ambient_after_execve() {
    need!(root, cgroup2);
    let plain = inside(STATUS, |config| {
        config["process"]["user"]["uid"] = json!(1000)
    });
    assert_eq!(plain, status(["0", "0", "0", "20000420", "0"], 1));
    let ambient = inside(STATUS, |config| {
        config["process"]["user"]["uid"] = json!(1000);
        all_sets(config, &["CAP_NET_BIND_SERVICE"]);
    });
    assert_eq!(ambient, status(["400"; 5], 1));
}

#[test]
fn capabilities_are_kept_when_a_filter_is_loaded_without_no_new_privs() {
    need!(root, cgroup2);
    let seen = inside(STATUS, |config| {
        config["process"]["noNewPrivileges"] = json!(false);
        config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["getcwd"], "action": "SCMP_ACT_ERRNO"}]});
    });
    assert_eq!(
        seen,
        status(["0", "20000420", "20000420", "20000420", "0"], 0)
    );
    let ambient = inside(STATUS, |config| {
        config["process"]["noNewPrivileges"] = json!(false);
        config["process"]["user"]["uid"] = json!(1000);
        all_sets(config, &["CAP_NET_BIND_SERVICE"]);
        config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["getcwd"], "action": "SCMP_ACT_ERRNO"}]});
    });
    assert_eq!(ambient, status(["400"; 5], 0));
}

#[test]
fn an_exec_has_the_capabilities_of_its_container_and_those_that_it_asks_for() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), Bundle::new(&["sleep", "1000"]));
    let id = home.id();
    home.start(&bundle, &id);
    let plain = home.bulkhead(["exec", &id, "sh", "-c", STATUS]).ok();
    let same = status(["0", "20000420", "20000420", "20000420", "0"], 1);
    assert_eq!(plain.trim_end(), same);
    let more = home
        .bulkhead(["exec", "--cap", "CAP_SYS_PTRACE", &id, "sh", "-c", STATUS])
        .ok();
    let with = status(["0", "20080420", "20080420", "20080420", "0"], 1);
    assert_eq!(more.trim_end(), with);
    let guest = home
        .bulkhead(["exec", "--user", "1000", &id, "sh", "-c", STATUS])
        .ok();
    let none = status(["0", "0", "0", "20000420", "0"], 1);
    assert_eq!(guest.trim_end(), none);
}

#[test]
fn all_capabilities_are_all_that_the_kernel_knows() {
    need!(root, cgroup2);
    let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap();
    let host = std::fs::read_to_string("/proc/self/status").unwrap();
    let bounding = host
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:\t"))
        .unwrap();
    let seen = inside("grep CapEff /proc/self/status", |config| {
        let names: Vec<String> = serde_json::from_value(every_name()).unwrap();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = json!(names);
        }
    });
    assert_eq!(last.trim_end(), "40");
    assert_eq!(seen, format!("CapEff:\t{bounding}"));
}

/// As `features` lists them.
fn every_name() -> Value {
    let features: Value = serde_json::from_str(&Home::new().bulkhead(["features"]).ok()).unwrap();
    features["linux"]["capabilities"].clone()
}

#[test]
fn a_capability_that_nobody_knows_is_told_and_left_out() {
    need!(root, cgroup2);
    let bundle = Bundle::shell("grep CapEff /proc/self/status").with(|config| {
        all_sets(config, &["CAP_KILL", "CAP_OF_TOMORROW"]);
    });
    let said = Home::new().run(&bundle);
    assert_eq!(said.out, "CapEff:\t0000000000000020\n");
    assert!(said.err.contains("CAP_OF_TOMORROW"), "{}", said.err);
}
