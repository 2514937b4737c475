//! The cgroup of a workspace, on a real kernel: made, limited, filtered, frozen, killed, counted and gone.
//!
//! Tests that need a controller run where cgroup v2 has it; on a machine that gave it to cgroup v1 they say so and
//! are skipped, which in the test machine is a failure.

mod limits;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use bulkhead::enclosure::Enclosure;
use bulkhead::enclosure::EnclosureError;
use bulkhead::enclosure::Place;
use bulkhead::enclosure::watch;
use bulkhead::enclosure::watch::Event;
use bulkhead::host::Host;
use bulkhead::plan::cgroup;
use bulkhead::plan::cgroup::CgroupPlan;
use bulkhead::plan::cgroup::Options;
use bulkhead::plan::cgroup::Request;
use bulkhead::spec::resources::Resources;

/// A directory of the cgroup tree that nobody else uses and that is gone at the end.
struct Scene {
    host: Host,
    mount: PathBuf,
    name: String,
    children: Vec<Child>,
}

impl Scene {
    /// None, after a word about it, if this machine does not have what is needed.
    fn with(controllers: &[&str]) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let host = Host::look().unwrap();
        let has = |name: &&str| host.cgroup.controllers.contains(*name);
        let needed = crate::support::need::root().and(crate::support::need::cgroup2());
        if needed.is_err() || !controllers.iter().all(has) {
            let why = format!("needs root, and cgroup2 with the controllers {controllers:?}");
            crate::support::need::missing(&why);
            return None;
        }
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Some(Self {
            mount: host.cgroup.mount.clone().unwrap(),
            host,
            name: format!("bulkhead-test-{}-{number}", std::process::id()),
            children: Vec::new(),
        })
    }

    fn plan(&self, resources: &str) -> CgroupPlan {
        let resources: Resources = serde_json::from_str(resources).unwrap();
        resources.check().unwrap();
        let request = Request {
            id: "box",
            oci_version: "1.3.0",
            path: &format!("/{}/box", self.name),
            resources: Some(&resources),
            annotations: &BTreeMap::new(),
            owner: None,
        };
        cgroup::plan(&request, &self.host, Options::default()).unwrap()
    }

    fn prepared(&self, resources: &str) -> Enclosure {
        let plan = self.plan(resources);
        let made = Enclosure::prepare(&plan).unwrap();
        assert_eq!(made.filter_devices(&plan.limits).unwrap(), None);
        made
    }

    /// Somebody who stays a while, moved into the enclosure.
    fn inhabit(&mut self, enclosure: &mut Enclosure) -> i32 {
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        self.children.push(child);
        enclosure.adopt(pid).unwrap();
        pid
    }

    /// Somebody who stays a while and holds a few megabytes.
    fn fill(&mut self, enclosure: &mut Enclosure) {
        let script = "read x; x=$(head -c 4000000 /dev/zero | tr '\\0' a); echo full; sleep 1000";
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        enclosure.adopt(i32::try_from(child.id()).unwrap()).unwrap();
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        child
            .stdout
            .take()
            .unwrap()
            .read_exact(&mut [0; 5])
            .unwrap();
        self.children.push(child);
    }

    fn root(&self) -> PathBuf {
        self.mount.join(&self.name)
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.root().join("box").join(file))
            .unwrap()
            .trim()
            .to_owned()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Ok(mut left) = Enclosure::at(&self.root()) {
            left.kill().unwrap();
            left.wait_empty(soon()).unwrap();
            left.remove().unwrap();
        }
        for child in &mut self.children {
            child.wait().unwrap();
        }
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(90)
}

fn exists(path: &Path) -> bool {
    path.try_exists().unwrap()
}

#[test]
fn a_cgroup_is_made_with_everything_on_the_way_and_removed_with_everything_below() {
    let Some(scene) = Scene::with(&[]) else {
        return;
    };
    let mut made = scene.prepared("{}");
    let inner = scene.root().join("box/a/b");
    fs::create_dir_all(&inner).unwrap();
    made.remove().unwrap();
    assert!(!exists(&scene.root().join("box")));
}

#[test]
fn a_cgroup_that_is_gone_can_be_killed_emptied_and_removed() {
    let Some(scene) = Scene::with(&[]) else {
        return;
    };
    let mut made = scene.prepared("{}");
    fs::remove_dir(scene.root().join("box")).unwrap();
    made.kill().unwrap();
    made.wait_empty(soon()).unwrap();
    assert!(made.processes().unwrap().is_empty());
    made.remove().unwrap();
}

#[test]
fn a_cgroup_is_found_again_by_its_place_and_by_its_directory() {
    let Some(scene) = Scene::with(&[]) else {
        return;
    };
    let made = scene.prepared("{}");
    let kept = serde_json::to_string(made.place()).unwrap();
    let place: Place = serde_json::from_str(&kept).unwrap();
    assert!(Enclosure::open(&place).unwrap().exists());
    let found = Enclosure::at(&made.directory().unwrap()).unwrap();
    assert_eq!(found.directory(), made.directory());
}

#[test]
fn the_root_of_the_tree_is_nobodys_cgroup() {
    let Some(scene) = Scene::with(&[]) else {
        return;
    };
    assert!(matches!(
        Enclosure::at(&scene.mount),
        Err(EnclosureError::NotACgroup { .. })
    ));
    assert!(matches!(
        Enclosure::at(Path::new("/tmp/x")),
        Err(EnclosureError::NotACgroup { .. })
    ));
}

#[test]
fn a_cgroup_with_somebody_in_it_is_refused_and_left_alone() {
    let Some(mut scene) = Scene::with(&[]) else {
        return;
    };
    let mut first = scene.prepared("{}");
    let pid = scene.inhabit(&mut first);
    let refused = Enclosure::prepare(&scene.plan("{}")).unwrap_err();
    assert!(
        matches!(&refused, EnclosureError::NotEmpty { processes, .. } if processes == &[pid]),
        "{refused}"
    );
    assert_eq!(first.processes().unwrap(), [pid]);
}

#[test]
fn a_frozen_cgroup_is_refused() {
    let Some(scene) = Scene::with(&[]) else {
        return;
    };
    let first = scene.prepared("{}");
    first.freeze().unwrap();
    let refused = Enclosure::prepare(&scene.plan("{}")).unwrap_err();
    assert!(
        matches!(refused, EnclosureError::Frozen { .. }),
        "{refused}"
    );
}

#[test]
fn an_empty_cgroup_that_was_there_is_used() {
    let Some(scene) = Scene::with(&[]) else {
        return;
    };
    fs::create_dir_all(scene.root().join("box")).unwrap();
    assert!(scene.prepared("{}").exists());
}

#[test]
fn whoever_is_frozen_stands_until_thawed() {
    let Some(mut scene) = Scene::with(&[]) else {
        return;
    };
    let mut made = scene.prepared("{}");
    scene.inhabit(&mut made);
    made.freeze().unwrap();
    assert!(made.frozen().unwrap());
    assert!(scene.read("cgroup.events").contains("frozen 1"));
    made.thaw().unwrap();
    assert!(!made.frozen().unwrap());
    assert!(scene.read("cgroup.events").contains("frozen 0"));
}

#[test]
fn everybody_is_killed_wherever_below_and_however_frozen() {
    let Some(mut scene) = Scene::with(&[]) else {
        return;
    };
    let mut made = scene.prepared("{}");
    let first = scene.inhabit(&mut made);
    fs::create_dir(scene.root().join("box/inner")).unwrap();
    let mut inner = made.below(Path::new("inner")).unwrap();
    let second = scene.inhabit(&mut inner);
    let mut both = [first, second];
    both.sort_unstable();
    assert_eq!(made.processes().unwrap(), both);
    made.freeze().unwrap();
    made.kill().unwrap();
    made.wait_empty(soon()).unwrap();
    assert!(!made.populated().unwrap());
}

#[test]
fn waiting_for_emptiness_ends_at_its_deadline() {
    let Some(mut scene) = Scene::with(&[]) else {
        return;
    };
    let mut made = scene.prepared("{}");
    scene.inhabit(&mut made);
    let late = made
        .wait_empty(Instant::now() + Duration::from_millis(20))
        .unwrap_err();
    assert!(
        matches!(late, EnclosureError::Late { state: "empty", .. }),
        "{late}"
    );
}

#[test]
fn who_waits_for_a_cgroup_that_is_removed_hears_of_it() {
    let Some(mut scene) = Scene::with(&[]) else {
        return;
    };
    let mut made = scene.prepared("{}");
    scene.inhabit(&mut made);
    let place = scene.root().join("box");
    let waiting = Enclosure::at(&place).unwrap();
    let waits = std::thread::spawn(move || {
        waiting.wait_empty(soon()).unwrap();
        Instant::now()
    });
    // The kernel tells of events every 10 ms at most, and forgets one that is due when the group goes before that.
    std::thread::park_timeout(Duration::from_millis(50));
    fs::write(place.join("cgroup.freeze"), "1").unwrap();
    std::thread::park_timeout(Duration::from_millis(2));
    made.kill().unwrap();
    while fs::remove_dir(&place).is_err() {
        std::thread::yield_now();
    }
    let gone = Instant::now();
    let heard = waits.join().unwrap();
    let late = heard.saturating_duration_since(gone);
    assert!(late < Duration::from_secs(5), "{late:?}");
}

#[test]
fn a_path_that_leads_out_of_the_cgroup_is_refused() {
    let Some(scene) = Scene::with(&[]) else {
        return;
    };
    let made = scene.prepared("{}");
    let refused = made.below(Path::new("../..")).unwrap_err();
    assert!(
        matches!(refused, EnclosureError::Outside { .. }),
        "{refused}"
    );
    assert!(made.below(Path::new("/")).unwrap().exists());
}

#[test]
fn a_process_is_born_in_the_cgroup() {
    let Some(scene) = Scene::with(&[]) else {
        return;
    };
    let made = scene.prepared("{}");
    let birth = bulkhead::sys::clone::Birth {
        cgroup: made.birthplace(),
        ..bulkhead::sys::clone::Birth::default()
    };
    let child = bulkhead::sys::clone::spawn(birth, || {
        rustix::event::pause();
        0
    })
    .unwrap();
    assert_eq!(made.processes().unwrap(), [child.pid]);
    made.kill().unwrap();
    bulkhead::sys::process::wait(std::os::fd::AsFd::as_fd(&child.pidfd)).unwrap();
    made.wait_empty(soon()).unwrap();
}

#[test]
fn the_device_filter_lets_through_what_it_allows_and_nothing_else() {
    let Some(mut scene) = Scene::with(&[]) else {
        return;
    };
    let mut made = scene.prepared(r#"{"devices":[{"allow":false,"access":"rwm"}]}"#);
    assert!(opens(&mut scene, &mut made, "/dev/null"));
    assert!(!opens(&mut scene, &mut made, "/dev/kmsg"));
}

#[test]
fn the_device_filter_is_replaced_in_place() {
    let Some(mut scene) = Scene::with(&[]) else {
        return;
    };
    let mut made = scene.prepared("{}");
    for access in ["r", "w", "r"] {
        let rules = format!(
            r#"{{"devices":[{{"allow":true,"type":"c","major":1,"minor":11,"access":"{access}"}}]}}"#
        );
        let resources: Resources = serde_json::from_str(&rules).unwrap();
        let present = made.present().unwrap();
        let limits = cgroup::update(&resources, &present, &scene.host).unwrap();
        made.update(&limits).unwrap();
    }
    assert!(opens(&mut scene, &mut made, "/dev/kmsg"));
    assert_eq!(programs_at(&made), 1);
}

/// Whether somebody in the enclosure may open a file for reading.
fn opens(scene: &mut Scene, made: &mut Enclosure, file: &str) -> bool {
    let mut shell = Command::new("sh")
        .args(["-c", "read line; exec 3<\"$1\"", "sh", file])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    made.adopt(i32::try_from(shell.id()).unwrap()).unwrap();
    shell.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let opened = shell.wait().unwrap().success();
    made.wait_empty(soon()).unwrap();
    scene
        .children
        .retain_mut(|child| child.try_wait().unwrap().is_none());
    opened
}

fn programs_at(made: &Enclosure) -> usize {
    let name = *b"bulkhead_device\0";
    bulkhead::sys::bpf::attached(made.birthplace().unwrap(), name)
        .unwrap()
        .len()
}

#[test]
fn the_processors_time_is_counted_for_every_cgroup() {
    let Some(mut scene) = Scene::with(&[]) else {
        return;
    };
    let mut made = scene.prepared("{}");
    scene.fill(&mut made);
    let cpu = made.counters().unwrap().cpu;
    assert!(cpu.usage_us > 0);
    assert_eq!(cpu.throttled_periods, 0);
}

#[test]
fn every_controller_counts() {
    let Some(mut scene) = Scene::with(&["cpuset", "memory", "pids", "hugetlb", "io"]) else {
        return;
    };
    let mut made = scene.prepared(
        r#"{"memory":{"limit":67108864},"pids":{"limit":17},"cpu":{"cpus":"0"},
            "hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#,
    );
    scene.fill(&mut made);
    let found = made.counters().unwrap();
    let memory = found.memory.unwrap();
    assert!(memory.current_bytes > 4_000_000);
    assert!(memory.stat["anon"] > 3_000_000);
    assert_eq!(memory.max_bytes, Some(67_108_864));
    assert_eq!(found.pids.unwrap().max, Some(17));
    assert_eq!(found.cpuset.unwrap().cpus, "0");
    assert_eq!(found.hugetlb["2MB"].max_bytes, Some(4_194_304));
}

#[test]
fn a_kill_for_lack_of_memory_is_told_and_then_the_end() {
    let Some(mut scene) = Scene::with(&["memory"]) else {
        return;
    };
    let mut made = scene.prepared(r#"{"memory":{"limit":8388608,"swap":8388608}}"#);
    let mut watches = [made.watch().unwrap()];
    let mut glutton = Command::new("sh")
        .args(["-c", "read x; x=$(head -c 64000000 /dev/zero | tr '\\0' a)"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    made.adopt(i32::try_from(glutton.id()).unwrap()).unwrap();
    glutton.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let first = watch::first(&mut watches, Some(soon())).unwrap();
    let second = watch::first(&mut watches, Some(soon())).unwrap();
    assert_eq!(
        [first, second],
        [
            Some((0, Event::OutOfMemory { kills: 1 })),
            Some((0, Event::Empty))
        ]
    );
    assert_eq!(made.oom_kills().unwrap(), 1);
    scene.children.push(glutton);
}

#[test]
fn a_group_that_is_given_away_is_given_with_the_files_for_it_and_no_others() {
    use std::os::unix::fs::MetadataExt;
    let Some(scene) = Scene::with(&["memory"]) else {
        return;
    };
    let mut plan = scene.plan(r#"{"memory":{"limit":67108864}}"#);
    plan.owner = Some(1000);
    let _made = Enclosure::prepare(&plan).unwrap();
    let directory = scene.root().join("box");
    let owner = |file: &str| fs::metadata(directory.join(file)).unwrap().uid();
    let given = [
        ".",
        "cgroup.procs",
        "cgroup.subtree_control",
        "cgroup.threads",
    ]
    .map(owner);
    assert_eq!(given, [1000; 4]);
    assert_eq!(
        ["memory.max", "cgroup.freeze", "cgroup.kill"].map(owner),
        [0; 3]
    );
}

#[test]
fn a_group_below_one_of_threads_holds_threads_and_can_be_killed() {
    let Some(mut scene) = Scene::with(&["pids", "memory"]) else {
        return;
    };
    fs::create_dir(scene.root()).unwrap();
    fs::create_dir(scene.root().join("sibling")).unwrap();
    fs::write(scene.root().join("sibling/cgroup.type"), "threaded").unwrap();
    let refused = Enclosure::prepare(&scene.plan(r#"{"memory":{"limit":67108864}}"#)).unwrap_err();
    assert!(
        !matches!(refused, EnclosureError::Frozen { .. }),
        "{refused}"
    );
    let mut made = scene.prepared(r#"{"pids":{"limit":9}}"#);
    assert_eq!(scene.read("cgroup.type"), "threaded");
    let mut parent = Enclosure::at(&scene.root()).unwrap();
    let pid = scene.inhabit(&mut parent);
    fs::write(scene.root().join("box/cgroup.threads"), pid.to_string()).unwrap();
    assert_eq!(made.processes().unwrap(), [pid]);
    made.kill().unwrap();
    made.wait_empty(soon()).unwrap();
    made.remove().unwrap();
}

#[test]
fn a_rate_is_in_force_for_its_device() {
    let Some(scene) = Scene::with(&["io"]) else {
        return;
    };
    let disks = fs::read_dir("/sys/block")
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let disk = disks
        .filter(|path| path.join("device").exists())
        .min()
        .unwrap();
    let device = fs::read_to_string(disk.join("dev"))
        .unwrap()
        .trim()
        .to_owned();
    let (major, minor) = device.split_once(':').unwrap();
    let entry = |rate: u64| format!(r#"[{{"major":{major},"minor":{minor},"rate":{rate}}}]"#);
    let _made = scene.prepared(&format!(
        r#"{{"blockIO":{{"throttleReadBpsDevice":{},"throttleWriteIOPSDevice":{}}}}}"#,
        entry(1_048_576),
        entry(100),
    ));
    assert_eq!(
        scene.read("io.max"),
        format!("{device} rbps=1048576 wbps=max riops=max wiops=100")
    );
}

#[test]
fn a_cgroup_below_a_frozen_one_is_refused() {
    let Some(scene) = Scene::with(&[]) else {
        return;
    };
    fs::create_dir(scene.root()).unwrap();
    fs::write(scene.root().join("cgroup.freeze"), "1").unwrap();
    let refused = Enclosure::prepare(&scene.plan("{}")).unwrap_err();
    assert!(
        matches!(refused, EnclosureError::Frozen { .. }),
        "{refused}"
    );
    assert!(!exists(&scene.root().join("box")));
}
