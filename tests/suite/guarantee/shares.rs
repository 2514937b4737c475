//! The tables of the papers, measured: a reservation beside hogs, fair shares, caps, and hostile neighbours.
//!
//! Figures are read from `cpu.stat`, over windows that are long beside the kernel's own balancing. Shares are of what
//! the workspaces of the test used together, so that other tests of the same machine do not count; whether a guarantee
//! held is asked of the clock.

use std::time::Duration;
use std::time::Instant;

use super::Scene;
use super::cpus;
use crate::need;

/// How long is measured.
const WINDOW: Duration = Duration::from_secs(6);
/// How long work that has begun is let go on before it is measured.
const SETTLING: Duration = Duration::from_secs(2);
/// How many windows are looked at before a part is held to be wrong.
const WINDOWS: usize = 3;
/// By how many points a part may differ from what is due.
const ALLOWED: f64 = 2.0;
/// What a victim gets of its guarantee at least, in percent.
const LEAST: f64 = 95.0;
/// How many workspaces there are.
const COUNT: usize = 8;
/// How many processes try to use all CPUs in the workspace that is looked at.
const WANTED: usize = 2;

/// A script that does something when it is told to, so that it is not in the way while others are made.
fn told(script: &str) -> String {
    format!("while [ ! -e /go ]; do sleep 0.2; done; {script}")
}

/// A script that starts so many hogs and stays.
fn hogs(count: usize) -> String {
    format!("i=0; while [ $i -lt {count} ]; do while :; do :; done & i=$((i+1)); done; wait")
}

/// Waits until so many tasks are in each of the groups.
fn wait_for_tasks(scene: &Scene, ids: &[String], count: usize) {
    let deadline = Instant::now() + Duration::from_secs(180);
    let ready = |id: &String| {
        let tasks = scene.read(id, "cgroup.procs");
        tasks.lines().count() >= count
    };
    while !ids.iter().all(ready) {
        assert!(Instant::now() < deadline, "{count} tasks did not come");
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

pub(super) fn pass(time: Duration) {
    let until = Instant::now() + time;
    while let Some(left) = until
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
    {
        std::thread::park_timeout(left);
    }
}

/// Seconds of CPU time.
fn used(scene: &Scene, id: &str) -> f64 {
    let stat = scene.read(id, "cpu.stat");
    let line = stat
        .lines()
        .find_map(|line| line.strip_prefix("usage_usec "));
    line.unwrap().parse::<f64>().unwrap() / 1e6
}

/// What each used in a window, in CPUs.
pub(super) fn measure(scene: &Scene, ids: &[String]) -> Vec<f64> {
    let all = || ids.iter().map(|id| used(scene, id)).collect::<Vec<f64>>();
    let (begun, before) = (Instant::now(), all());
    pass(WINDOW);
    let (after, took) = (all(), begun.elapsed().as_secs_f64());
    after
        .iter()
        .zip(&before)
        .map(|(after, before)| (after - before) / took)
        .collect()
}

/// Each one's part of what all used, in percent.
pub(super) fn percents(used: &[f64]) -> Vec<f64> {
    let sum: f64 = used.iter().sum();
    used.iter().map(|one| one * 100.0 / sum).collect()
}

#[expect(
    clippy::print_stdout,
    reason = "the table is what the measurement is for"
)]
pub(super) fn row(text: &str) {
    println!("{text}");
}

pub(super) fn one_decimal(all: &[f64]) -> String {
    let words: Vec<String> = all.iter().map(|one| format!("{one:.1}")).collect();
    words.join(" ")
}

/// Eight workspaces, of which the first wants all and the others run so many hogs each.
fn crowd(scene: &Scene, count: usize, reserve: &str) -> Vec<String> {
    let mut ids = Vec::new();
    for index in 0..COUNT {
        let asked = [("cpu.reserve", reserve)];
        let (script, asked) = match index {
            0 => (hogs(WANTED), &asked[..]),
            _ => (hogs(count), &[][..]),
        };
        let (bundle, id) = scene.asking(&told(&script), asked);
        scene.start(bundle, &id);
        ids.push(id);
    }
    scene.go();
    wait_for_tasks(scene, &ids[1..], count + 1);
    wait_for_tasks(scene, &ids[..1], WANTED + 1);
    pass(SETTLING);
    ids
}

/// Parts in percent, of the window among a few that is nearest to what is `due`: one in which something else wanted the
/// machine says nothing about the weights, and weights that are wrong are so in each.
fn nearest(scene: &Scene, ids: &[String], due: &dyn Fn(&[f64]) -> f64) -> Vec<f64> {
    let mut best: Option<(f64, Vec<f64>)> = None;
    for _ in 0..WINDOWS {
        let parts = percents(&measure(scene, ids));
        let off = due(&parts);
        let nearer = best.as_ref().is_none_or(|(least, _)| off < *least);
        best = if nearer { Some((off, parts)) } else { best };
        if best.as_ref().is_some_and(|(least, _)| *least <= ALLOWED) {
            break;
        }
    }
    best.unwrap().1
}

/// With a quarter of the machine reserved, and without: the first one's part, and those of the others.
fn beside(count: usize) {
    let scene = Scene::new();
    // A quarter of the machine would be more of what is left if the host kept a part.
    scene.host_file("[reserve]\ncpu = 0\n");
    let entry = scene.capacity("cpu");
    let quarter = cpus(entry["capacity_millicpus"].as_u64().unwrap() / 4);
    let ids = crowd(&scene, count, &quarter);
    let off = |parts: &[f64]| (parts[0] - 25.0).abs();
    let reserved = nearest(&scene, &ids, &off);
    scene.stand_still(true);
    scene
        .home
        .bulkhead(["update", "--cpu-reserve", "0", &ids[0]])
        .ok();
    scene.stand_still(false);
    pass(SETTLING);
    let fair_due = 100.0 / 8.0;
    let furthest = |parts: &[f64]| {
        let offs = parts.iter().map(|one| (one - fair_due).abs());
        offs.fold(0.0, f64::max)
    };
    let fair = nearest(&scene, &ids, &furthest);
    scene.stand_still(true);
    row(&format!(
        "7 x {count} hogs, 25 % reserved: {}",
        one_decimal(&reserved)
    ));
    row(&format!(
        "7 x {count} hogs, none reserved: {}",
        one_decimal(&fair)
    ));
    assert!(off(&reserved) <= ALLOWED, "{reserved:?}");
    assert!(furthest(&fair) <= ALLOWED, "{fair:?}");
}

#[test]
fn a_quarter_stays_a_quarter_beside_one_hog_each() {
    need!(root, limits, machine);
    beside(1);
}

#[test]
fn a_quarter_stays_a_quarter_beside_eight_hogs_each() {
    need!(root, limits, machine);
    beside(8);
}

#[test]
fn a_quarter_stays_a_quarter_beside_sixty_four_hogs_each() {
    need!(root, limits, machine);
    beside(64);
}

#[test]
fn a_cap_is_never_exceeded() {
    need!(root, limits, machine);
    let scene = Scene::new();
    let (bundle, id) = scene.asking(&told(&hogs(4)), &[]);
    scene.start(bundle, &id);
    scene
        .home
        .bulkhead(["update", "--cpu-limit", "0.5", &id])
        .ok();
    let ids = [id];
    scene.go();
    wait_for_tasks(&scene, &ids, 5);
    pass(SETTLING);
    // Throttling is by periods of 100 ms: one more or less at the ends of a window is 1 %.
    let used = measure(&scene, &ids)[0];
    row(&format!("4 hogs, cpu.limit 0.5: {used:.3} CPUs"));
    assert!(used <= 0.5 * 1.02, "{used}");
    assert!(used > 0.4, "the hogs did not run: {used}");
}

/// What a victim with a quarter of the machine gets of it beside seven workspaces that do this.
fn victim_of(name: &str, script: &str, limits: &serde_json::Value) {
    let scene = Scene::new();
    let all = scene.capacity("cpu")["capacity_millicpus"]
        .as_u64()
        .unwrap();
    let (bundle, victim) = scene.asking(&told(&hogs(WANTED)), &[("cpu.reserve", &cpus(all / 4))]);
    scene.start(bundle, &victim);
    for _ in 1..COUNT {
        let (bundle, id) = scene.asking(&told(script), &[]);
        let bundle = bundle.with(|config| config["linux"]["resources"] = limits.clone());
        scene.start(bundle, &id);
    }
    part_of(&scene, &victim, all, name);
}

/// Lets everybody begin, and sees what the victim gets of its quarter.
fn part_of(scene: &Scene, victim: &str, all: u64, name: &str) {
    let ids = [victim.to_owned()];
    scene.go();
    wait_for_tasks(scene, &ids, WANTED + 1);
    pass(SETTLING);
    let whole = f64::from(u32::try_from(all).unwrap()) / 1000.0;
    let parts = (0..WINDOWS).map(|_| measure(scene, &ids)[0] * 400.0 / whole);
    // As above: a window that was disturbed is measured again.
    let mut most = 0.0_f64;
    for part in parts {
        most = most.max(part);
        if most >= LEAST {
            break;
        }
    }
    scene.stand_still(true);
    let (part, used) = (most, most * whole / 400.0);
    row(&format!(
        "7 x {name}: victim has {used:.3} of {whole} CPUs, {part:.1} % of its guarantee"
    ));
    assert!(part >= LEAST, "{part}");
}

#[test]
fn a_fork_bomb_does_not_take_from_a_guarantee() {
    need!(root, limits, machine);
    let limits = serde_json::json!({"pids": {"limit": 100}});
    victim_of(
        "fork bomb",
        "while :; do (:) & (:) & done 2>/dev/null",
        &limits,
    );
}

#[test]
fn a_memory_hog_does_not_take_from_a_guarantee() {
    need!(root, limits, machine);
    let limits = serde_json::json!({"memory": {"limit": 67_108_864, "swap": 67_108_864}});
    // Every killing is told on the console, which is a serial line here: that would be what is measured.
    std::fs::write("/proc/sys/kernel/printk", "1").unwrap();
    victim_of(
        "memory hog",
        "while :; do tail /dev/zero; done 2>/dev/null",
        &limits,
    );
}

#[test]
fn a_write_hog_does_not_take_from_a_guarantee() {
    need!(root, limits, machine);
    let script =
        "while :; do dd if=/dev/zero of=/root/x bs=64k count=256 conv=fsync; done 2>/dev/null";
    victim_of("write hog", script, &serde_json::json!({}));
}

/// A program that sends packets to all who are on its network, as fast as it can. Busybox has none, so the host's shell
/// is lent for it.
fn flooder(scene: &Scene) -> (crate::support::bundle::Bundle, String) {
    let send =
        "exec 3>/dev/udp/239.255.0.1/9; while :; do dd if=/dev/zero bs=64 count=1000000 >&3; done";
    let script = told(&format!("exec /usr/bin/bash -c '{send}' 2>/dev/null"));
    let (bundle, id) = scene.asking(&script, &[("network", "flooded")]);
    for link in ["lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{link}"), bundle.rootfs(link)).unwrap();
    }
    std::fs::create_dir(bundle.rootfs("usr")).unwrap();
    let bundle = bundle.with(|config| {
        let mount = serde_json::json!({
            "destination": "/usr", "type": "bind", "source": "/usr", "options": ["bind", "ro"],
        });
        config["mounts"].as_array_mut().unwrap().push(mount);
    });
    (bundle, id)
}

#[test]
fn a_packet_flood_over_a_bridge_does_not_take_from_a_guarantee() {
    need!(root, limits, machine);
    let scene = Scene::new();
    let all = scene.capacity("cpu")["capacity_millicpus"]
        .as_u64()
        .unwrap();
    let quarter = cpus(all / 4);
    let asked = [("cpu.reserve", quarter.as_str()), ("network", "flooded")];
    let (bundle, victim) = scene.asking(&told(&hogs(WANTED)), &asked);
    scene.start(bundle, &victim);
    for _ in 1..COUNT {
        let (bundle, id) = flooder(&scene);
        scene.start(bundle, &id);
    }
    let link = bulkhead::plan::network::Link::of(&scene.home.root(), &victim);
    let received = || bulkhead::network::counters(&link).unwrap().in_packets;
    let before = received();
    part_of(&scene, &victim, all, "packet flood");
    let packets = received() - before;
    assert!(packets > 10_000, "{packets} packets are no flood");
}
