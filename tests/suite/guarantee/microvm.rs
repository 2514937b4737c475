//! Limits and promises behind the second wall: they are the workload's, and the machine has its own beside them.

use std::process::Child;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use bulkhead::accounting::Meter;
use bulkhead::accounting::Usage;
use bulkhead::workspace::found::Workspace;
use bulkhead::workspace::root::StateRoot;
use bulkhead::workspace::store::Store;
use serde_json::json;

use super::Scene;
use super::shares::measure;
use super::shares::pass;
use super::shares::percents;
use crate::accounting::microvm::usage;
use crate::accounting::microvm::with_guests;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::eventually;

/// What the program may use of memory.
const MEMORY: u64 = 160 << 20;
/// What it is promised of that.
const PROMISED: u64 = 64 << 20;
/// A hog that ends by itself, should nobody end it.
const HOG: &str = "timeout 120 sh -c 'while :; do :; done'";
/// Writes to a disk for six seconds and says what the longest time between two steps was, in hundredths of a second.
const WRITER: &str = "now() { read -r up rest </proc/uptime; up=${up%.*}${up#*.}; }; \
    now; begun=$up; last=$up; worst=0; \
    while [ $((up - begun)) -lt 600 ]; do \
    dd if=/dev/zero of=/disk/file bs=16k count=8 conv=fsync 2>/dev/null; \
    now; gap=$((up - last)); last=$up; [ $gap -le $worst ] || worst=$gap; done; echo $worst";

fn scene() -> Scene {
    let scene = Scene::new();
    with_guests(&scene.home);
    scene
}

/// A bundle that is put into a machine, with so much of the processors.
fn in_machine(scene: &Scene, script: &str, asked: &[(&str, &str)], quota: i64) -> (Bundle, String) {
    let (bundle, id) = scene.asking(script, asked);
    let bundle = bundle.with(|config| {
        config["annotations"]["dev.bulkhead.isolation"] = json!("microvm");
        config["linux"]["resources"] = json!({
            "memory": {"limit": MEMORY},
            "cpu": {"quota": quota, "period": 100_000},
        });
    });
    (bundle, id)
}

/// Microseconds for which a group was kept from running by its own limit.
fn throttled(scene: &Scene, id: &str) -> u64 {
    let stat = scene.read(id, "cpu.stat");
    let mut lines = stat.lines();
    let line = lines.find_map(|line| line.strip_prefix("throttled_usec "));
    line.map_or(0, |figure| figure.parse().unwrap())
}

#[test]
fn limits_of_a_machine_are_its_workloads_and_its_devices_are_not_starved() {
    need!(root, limits, machine, kvm);
    let scene = scene();
    let disk = tempfile::tempdir_in("/var").unwrap();
    let reserve = [("cpu.reserve", "0.6"), ("memory.reserve", "64M")];
    let (bundle, id) = in_machine(&scene, "exec sleep 1000", &reserve, 100_000);
    let bundle = bundle.with(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(
            json!({"destination": "/disk", "type": "bind", "options": ["bind", "rw"],
            "source": disk.path().to_str().unwrap()}),
        );
    });
    std::fs::create_dir(bundle.rootfs("disk")).unwrap();
    scene.start(bundle, &id);
    the_machine_is_counted_when_memory_is_promised(&scene, &id);
    who_writes_and_computes_is_not_held_up(&scene, &id);
    a_lower_limit_of_memory_is_given_back(&scene, &id);
    a_limit_is_changed_and_what_is_missing_of_the_promise_is_seen(&scene, &id);
    scene.home.bulkhead(["delete", "--force", &id]).ok();
}

fn the_machine_is_counted_when_memory_is_promised(scene: &Scene, id: &str) {
    let entry = scene.capacity("memory");
    let holder = &entry["holders"][0];
    assert_eq!(holder["id"], *id);
    let machine = holder["machine_bytes"].as_u64().unwrap();
    assert!((100 << 20..200 << 20).contains(&machine), "{machine}");
    assert_eq!(holder["held_bytes"].as_u64(), Some(PROMISED + machine));
    assert_eq!(
        scene.read(id, "memory.min"),
        (PROMISED + machine).to_string()
    );
    let table = scene.home.bulkhead(["capacity"]).ok();
    assert!(table.contains("for its machine"), "{table}");
}

/// One processor, a limit of one: where the machine's own work counts against that, its guest stands still for seconds.
fn who_writes_and_computes_is_not_held_up(scene: &Scene, id: &str) {
    let (before, begun) = (throttled(scene, id), Instant::now());
    let said = scene.home.bulkhead(["exec", id, "sh", "-c", WRITER]).ok();
    let (held, took) = (throttled(scene, id) - before, begun.elapsed());
    let worst: u64 = said.trim().parse().unwrap();
    // A step is slow where the processor is one of software; what a limit does to it is seen in the next line.
    assert!(worst < 1000, "a step took {worst} hundredths of a second");
    let took = u64::try_from(took.as_micros()).unwrap();
    assert!(held * 10 < took, "held up for {held} of {took} us");
}

/// What the limit leaves over the guest gives back, though nobody in it has used it.
fn a_lower_limit_of_memory_is_given_back(scene: &Scene, id: &str) {
    let free = || -> u64 {
        let script = "grep MemFree /proc/meminfo | tr -dc 0-9";
        let said = scene.home.bulkhead(["exec", id, "sh", "-c", script]).ok();
        said.parse::<u64>().unwrap() << 10
    };
    let before = free();
    let lower = (MEMORY / 2).to_string();
    let update = ["update", "--memory-limit", &lower, id];
    scene.home.bulkhead(update).ok();
    eventually("memory to be given back", || free() + MEMORY / 4 < before);
    let more = MEMORY.to_string();
    scene
        .home
        .bulkhead(["update", "--memory-limit", &more, id])
        .ok();
    eventually("memory to be there again", || free() + MEMORY / 4 > before);
}

fn hog(scene: &Scene, id: &str) -> Child {
    let mut command = scene.home.command();
    command.args(["exec", id, "sh", "-c", HOG]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// A processor, of which three tenths are left: the guest has these and no more, and is wronged by as many as it was
/// promised.
fn a_limit_is_changed_and_what_is_missing_of_the_promise_is_seen(scene: &Scene, id: &str) {
    let workload = || usage(&scene.home, id).cpu.roles.workload.total_us;
    let before = workload();
    let mut hog = hog(scene, id);
    eventually("a hog", || workload() > before + 1_000_000);
    let changed = ["update", "--cpu-limit", "0.3", id];
    scene.home.bulkhead(changed).ok();
    let store = Store::new(StateRoot::choose(Some(&scene.home.root()), None).unwrap());
    let workspace = Workspace::find(&store, &id.parse().unwrap()).unwrap();
    // What it was promised and did not want before this look is over with.
    let mut meter = Meter::new(&workspace);
    let before = (meter.sample(&workspace).unwrap(), Instant::now());
    pass(Duration::from_secs(6));
    let after = meter.sample(&workspace).unwrap();
    let took = u64::try_from(before.1.elapsed().as_micros()).unwrap();
    let more = |figure: fn(&Usage) -> u64| figure(&after) - figure(&before.0);
    let used = more(|usage| usage.cpu.roles.workload.total_us) * 100 / took;
    assert!((20..=34).contains(&used), "{used} of 30 hundredths");
    // Promised are 60, and the machine's own work beside the 30 counts as well.
    let held = more(|usage| usage.cpu.hold_ms.unwrap()) * 100_000 / took;
    assert!(
        (15..=40).contains(&held),
        "held for {held} hundredths of {took} us"
    );
    hog.kill().unwrap();
    hog.wait().unwrap();
}

#[test]
fn a_container_and_a_machine_of_one_weight_have_the_same() {
    need!(root, limits, machine, kvm);
    let scene = scene();
    let busy = "while [ ! -e /go ]; do sleep 0.2; done; \
        while :; do :; done & while :; do :; done & wait";
    let (bundle, machine) = in_machine(&scene, busy, &[("cpu.share", "100")], 200_000);
    scene.start(bundle, &machine);
    let (bundle, container) = scene.asking(busy, &[("cpu.share", "100")]);
    scene.start(bundle, &container);
    scene.go();
    pass(Duration::from_secs(4));
    let ids = [container, machine];
    let mut seen = Vec::new();
    let even = || {
        let parts = percents(&measure(&scene, &ids));
        let even = (parts[0] - 50.0).abs() <= 6.0;
        seen.push(parts);
        even
    };
    // A window in which something else wanted the machine says nothing about weights.
    let found = std::iter::repeat_with(even).take(3).any(|even| even);
    assert!(found, "{seen:?}");
    for id in &ids {
        scene.home.bulkhead(["delete", "--force", id]).ok();
    }
}
