//! What is granted, what is refused and with which words, and who holds it for how long.

use super::Scene;
use super::cpus;
use super::create;
use super::read;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::eventually;
use crate::support::residue;

#[test]
fn what_is_free_is_granted_to_the_last_and_no_more() {
    need!(root, limits);
    let scene = Scene::new();
    scene.host_file("[reserve]\ncpu = 0.5\n");
    let free = scene.free("cpu", "millicpus");
    let first = scene.holding(&[("cpu.reserve", &cpus(free - 300))]);
    let (refused, id) = scene.try_to_hold(&[("cpu.reserve", "0.301")]);
    let text = refused.failed();
    assert!(
        text.contains("cpu.reserve: 0.301 CPUs asked, 0.3 free of"),
        "{text}"
    );
    assert!(
        text.contains(&format!("(0.5 kept for the host; {first} holds ")),
        "{text}"
    );
    assert_eq!(residue::of(&scene.home, &id), Vec::<String>::new());
    scene.holding(&[("cpu.reserve", "0.3")]);
    assert_eq!(scene.free("cpu", "millicpus"), 0);
}

#[test]
fn of_many_at_once_only_as_many_are_granted_as_there_is_for() {
    need!(root, limits);
    let scene = Scene::new();
    let free = scene.free("cpu", "millicpus");
    let third = cpus(free / 3);
    let granted = std::thread::scope(|scope| {
        let tries: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| scene.try_to_hold(&[("cpu.reserve", &third)]).0.status))
            .collect();
        let tries = tries.into_iter();
        tries
            .map(|one| one.join().unwrap())
            .filter(|status| *status == 0)
            .count()
    });
    assert_eq!(granted, 3);
}

#[test]
fn what_has_ended_holds_nothing() {
    need!(root, limits);
    let scene = Scene::new();
    let all = cpus(scene.free("cpu", "millicpus"));
    let first = scene.holding(&[("cpu.reserve", &all)]);
    scene.try_to_hold(&[("cpu.reserve", "0.001")]).0.failed();
    scene.home.bulkhead(["kill", &first, "KILL"]).ok();
    eventually("the end", || scene.home.status(&first) == "stopped");
    scene.holding(&[("cpu.reserve", &all)]);
}

#[test]
fn what_is_held_is_listed_with_its_holders() {
    need!(root, limits);
    let scene = Scene::new();
    let id = scene.holding(&[("cpu.reserve", "0.25"), ("memory.reserve", "64M")]);
    let cpu = scene.capacity("cpu");
    assert_eq!(cpu["granted_millicpus"], 250);
    assert_eq!(cpu["holders"][0]["id"], id.as_str());
    assert_eq!(cpu["holders"][0]["held_millicpus"], 250);
    assert_eq!(scene.capacity("memory")["granted_bytes"], 64 << 20);
    let table = scene.home.bulkhead(["capacity"]).ok();
    let line = table
        .lines()
        .find(|line| line.starts_with("memory"))
        .unwrap();
    assert!(line.ends_with(&format!("{id} 64M")), "{table}");
}

#[test]
fn memory_beyond_what_is_there_is_refused() {
    need!(root, limits);
    let scene = Scene::new();
    let free = scene.free("memory", "bytes");
    let asked = (free + 1).to_string();
    let text = scene.try_to_hold(&[("memory.reserve", &asked)]).0.failed();
    assert!(
        text.contains("memory.reserve: ") && text.contains("nobody holds any"),
        "{text}"
    );
}

#[test]
fn more_than_a_network_carries_is_refused_and_what_it_carries_can_be_said() {
    need!(root, cgroup2);
    let scene = Scene::new();
    scene.host_file("[network.lan]\nin = \"5mbit\"\n");
    let asked = [("network", "lan"), ("network.in.reserve", "10mbit")];
    let text = scene.try_to_hold(&asked).0.failed();
    assert!(text.contains("10mbit asked, 5mbit free of 5mbit"), "{text}");
}

#[test]
fn a_host_file_that_is_wrong_is_told_with_its_line() {
    need!(root, cgroup2);
    let scene = Scene::new();
    scene.host_file("[reserve]\ncpu = \"much\"\n");
    let text = scene.home.bulkhead(["capacity"]).failed();
    assert!(
        text.contains("@host.toml:2: reserve.cpu: \"much\" is not"),
        "{text}"
    );
}

#[test]
fn a_promise_outside_of_the_pool_is_refused_with_where_it_would_hold() {
    need!(root, limits);
    let scene = Scene::new();
    let id = scene.home.id();
    let bundle = Bundle::new(&["true"]).with(|config| {
        config["linux"]["cgroupsPath"] = serde_json::json!(format!("/{id}"));
        config["annotations"]["dev.bulkhead.cpu.reserve"] = serde_json::json!("0.1");
    });
    let text = create(&scene.home, &bundle, &id).failed();
    assert!(text.contains("say \"/bulkhead/NAME\""), "{text}");
}

#[test]
fn whoever_asks_for_nothing_takes_no_lock() {
    need!(root, cgroup2);
    let scene = Scene::new();
    scene.holding(&[]);
    assert!(!scene.home.root().join("@admission.lock").exists());
}

#[test]
fn a_workspace_is_promised_more_and_less_while_it_runs() {
    need!(root, limits);
    let scene = Scene::new();
    let free = scene.free("cpu", "millicpus");
    let id = scene.holding(&[]);
    let update = |options: &[&str]| scene.home.bulkhead([&["update"], options, &[&id]].concat());
    update(&["--cpu-reserve", &cpus(free), "--memory-reserve", "32M"]).ok();
    assert_eq!(scene.free("cpu", "millicpus"), 0);
    assert_eq!(scene.read(&id, "memory.min"), (32 << 20).to_string());
    assert_eq!(
        read(&scene.pool.path().join("memory.min")),
        (32 << 20).to_string()
    );
    update(&["--cpu-reserve", "0", "--memory-reserve", "0"]).ok();
    assert_eq!(scene.free("cpu", "millicpus"), free);
    assert_eq!(scene.read(&id, "memory.min"), "0");
    assert_eq!(read(&scene.pool.path().join("memory.min")), "0");
}

#[test]
fn a_refused_change_leaves_everything_as_it_was() {
    need!(root, limits);
    let scene = Scene::new();
    let free = scene.free("cpu", "millicpus");
    scene.holding(&[("cpu.reserve", &cpus(free - 200))]);
    let id = scene.holding(&[("cpu.reserve", "0.1"), ("memory.reserve", "8M")]);
    let standing = || {
        let files = ["cpu.weight", "cpu.max", "memory.min", "memory.max"];
        let files = files.map(|file| scene.read(&id, file)).to_vec();
        (files, scene.home.state(&id)["annotations"].clone())
    };
    let before = standing();
    let refused = scene.home.bulkhead([
        "update",
        "--cpu-reserve",
        "0.5",
        "--memory-limit",
        "64M",
        "--pids-limit",
        "9",
        &id,
    ]);
    let text = refused.failed();
    assert!(
        text.contains("cpu.reserve: 0.5 CPUs asked, 0.2 free"),
        "{text}"
    );
    assert_eq!(standing(), before);
    // The second limit is taken by this program and refused by the kernel, the first having been written.
    let refused = scene.home.bulkhead([
        "update",
        "--cpu-reserve",
        "0.15",
        "--memory-limit",
        "64M",
        "--cpuset-cpus",
        "4000",
        &id,
    ]);
    assert!(refused.failed().contains("linux.resources.cpu.cpus"));
    assert_eq!(standing(), before);
}

#[test]
fn a_limit_in_cpus_is_a_quota_of_the_usual_period() {
    need!(root, limits);
    let scene = Scene::new();
    let id = scene.holding(&[]);
    scene
        .home
        .bulkhead(["update", "--cpu-limit", "1.5", &id])
        .ok();
    assert_eq!(scene.read(&id, "cpu.max"), "150000 100000");
    scene
        .home
        .bulkhead(["update", "--cpu-limit", "-1", &id])
        .ok();
    assert_eq!(scene.read(&id, "cpu.max"), "max 100000");
}

#[test]
fn what_no_controller_keeps_is_said_not_to_be_promised() {
    need!(root, cgroup2);
    let scene = Scene::new();
    let top = scene.pool.path();
    let controllers = super::read(&top.with_file_name("cgroup.controllers"));
    let table = scene.home.bulkhead(["capacity"]).ok();
    for controller in ["cpu", "memory"] {
        let there = controllers.split(' ').any(|one| one == controller);
        let said = table.contains(&format!("{controller}: cannot be promised"));
        assert_eq!(said, !there, "{controllers:?}: {table}");
    }
}
