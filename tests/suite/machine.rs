//! Plans of machines: as text that is kept, and what a machine is refused for, each by its property.

use std::path::PathBuf;

use bulkhead::plan::Options;
use bulkhead::plan::cgroup::Present;
use bulkhead::plan::machine;
use bulkhead::plan::machine::Facts;
use bulkhead::plan::machine::Kind;
use bulkhead::plan::machine::MachinePlan;
use bulkhead::plan::machine::Size;
use bulkhead::plan::step::Step;
use bulkhead::spec::Spec;
use bulkhead::spec::resources::Resources;
use serde_json::Value;
use serde_json::json;

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/plans")
}

fn config() -> Value {
    let bytes = std::fs::read(fixtures().join("machine.json")).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

/// The plan of a changed configuration, for a bundle at a fixed place whose mounts lead to `kind`.
fn planned(change: impl FnOnce(&mut Value), kind: Kind) -> Result<MachinePlan, String> {
    let mut config = config();
    change(&mut config);
    let spec = Spec::parse(config.to_string().as_bytes()).unwrap();
    spec.validate().unwrap();
    let options = Options {
        id: "golden".to_owned(),
        bundle: PathBuf::from("/bundle"),
        ..Options::default()
    };
    let facts = Facts {
        sources: spec.mounts.iter().map(|_| Some(kind)).collect(),
        hostname: "host".to_owned(),
        ..Facts::default()
    };
    machine::plan(&spec, &options, &facts).map_err(|error| error.to_string())
}

#[track_caller]
fn refused(change: impl FnOnce(&mut Value)) -> String {
    planned(change, Kind::Directory).unwrap_err()
}

/// `BULKHEAD_KEEP_PLANS=1` keeps the new text, to be read before it is committed.
#[test]
fn a_machine_is_planned_as_kept() {
    let text = planned(|_| {}, Kind::Directory).unwrap().to_string();
    let file = fixtures().join("machine.txt");
    if std::env::var_os("BULKHEAD_KEEP_PLANS").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&file).unwrap());
}

#[test]
fn a_machine_is_as_large_as_what_its_workload_may_use() {
    let size = |change: fn(&mut Value)| planned(change, Kind::Directory).unwrap().size;
    let asked = size(|_| {});
    assert_eq!(asked.vcpus, 2, "the hardware that was asked for");
    assert!(asked.memory_bytes > 256 << 20, "{asked:?}");
    let limited = size(|config| config["vm"] = Value::Null);
    assert_eq!(limited.vcpus, 3, "two and a half processors, rounded up");
    let whole = size(|config| config["vm"]["hwConfig"]["memory"] = json!(1_u64 << 30));
    assert_eq!(whole.memory_bytes, 1 << 30);
    let usual = size(|config| {
        config["vm"] = Value::Null;
        config["linux"]["resources"] = Value::Null;
    });
    assert_eq!((usual.vcpus, usual.memory_bytes >> 20), (1, 616));
}

#[test]
fn memory_is_of_huge_pages_where_that_is_asked_for() {
    let asked = |annotations: Value| {
        let change = |config: &mut Value| config["annotations"] = annotations;
        planned(change, Kind::Directory).unwrap()
    };
    let plan = asked(json!({"dev.bulkhead.machine.hugepages": "true"}));
    assert!(plan.hugepages && plan.to_string().contains(" in huge pages\n"));
    assert!(plan.size.memory_bytes.is_multiple_of(2 << 20));
    assert!(!asked(json!({})).hugepages);
}

#[test]
fn the_enclosure_has_room_for_the_machine_and_the_guest_keeps_the_limits() {
    let plan = planned(|_| {}, Kind::Directory).unwrap();
    assert_eq!(plan.limits.memory_bytes, Some(256 << 20));
    assert_eq!(plan.limits.pids, Some(64));
    let memory = plan.resources.memory.clone().unwrap();
    let more = i64::try_from(plan.extent().overhead()).unwrap();
    assert_eq!(memory.limit, Some((256 << 20) + more));
    assert_eq!(memory.swap, Some((512 << 20) + more));
    assert_eq!(plan.resources.cpu.clone().unwrap().quota, Some(312_500));
    assert_eq!(plan.resources.pids, None);
}

#[test]
fn files_of_memory_that_are_named_themselves_hold_inside_and_have_the_machine_on_top_outside() {
    let unified = json!({
        "memory.max": "134217728", "memory.high": "100000000", "memory.oom.group": "1", "pids.max": "9",
    });
    let plan = planned(
        |config| {
            config["vm"] = Value::Null;
            config["linux"]["resources"]["unified"] = unified;
        },
        Kind::Directory,
    )
    .unwrap();
    let inside = plan.limits;
    assert_eq!(inside.memory_bytes, Some(128 << 20), "it wins");
    assert_eq!(
        (inside.high_bytes, inside.pids),
        (Some(100_000_000), Some(9))
    );
    assert!(inside.ends_whole);
    let more = plan.extent().overhead();
    let outside = |file: &str| plan.resources.unified.get(file).cloned();
    assert_eq!(
        outside("memory.max"),
        Some(((128 << 20) + more).to_string())
    );
    assert_eq!(
        outside("memory.high"),
        Some((100_000_000 + more).to_string())
    );
    assert_eq!(outside("pids.max"), None, "tasks are counted inside");
    let odd = planned(
        |config| config["linux"]["resources"]["unified"] = json!({"pids.max": "many"}),
        Kind::Directory,
    );
    let left = odd.unwrap().resources.unified;
    assert_eq!(left["pids.max"], "many", "for the kernel to refuse");
    let change = json!({"unified": {"memory.high": "max", "memory.oom.group": "0"}});
    let changed = plan
        .extent()
        .changed(&serde_json::from_value(change).unwrap());
    let changed = changed.unwrap();
    assert_eq!((changed.high_bytes, changed.ends_whole), (None, false));
    assert_eq!(changed.memory_bytes, inside.memory_bytes);
}

#[test]
fn what_is_started_again_for_want_of_memory_ends_as_a_whole_before() {
    let ends_whole = |annotations: Value| {
        let change = |config: &mut Value| config["annotations"] = annotations;
        planned(change, Kind::Directory).unwrap().limits.ends_whole
    };
    assert!(ends_whole(
        json!({"dev.bulkhead.memory.on_over_limit": "reset"})
    ));
    assert!(!ends_whole(json!({})));
}

#[test]
fn processors_are_held_to_what_the_workload_may_use_and_not_where_they_cannot_use_more() {
    let size = |vcpus| Size {
        vcpus,
        ..Size::default()
    };
    let asked = |quota: i64| -> Resources {
        serde_json::from_value(json!({"cpu": {"quota": quota, "period": 100_000}})).unwrap()
    };
    let quota = |quota, vcpus, present: Option<i64>| {
        let present = Present {
            cpu_quota: present,
            ..Present::default()
        };
        let held = machine::of_processors(&asked(quota), size(vcpus), &present)?;
        held.cpu.unwrap().quota
    };
    assert_eq!(quota(50_000, 1, None), Some(50_000));
    assert_eq!(quota(150_000, 2, None), Some(150_000));
    assert_eq!(quota(100_000, 1, None), None, "one processor uses one");
    assert_eq!(quota(-1, 2, Some(50_000)), Some(-1), "what was there goes");
    assert_eq!(quota(0, 2, Some(50_000)), Some(50_000));
}

#[test]
fn more_memory_than_the_machine_has_is_refused() {
    let extent = planned(|_| {}, Kind::Directory).unwrap().extent();
    let asked =
        |limit: i64| serde_json::from_value(json!({ "memory": { "limit": limit } })).unwrap();
    assert_eq!(
        extent.changed(&asked(128 << 20)).unwrap().memory_bytes,
        Some(128 << 20)
    );
    let lower = extent.changed(&asked(128 << 20)).unwrap().spare_bytes;
    assert!(
        (120 << 20..136 << 20).contains(&lower),
        "{lower} given back"
    );
    let none = extent.changed(&asked(-1)).unwrap();
    assert_eq!((none.memory_bytes, none.spare_bytes), (None, 0));
    let text = extent.changed(&asked(1 << 40)).unwrap_err().to_string();
    assert!(text.starts_with("linux.resources.memory.limit: "), "{text}");
}

#[test]
fn what_is_the_hosts_is_refused_by_its_property() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 13] = [
        ("linux.namespaces[0].path: ", |config| {
            config["linux"]["namespaces"][0]["path"] = json!("/proc/1/ns/pid");
        }),
        ("linux.namespaces: ", |config| {
            config["linux"]["namespaces"]
                .as_array_mut()
                .unwrap()
                .remove(0);
        }),
        ("linux.devices[0].path: ", |config| {
            config["linux"]["devices"] =
                json!([{"path": "/dev/sda", "type": "b", "major": 8, "minor": 0}]);
        }),
        ("mounts[0].type: ", |config| {
            config["mounts"][0] =
                json!({"destination": "/mnt", "type": "xfs", "source": "/dev/sda"});
        }),
        ("mounts[2].options: ", |config| {
            config["mounts"][2]["options"] = json!(["bind", "rshared"]);
        }),
        ("linux.seccomp.listenerPath: ", |config| {
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "listenerPath": "/run/agent",
                "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
            });
        }),
        ("linux.intelRdt: ", |config| {
            config["linux"]["intelRdt"] = json!({"closID": "a"})
        }),
        ("linux.netDevices: ", |config| {
            config["linux"]["netDevices"] = json!({"eth7": {}})
        }),
        ("linux.memoryPolicy: ", |config| {
            config["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "0"});
        }),
        ("process.execCPUAffinity: ", |config| {
            config["process"]["execCPUAffinity"] = json!({"initial": "0"});
        }),
        ("hooks.createContainer[0].path: ", |config| {
            config["hooks"]["createContainer"] = json!([{"path": "/hook"}]);
        }),
        ("vm.hypervisor.path: ", |config| {
            config["vm"]["hypervisor"] = json!({"path": "/qemu"})
        }),
        ("vm.hwConfig.vcpus: ", |config| {
            config["vm"]["hwConfig"]["vcpus"] = json!(33)
        }),
    ];
    for (property, change) in cases {
        let text = refused(change);
        assert!(text.starts_with(property), "{property}: {text}");
    }
}

#[test]
fn annotations_that_describe_machines_to_others_are_refused() {
    for name in [
        "io.katacontainers.config_path",
        "io.katacontainers.config.hypervisor.virtio_fs_extra_args",
        "krun.use_passt",
    ] {
        let text = refused(|config| config["annotations"] = json!({ name: "-o source=/" }));
        let expected = format!("annotations[{name:?}]: ");
        assert!(text.starts_with(&expected), "{text}");
    }
}

#[test]
fn a_mount_of_a_socket_is_refused_and_one_of_a_file_is_not() {
    let text = planned(|_| {}, Kind::Other).unwrap_err();
    assert!(text.starts_with("mounts[2].source: "), "{text}");
    assert!(planned(|_| {}, Kind::File).is_ok());
}

#[test]
fn a_file_system_on_a_disk_is_mounted_from_a_disk_of_the_machine() {
    let on_disk = |options: Value| {
        move |config: &mut Value| {
            let mounts = config["mounts"].as_array_mut().unwrap();
            for (place, kind, source) in [
                ("/a", "ext4", "/dev/sda1"),
                ("/b", "erofs", "image"),
                ("/c", "ext4", "/dev/sda1"),
            ] {
                mounts.push(json!({"destination": place, "type": kind, "source": source, "options": options}));
            }
        }
    };
    let plan = planned(on_disk(json!([])), Kind::File).unwrap();
    let shown: Vec<String> = plan.disks.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["/dev/sda1", "/bundle/image, read-only"]);
    let sources = plan.plan.steps.iter().filter_map(|step| {
        let Step::Mount(mount) = step else {
            return None;
        };
        Some(mount.source.as_str()).filter(|source| source.starts_with("/dev/"))
    });
    let sources: Vec<&str> = sources.collect();
    assert_eq!(sources, ["/dev/vda", "/dev/vdb", "/dev/vda"]);
    let plan = planned(on_disk(json!(["ro"])), Kind::File).unwrap();
    assert!(plan.disks.iter().all(|disk| disk.read_only));
    let words = planned(on_disk(json!([])), Kind::Directory).unwrap_err();
    assert!(words.contains("is no block device and no image"), "{words}");
}

#[test]
fn labels_of_the_hosts_kernel_are_passed_over_and_said() {
    let plan = planned(
        |config| config["process"]["apparmorProfile"] = json!("docker-default"),
        Kind::Directory,
    );
    let remarks = plan.unwrap().remarks;
    assert_eq!(remarks.len(), 1);
    assert!(
        remarks[0].starts_with("process.apparmorProfile: "),
        "{remarks:?}"
    );
}
