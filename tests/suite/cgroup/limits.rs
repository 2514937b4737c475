//! Limits on a real kernel: in force after creation, changed by an update, refused by name.

use std::path::PathBuf;

use bulkhead::enclosure::Enclosure;
use bulkhead::enclosure::EnclosureError;
use bulkhead::plan::cgroup;
use bulkhead::spec::resources::Resources;

use super::Scene;
use super::exists;

#[test]
fn a_limit_that_is_not_taken_names_its_field_and_leaves_nothing_behind() {
    let Some(scene) = Scene::with(&[]) else {
        return;
    };
    let plan = scene.plan(r#"{"unified":{"cgroup.max.depth":"nonsense"}}"#);
    let refused = Enclosure::prepare(&plan).unwrap_err().to_string();
    assert!(refused.starts_with("linux.resources.unified[\"cgroup.max.depth\"]: cannot write"));
    assert!(!exists(&scene.root()));
}

#[test]
fn what_cgroup_v1_holds_is_refused_with_its_place() {
    let Some(scene) = Scene::with(&[]) else {
        return;
    };
    let mut host = scene.host.clone();
    host.cgroup.controllers.remove("memory");
    host.cgroup.legacy = [("memory".to_owned(), PathBuf::from("/sys/fs/cgroup/memory"))].into();
    let resources: Resources = serde_json::from_str(r#"{"memory":{"limit":1}}"#).unwrap();
    let refused = cgroup::update(&resources, &cgroup::Present::default(), &host).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "linux.resources.memory.limit: the memory controller is bound to cgroup v1 at \
         /sys/fs/cgroup/memory; this runtime sets limits in cgroup v2 only: boot with \
         `systemd.unified_cgroup_hierarchy=1` (or `cgroup_no_v1=all`), or leave the field out"
    );
}

#[test]
fn every_limit_is_in_force_after_creation() {
    let needed = ["cpu", "cpuset", "memory", "pids", "hugetlb", "io"];
    let Some(scene) = Scene::with(&needed) else {
        return;
    };
    let _made = scene.prepared(
        r#"{"memory":{"limit":67108864,"swap":100663296,"reservation":33554432},
            "cpu":{"shares":512,"quota":50000,"period":100000,"burst":10000,"cpus":"0","mems":"0"},
            "pids":{"limit":17},
            "hugepageLimits":[{"pageSize":"2MB","limit":4194304}],
            "unified":{"memory.high":"50331648","cgroup.max.descendants":"7"}}"#,
    );
    let expected = [
        ("memory.max", "67108864"),
        ("memory.low", "33554432"),
        ("memory.high", "50331648"),
        ("cpu.weight", "59"),
        ("cpu.max", "50000 100000"),
        ("cpu.max.burst", "10000"),
        ("cpuset.cpus", "0"),
        ("cpuset.mems", "0"),
        ("pids.max", "17"),
        ("hugetlb.2MB.max", "4194304"),
        ("hugetlb.2MB.rsvd.max", "4194304"),
        ("cgroup.max.descendants", "7"),
    ];
    let found = expected.map(|(file, _)| (file, scene.read(file)));
    assert_eq!(
        found,
        expected.map(|(file, value)| (file, value.to_owned()))
    );
}

#[test]
fn an_idle_group_has_its_turn_when_nobody_else_runs() {
    let Some(mut scene) = Scene::with(&["cpu"]) else {
        return;
    };
    let mut made = scene.prepared(r#"{"cpu":{"idle":1,"shares":512}}"#);
    scene.inhabit(&mut made);
    assert_eq!(scene.read("cpu.idle"), "1");
    update(&scene, &mut made, r#"{"cpu":{"idle":0}}"#).unwrap();
    assert_eq!(scene.read("cpu.idle"), "0");
    update(&scene, &mut made, r#"{"cpu":{"shares":512}}"#).unwrap();
    assert_eq!(scene.read("cpu.weight"), "59");
}

#[test]
fn a_limit_of_huge_pages_is_lifted_as_all_others_are() {
    let Some(mut scene) = Scene::with(&["hugetlb"]) else {
        return;
    };
    let limit =
        |bytes: i64| format!(r#"{{"hugepageLimits":[{{"pageSize":"2MB","limit":{bytes}}}]}}"#);
    let mut made = scene.prepared(&limit(4_194_304));
    scene.inhabit(&mut made);
    assert_eq!(scene.read("hugetlb.2MB.max"), "4194304");
    update(&scene, &mut made, &limit(-1)).unwrap();
    assert_eq!(scene.read("hugetlb.2MB.max"), "max");
    assert_eq!(scene.read("hugetlb.2MB.rsvd.max"), "max");
}

#[test]
fn an_update_changes_what_it_names_and_leaves_the_rest() {
    let Some(mut scene) = Scene::with(&["cpu", "memory", "pids"]) else {
        return;
    };
    let mut made = scene.prepared(
        r#"{"memory":{"limit":67108864,"swap":67108864},"cpu":{"quota":50000},"pids":{"limit":9}}"#,
    );
    scene.inhabit(&mut made);
    let change = r#"{"memory":{"limit":33554432,"swap":0},"cpu":{"period":50000,"quota":0},
        "pids":{"limit":0}}"#;
    update(&scene, &mut made, change).unwrap();
    let found = ["memory.max", "cpu.max", "pids.max"].map(|file| scene.read(file));
    assert_eq!(found, ["33554432", "50000 50000", "9"]);
}

#[test]
fn a_limit_below_what_is_in_use_is_refused_on_request() {
    let Some(mut scene) = Scene::with(&["memory"]) else {
        return;
    };
    let mut made = scene.prepared(r#"{"memory":{"limit":67108864}}"#);
    scene.fill(&mut made);
    let refused = update(
        &scene,
        &mut made,
        r#"{"memory":{"limit":4096,"checkBeforeUpdate":true}}"#,
    );
    assert!(matches!(
        refused,
        Err(EnclosureError::MemoryInUse { limit: 4096, .. })
    ));
    assert_eq!(scene.read("memory.max"), "67108864");
}

fn update(scene: &Scene, made: &mut Enclosure, change: &str) -> Result<(), EnclosureError> {
    let resources: Resources = serde_json::from_str(change).unwrap();
    let limits = cgroup::update(&resources, &made.present()?, &scene.host).unwrap();
    made.update(&limits)
}
