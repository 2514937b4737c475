//! The weights that stand in the kernel after workspaces have come, changed and gone.

use super::Scene;
use super::cpus;
use super::read;
use crate::need;
use crate::support::home::eventually;

#[test]
fn a_reservation_weighs_what_keeps_it_and_nothing_once_it_is_gone() {
    need!(root, limits);
    let scene = Scene::new();
    let all = scene.free("cpu", "millicpus");
    let others: Vec<String> = (0..3)
        .map(|_| scene.holding(&[("cpu.share", "100")]))
        .collect();
    let weight = |id: &str| -> u64 { scene.read(id, "cpu.weight").parse().unwrap() };
    assert_eq!(
        others.iter().map(|id| weight(id)).collect::<Vec<_>>(),
        [100; 3]
    );
    let first = scene.holding(&[("cpu.reserve", &cpus(all / 2))]);
    // Half for one and a sixth for each of three: three times as much.
    assert!((300..=301).contains(&weight(&first)), "{}", weight(&first));
    scene.home.bulkhead(["delete", "--force", &others[0]]).ok();
    assert!((200..=201).contains(&weight(&first)), "{}", weight(&first));
    scene
        .home
        .bulkhead(["update", "--cpu-reserve", "0", &first])
        .ok();
    assert_eq!(weight(&first), 100);
}

#[test]
fn the_host_keeps_its_part_by_the_weight_of_the_pool() {
    need!(root, limits);
    let scene = Scene::new();
    scene.host_file("[reserve]\ncpu = 1\n");
    let all = scene.capacity("cpu")["capacity_millicpus"]
        .as_u64()
        .unwrap();
    let weight = || -> u64 { read(&scene.pool.path().join("cpu.weight")).parse().unwrap() };
    let id = scene.holding(&[("cpu.reserve", "0.1")]);
    let beside: u64 = std::fs::read_dir("/sys/fs/cgroup")
        .unwrap()
        .flatten()
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with("bulkhead"))
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("cpu.weight")).ok())
        .map(|text| text.trim().parse::<u64>().unwrap())
        .sum();
    // Other tests make groups there meanwhile.
    let expected = (beside + 100) * (all - 1000) / 1000;
    let found = weight();
    assert!(
        found >= expected / 2 && found <= expected * 2,
        "{found} for {expected}"
    );
    assert!(found > 100);
    scene.home.bulkhead(["delete", "--force", &id]).ok();
    assert_eq!(weight(), 100);
}

#[test]
fn what_a_killed_command_left_undone_is_mended_by_the_next() {
    need!(root, limits);
    let scene = Scene::new();
    let all = scene.free("cpu", "millicpus");
    let first = scene.holding(&[("cpu.reserve", &cpus(all / 2)), ("memory.reserve", "16M")]);
    let second = scene.holding(&[]);
    let weight = scene.read(&first, "cpu.weight");
    for (id, file, value) in [
        (&first, "cpu.weight", "1"),
        (&second, "cpu.weight", "9999"),
        (&first, "memory.min", "0"),
    ] {
        std::fs::write(scene.group(id).join(file), value).unwrap();
    }
    std::fs::write(scene.pool.path().join("memory.min"), "0").unwrap();
    let third = scene.holding(&[]);
    scene.home.bulkhead(["delete", "--force", &third]).ok();
    assert_eq!(scene.read(&first, "cpu.weight"), weight);
    assert_eq!(scene.read(&second, "cpu.weight"), "100");
    assert_eq!(scene.read(&first, "memory.min"), (16 << 20).to_string());
    assert_eq!(
        read(&scene.pool.path().join("memory.min")),
        (16 << 20).to_string()
    );
}

#[test]
fn who_asks_for_nothing_is_weighed_too_once_somebody_was_promised_something() {
    need!(root, limits);
    let scene = Scene::new();
    let plain = scene.holding(&[]);
    let all = scene.free("cpu", "millicpus");
    let first = scene.holding(&[("cpu.reserve", &cpus(all / 2))]);
    let late = scene.holding(&[]);
    let weights = [&plain, &late, &first].map(|id| scene.read(id, "cpu.weight"));
    assert_eq!(weights, ["100", "100", "200"]);
}

#[test]
fn systemd_keeps_the_weights_when_it_is_reloaded() {
    need!(root, limits, systemd);
    let scene = Scene::new();
    let all = scene.free("cpu", "millicpus");
    let half = cpus(all / 2);
    let start = |asked: &[(&str, &str)]| {
        let (bundle, id) = scene.asking("exec sleep 1000", asked);
        let bundle = bundle.with(|config| {
            config["linux"]["cgroupsPath"] = serde_json::json!(format!("bulkhead.slice:t:{id}"));
        });
        let mut command = scene.home.command();
        command.args(["--systemd-cgroup", "create", "-b"]);
        command.arg(bundle.path()).arg(&id);
        let quiet = std::process::Stdio::null;
        let made = command.stdout(quiet()).stderr(quiet()).status();
        assert!(made.unwrap().success());
        scene.bundles.lock().unwrap().push(bundle);
        id
    };
    let (plain, first) = (
        start(&[]),
        start(&[("cpu.reserve", &half), ("memory.reserve", "8M")]),
    );
    let late = start(&[]);
    let group = |id: &str| {
        let text = read(format!("/proc/{}/cgroup", scene.home.pid(id)).as_ref());
        std::path::PathBuf::from("/sys/fs/cgroup").join(text.trim_start_matches("0::/"))
    };
    let groups = [&plain, &late, &first].map(|id| group(id));
    let weights = || groups.clone().map(|group| read(&group.join("cpu.weight")));
    assert_eq!(weights(), ["100", "100", "200"]);
    let reloaded = std::process::Command::new("systemctl")
        .arg("daemon-reload")
        .status();
    assert!(reloaded.unwrap().success());
    let pool = groups[0].parent().unwrap();
    eventually("the weights of before", || {
        weights() == ["100", "100", "200"]
    });
    assert_eq!(read(&pool.join("memory.min")), (8 << 20).to_string());
}
