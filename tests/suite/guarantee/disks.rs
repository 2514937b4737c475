//! What is promised of a disk holds while others want all of it, by whichever of the kernel's ways weighs them.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use super::Scene;
use super::read;
use crate::need;
use crate::support::home::eventually;

/// How fast the disk is, in bytes per second: slow, so that an emulated processor is not what everybody waits for.
const SPEED: u64 = 8 << 20;
/// What each reads again and again, in MiB.
const FILE: u64 = 4;
/// How long is measured, at most so many times.
const WINDOW: Duration = Duration::from_secs(5);
const WINDOWS: usize = 3;
/// By how many points of a hundred a part may differ from what is due by io.cost,
const EXACT: f64 = 5.0;
/// and by BFQ, which measures the disk while it works.
const NEAR: f64 = 15.0;

/// A disk of memory with a file system, which goes with this value.
struct Disk {
    name: String,
    mount: PathBuf,
}

impl Disk {
    /// A disk that is no faster than `mbps` MiB in a second; 0 is as fast as it can.
    fn new(scene: &Scene, mbps: u64) -> Self {
        run("modprobe", &["null_blk", "nr_devices=0"]);
        let root = Path::new("/sys/kernel/config");
        if !root.join("nullb").exists() {
            run("mount", &["-t", "configfs", "none", "/sys/kernel/config"]);
        }
        let name = scene.home.id().replace('-', "");
        let setting = root.join("nullb").join(&name);
        std::fs::create_dir(&setting).unwrap();
        let mbps = mbps.to_string();
        for (file, value) in [
            ("memory_backed", "1"),
            ("size", "96"),
            ("blocksize", "4096"),
            ("mbps", &mbps),
            ("power", "1"),
        ] {
            std::fs::write(setting.join(file), value).unwrap();
        }
        let mount = scene.home.beside("disk");
        let disk = Self { name, mount };
        let device = format!("/dev/{}", disk.name);
        eventually("the disk", || Path::new(&device).exists());
        run("busybox", &["mke2fs", "-b", "4096", &device]);
        std::fs::create_dir(&disk.mount).unwrap();
        run(
            "mount",
            &["-t", "ext4", &device, disk.mount.to_str().unwrap()],
        );
        disk
    }

    fn numbers(&self) -> String {
        read(&Path::new("/sys/block").join(&self.name).join("dev"))
    }

    fn by_bfq(&self) {
        run("modprobe", &["bfq"]);
        let scheduler = Path::new("/sys/block").join(&self.name);
        std::fs::write(scheduler.join("queue/scheduler"), "bfq").unwrap();
        std::fs::write(scheduler.join("queue/iosched/low_latency"), "0").unwrap();
    }

    /// The disk is then as fast as io.cost believes, and no faster.
    fn by_io_cost(&self) {
        let numbers = self.numbers();
        let iops = SPEED / 4096;
        let model = format!(
            "{numbers} ctrl=user model=linear rbps={SPEED} rseqiops={iops} rrandiops={iops} \
             wbps={SPEED} wseqiops={iops} wrandiops={iops}"
        );
        let quality = format!("{numbers} enable=1 ctrl=user rpct=0 wpct=0 min=100 max=100");
        std::fs::write("/sys/fs/cgroup/io.cost.qos", quality).unwrap();
        std::fs::write("/sys/fs/cgroup/io.cost.model", model).unwrap();
    }

    /// As fast as memory, for everybody.
    fn by_nothing(&self) {
        let scheduler = Path::new("/sys/block").join(&self.name);
        std::fs::write(scheduler.join("queue/scheduler"), "none").unwrap();
        let quality = format!("{} enable=0", self.numbers());
        std::fs::write("/sys/fs/cgroup/io.cost.qos", quality).unwrap();
    }

    /// A workspace with its writable layer there, which runs so many programs that read all of the time.
    fn reader(&self, scene: &Scene, readers: usize, asked: &[(&str, &str)]) -> String {
        let script = format!(
            "sleep 1000 & i=0; while [ $i -lt {readers} ]; do \
             while :; do dd if=/data of=/dev/null bs=64k iflag=direct 2>/dev/null; done & i=$((i+1)); done; wait"
        );
        let (bundle, id) = scene.asking(&script, asked);
        let own = self.mount.join(&id);
        for directory in ["upper", "work"] {
            std::fs::create_dir_all(own.join(directory)).unwrap();
        }
        let data = vec![7; usize::try_from(FILE << 20).unwrap()];
        std::fs::write(own.join("upper/data"), data).unwrap();
        let bundle = bundle.with(|config| {
            for (key, directory) in [("upper", "upper"), ("work", "work")] {
                let path = own.join(directory).display().to_string();
                config["annotations"][format!("dev.bulkhead.rootfs.{key}")] = path.into();
            }
        });
        scene.start(bundle, &id);
        id
    }

    /// Bytes that a workspace has read from the disk.
    fn bytes(&self, scene: &Scene, id: &str) -> f64 {
        let stat = scene.read(id, "io.stat");
        let numbers = self.numbers();
        let line = stat
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{numbers} ")));
        let words = line.unwrap_or_default().split(' ');
        let mut bytes = words.filter_map(|word| word.strip_prefix("rbytes=")?.parse().ok());
        bytes.next().unwrap_or_default()
    }

    /// The parts of all that was read in a window, in percent, and how much that was in a second.
    fn parts(&self, scene: &Scene, ids: &[String]) -> (Vec<f64>, f64) {
        let all = || {
            ids.iter()
                .map(|id| self.bytes(scene, id))
                .collect::<Vec<f64>>()
        };
        let (begun, before) = (Instant::now(), all());
        super::shares::pass(WINDOW);
        let (after, took) = (all(), begun.elapsed().as_secs_f64());
        let read = after
            .iter()
            .zip(&before)
            .map(|(after, before)| after - before);
        let read: Vec<f64> = read.collect();
        let sum: f64 = read.iter().sum();
        let parts = read.iter().map(|one| one * 100.0 / sum).collect();
        (parts, sum / took)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let gone = [
            Command::new("umount").arg("-l").arg(&self.mount).status(),
            Command::new("rmdir")
                .arg(format!("/sys/kernel/config/nullb/{}", self.name))
                .status(),
        ];
        for one in gone {
            assert!(one.is_ok_and(|one| one.success()) || std::thread::panicking());
        }
    }
}

#[track_caller]
fn run(program: &str, arguments: &[&str]) {
    let mut command = Command::new(program);
    command.args(arguments).stdout(std::process::Stdio::null());
    let status = command.status().unwrap();
    assert!(status.success(), "{program} {arguments:?}");
}

/// One was promised a half of a disk that three others try to read all of.
fn half_beside_three(weigh: fn(&Disk), mbps: u64, allowed: f64) {
    let scene = Scene::new();
    let disk = Disk::new(&scene, mbps);
    weigh(&disk);
    let numbers = disk.numbers();
    scene.host_file(&format!("[disk.\"{numbers}\"]\nread = {SPEED}\n"));
    let half = (SPEED / 2).to_string();
    let mut ids = vec![disk.reader(&scene, 6, &[("io.read.reserve", &half)])];
    ids.extend((0..3).map(|_| disk.reader(&scene, 2, &[])));
    // What the host keeps is left to the workspaces while it does not want it.
    let due = 50.0 / 0.95;
    let mut parts = Vec::new();
    for _ in 0..WINDOWS {
        let (found, speed) = disk.parts(&scene, &ids);
        super::shares::row(&format!(
            "half of a disk promised, {due:.1} % due: {} of {:.1} MiB/s",
            super::shares::one_decimal(&found),
            speed / 1_048_576.0
        ));
        parts = found;
        if (parts[0] - due).abs() <= allowed {
            break;
        }
    }
    assert!((parts[0] - due).abs() <= allowed, "{parts:?}");
    // Nobody is to wait for a slow disk to be ended.
    disk.by_nothing();
    for id in &ids {
        scene.home.bulkhead(["delete", "--force", id]).ok();
    }
    assert!(!read(&scene.pool.path().join("io.weight")).contains(&numbers));
}

#[test]
fn a_half_of_a_disk_stays_a_half_by_the_scheduler() {
    need!(root, limits, machine);
    half_beside_three(Disk::by_bfq, SPEED >> 20, NEAR);
}

#[test]
fn a_half_of_a_disk_stays_a_half_by_io_cost() {
    need!(root, limits, machine);
    half_beside_three(Disk::by_io_cost, 0, EXACT);
}

#[test]
fn a_part_of_a_disk_is_promised_while_it_runs_and_taken_back() {
    need!(root, limits, machine);
    let scene = Scene::new();
    let disk = Disk::new(&scene, 0);
    disk.by_io_cost();
    let numbers = disk.numbers();
    scene.host_file(&format!(
        "[disk.\"{numbers}\"]\nread = {SPEED}\nwrite = {SPEED}\n"
    ));
    let (id, other) = (disk.reader(&scene, 0, &[]), disk.reader(&scene, 0, &[]));
    let update = |read: &str| {
        let words = [
            "update",
            "--io-read-reserve",
            read,
            "--io-write-reserve",
            read,
            &id,
        ];
        scene.home.bulkhead(words)
    };
    let quarter = (SPEED * 19 / 20 / 4).to_string();
    update(&quarter).ok();
    let weight = |id: &str| {
        let text = scene.read(id, "io.weight");
        let mut lines = text.lines();
        lines.find_map(|line| Some(line.strip_prefix(&format!("{numbers} "))?.to_owned()))
    };
    // A quarter of reading and a quarter of writing are a half of the disk's time.
    assert_eq!(
        [weight(&id), weight(&other)],
        ["100", "100"].map(|one| Some(one.to_owned()))
    );
    let refused = update(&(SPEED / 2).to_string()).failed();
    assert!(refused.contains("writing takes 4M/s"), "{refused}");
    update("0").ok();
    assert_eq!([weight(&id), weight(&other)], [None, None]);
    assert!(!read(&scene.pool.path().join("io.weight")).contains(&numbers));
}

#[test]
fn a_promise_of_a_disk_that_nothing_weighs_is_refused_with_what_would() {
    need!(root, limits, machine);
    let scene = Scene::new();
    let disk = Disk::new(&scene, 0);
    let numbers = disk.numbers();
    scene.host_file(&format!("[disk.\"{numbers}\"]\nread = {SPEED}\n"));
    let id = disk.reader(&scene, 0, &[]);
    let refused = scene
        .home
        .bulkhead(["update", "--io-read-reserve", "1M", &id])
        .failed();
    assert!(
        refused.contains(&format!(
            "echo bfq >/sys/block/{}/queue/scheduler",
            disk.name
        )),
        "{refused}"
    );
    let host = scene.home.bulkhead(["host"]).ok();
    let line = host.lines().find(|line| line.contains(&numbers)).unwrap();
    assert!(line.contains("no  "), "{line}");
    disk.by_bfq();
    scene
        .home
        .bulkhead(["update", "--io-read-reserve", "1M", &id])
        .ok();
    let weight = scene.read(&id, "io.bfq.weight");
    assert!(weight.contains(&format!("{numbers} ")), "{weight}");
}
