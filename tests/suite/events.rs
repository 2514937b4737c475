//! `events`: what is used, by one workspace or many, and what happens to them.

use std::io::BufRead;
use std::io::BufReader;
use std::process::Child;
use std::process::Stdio;

use serde_json::Value;
use serde_json::json;

use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::home::eventually;

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A command that goes on reporting, and its lines.
fn following(home: &Home, arguments: &[&str]) -> (Child, impl Iterator<Item = Value> + use<>) {
    let mut child = home
        .command()
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let values = lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap());
    (child, values)
}

#[test]
fn one_call_reports_on_many() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), Bundle::new(&["sleep", "1000"]));
    let ids = [home.id(), home.id()];
    ids.iter().for_each(|id| home.start(&bundle, id));
    let said = home.bulkhead(["events", "--stats", &ids[0], &ids[1]]).ok();
    let found = lines(&said);
    let named: Vec<&str> = found
        .iter()
        .map(|line| line["id"].as_str().unwrap())
        .collect();
    assert_eq!(named, ids);
    let data = &found[0]["data"];
    assert!(data["cpu"]["usage"]["total"].as_u64().unwrap() > 0);
    assert_eq!(data["network_interfaces"], json!([]));
}

#[test]
fn limits_and_use_are_reported_together() {
    need!(root, limits);
    let home = Home::new();
    let bundle = Bundle::new(&["sleep", "1000"]).with(|config| {
        config["linux"]["resources"] = json!({
            "memory": {"limit": 67_108_864, "swap": 100_663_296},
            "pids": {"limit": 9},
        });
    });
    let id = home.id();
    home.start(&bundle, &id);
    let said = home.bulkhead(["events", "--stats", &id]).ok();
    let data = &lines(&said)[0]["data"];
    assert_eq!(data["memory"]["usage"]["limit"], 67_108_864);
    assert_eq!(data["memory"]["swap"]["limit"], 100_663_296);
    assert_eq!(data["pids"], json!({"current": 1, "limit": 9}));
    assert!(data["memory"]["raw"]["anon"].as_u64().is_some());
}

#[test]
fn reports_go_on_until_the_workspace_ends() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), Bundle::new(&["sleep", "1000"]));
    let id = home.id();
    home.start(&bundle, &id);
    let (mut child, mut reports) = following(&home, &["events", "--interval", "20ms", &id]);
    assert_eq!(reports.next().unwrap()["type"], "stats");
    assert_eq!(reports.next().unwrap()["type"], "stats");
    home.bulkhead(["kill", &id, "KILL"]).ok();
    assert_eq!(reports.filter(|line| line["type"] != "stats").count(), 0);
    assert!(child.wait().unwrap().success());
}

#[test]
fn memory_that_ran_out_is_reported_as_it_happens() {
    need!(root, limits);
    let home = Home::new();
    let glutton = "until test -e /tmp/go; do sleep 0.1; done
                   x=$(dd if=/dev/zero bs=1M count=64 | cat -v)";
    let bundle = Bundle::shell(glutton).with(|config| {
        config["linux"]["resources"] = json!({"memory": {"limit": 16_777_216, "swap": 16_777_216}});
    });
    let id = home.id();
    home.start(&bundle, &id);
    let (mut child, mut reports) = following(&home, &["events", "--interval", "50ms", &id]);
    assert_eq!(reports.next().unwrap()["type"], "stats");
    std::fs::write(bundle.rootfs("tmp/go"), "").unwrap();
    let happened = reports.find(|line| line["type"] == "oom").unwrap();
    assert_eq!(happened, json!({"type": "oom", "id": id}));
    reports.for_each(drop);
    assert!(child.wait().unwrap().success());
}

#[test]
fn what_has_ended_is_not_reported_on() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), Bundle::new(&["true"]));
    let id = home.id();
    home.start(&bundle, &id);
    eventually("the end", || home.status(&id) == "stopped");
    let refused = home.bulkhead(["events", "--stats", &id]).failed();
    assert!(refused.contains("not running"), "{refused}");
}
