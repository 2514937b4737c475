//! Where a cgroup is, for every way of saying it.

use std::collections::BTreeMap;

use super::*;
use crate::host::cgroup::Cgroups;
use crate::host::cgroup::Mode;

fn host(own: &str) -> Host {
    Host {
        cgroup: Cgroups {
            mode: Mode::Unified,
            mount: Some(PathBuf::from("/sys/fs/cgroup")),
            own: PathBuf::from(own),
            systemd: true,
            ..Cgroups::default()
        },
        ..Host::default()
    }
}

fn chosen(path: &str, manager: Manager, rootless: bool) -> Result<Place, CgroupError> {
    placed(path, Options { manager, rootless }, false)
}

fn placed(path: &str, options: Options, promised: bool) -> Result<Place, CgroupError> {
    let request = Request {
        id: "web-1",
        oci_version: "1.3.0",
        path,
        resources: None,
        annotations: &BTreeMap::new(),
        owner: None,
    };
    choose(&request, &host("/user.slice/me.scope"), options, promised)
}

fn directory(path: &str) -> PathBuf {
    chosen(path, Manager::Cgroupfs, false)
        .unwrap()
        .directory()
        .unwrap()
}

fn scope_of(path: &str, rootless: bool) -> (PathBuf, String) {
    let chosen = chosen(path, Manager::Systemd, rootless).unwrap();
    let Place::Scope { path, unit, .. } = chosen else {
        panic!("{chosen:?}")
    };
    (path, unit.slice)
}

#[test]
fn an_absolute_path_starts_at_the_mount_point() {
    assert_eq!(
        directory("/docker/abc"),
        Path::new("/sys/fs/cgroup/docker/abc")
    );
}

#[test]
fn a_relative_path_starts_beside_the_caller() {
    assert_eq!(
        directory("pod/abc"),
        Path::new("/sys/fs/cgroup/user.slice/pod/abc")
    );
}

#[test]
fn without_a_path_the_id_is_the_name() {
    assert_eq!(directory(""), Path::new("/sys/fs/cgroup/user.slice/web-1"));
}

#[test]
fn a_path_that_leads_out_is_refused() {
    let given = "/a/../../b".to_owned();
    assert_eq!(
        chosen(&given, Manager::Cgroupfs, false),
        Err(CgroupError::PathEscapes { given })
    );
}

#[test]
fn the_root_itself_is_refused() {
    assert_eq!(
        chosen("/", Manager::Cgroupfs, false),
        Err(CgroupError::PathEscapes {
            given: "/".to_owned()
        })
    );
}

#[test]
fn a_scope_is_inside_its_slices() {
    assert_eq!(
        scope_of("machine-vm.slice:libpod:abc", false),
        (
            PathBuf::from("machine.slice/machine-vm.slice/libpod-abc.scope"),
            "machine-vm.slice".to_owned()
        )
    );
}

#[test]
fn a_scope_without_a_path_is_named_after_the_id() {
    assert_eq!(
        scope_of("", false),
        (
            PathBuf::from("system.slice/bulkhead-web-1.scope"),
            "system.slice".to_owned()
        )
    );
}

#[test]
fn a_scope_of_a_user_is_below_the_user_manager() {
    assert_eq!(
        scope_of("", true).0,
        PathBuf::from("user.slice/user-0.slice/user@0.service/user.slice/bulkhead-web-1.scope")
    );
}

#[test]
fn a_scope_without_a_prefix_has_no_dash_in_front() {
    assert_eq!(
        scope_of("a.slice::x", false).0,
        PathBuf::from("a.slice/x.scope")
    );
}

#[test]
fn a_character_that_no_unit_may_have_is_escaped() {
    assert_eq!(
        scope_of("-.slice:p:a+b", false).0,
        PathBuf::from("p-a\\x2bb.scope")
    );
}

#[test]
fn two_words_are_no_scope() {
    assert_eq!(
        chosen("a.slice:b", Manager::Systemd, false),
        Err(CgroupError::NotAScope {
            given: "a.slice:b".to_owned()
        })
    );
}

#[test]
fn a_slice_with_an_empty_part_is_refused() {
    assert!(expand_slice("a--b.slice").is_err());
    assert!(expand_slice("a/b.slice").is_err());
    assert!(expand_slice("a.service").is_err());
}

#[test]
fn a_disabled_manager_makes_no_place() {
    assert_eq!(chosen("/x", Manager::Disabled, false), Ok(Place::Nowhere));
}

#[test]
fn whoever_is_promised_something_is_where_all_are_weighed() {
    let options = |manager, rootless| Options { manager, rootless };
    let at = |manager, rootless| {
        let place = placed("", options(manager, rootless), true).unwrap();
        refuse_unweighed(
            &place,
            &host("/user.slice/me.scope"),
            options(manager, rootless),
        )
        .unwrap();
        place.directory().unwrap()
    };
    assert_eq!(
        at(Manager::Cgroupfs, false),
        Path::new("/sys/fs/cgroup/bulkhead/web-1")
    );
    assert_eq!(
        at(Manager::Cgroupfs, true),
        Path::new("/sys/fs/cgroup/user.slice/bulkhead/web-1")
    );
    assert_eq!(
        at(Manager::Systemd, false),
        Path::new("/sys/fs/cgroup/bulkhead.slice/bulkhead-web-1.scope")
    );
}

#[test]
fn a_promise_is_refused_where_nobody_weighs_the_neighbours() {
    for path in ["/web-1", "/docker/web-1", "/a/bulkhead/web-1"] {
        let options = Options::default();
        let place = placed(path, options, true).unwrap();
        let refused = refuse_unweighed(&place, &host("/user.slice/me.scope"), options);
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("say \"/bulkhead/NAME\""), "{text}");
    }
}

#[test]
fn a_path_of_a_document_is_a_scope_where_systemd_makes_it() {
    let (path, slice) = scope_of("/bulkhead/web-1", false);
    assert_eq!(path, Path::new("bulkhead.slice/bulkhead-web-1.scope"));
    assert_eq!(slice, "bulkhead.slice");
}

/// What is planned for a workspace that shall have no cgroup.
fn without(resources: &str, rootless: bool) -> Result<crate::plan::cgroup::CgroupPlan, String> {
    let resources = serde_json::from_str(resources).unwrap();
    let request = Request {
        id: "web-1",
        oci_version: "1.3.0",
        path: "",
        resources: Some(&resources),
        annotations: &BTreeMap::new(),
        owner: None,
    };
    let options = Options {
        manager: Manager::Disabled,
        rootless,
    };
    let planned = crate::plan::cgroup::plan(&request, &Host::default(), options);
    planned.map_err(|error| error.to_string())
}

#[test]
fn a_limit_without_a_cgroup_to_keep_it_in_is_refused() {
    let limits = [
        (
            r#"{"memory": {"limit": 4096}}"#,
            "linux.resources.memory.limit: ",
        ),
        (r#"{"pids": {"limit": 5}}"#, "linux.resources.pids.limit: "),
        (
            r#"{"cpu": {"shares": 512}}"#,
            "linux.resources.cpu.shares: ",
        ),
        (
            r#"{"unified": {"memory.high": "1"}}"#,
            "linux.resources.unified[\"memory.high\"]: ",
        ),
    ];
    for (resources, field) in limits {
        let words = without(resources, false).unwrap_err();
        assert!(words.starts_with(field), "{words}");
        assert!(words.contains("--cgroup-manager disabled"), "{words}");
    }
}

#[test]
fn what_limits_nothing_needs_no_cgroup() {
    let nothing = [
        "{}",
        r#"{"memory": {"limit": -1}, "pids": {"limit": -1}}"#,
        r#"{"cpu": {"shares": 0}, "blockIO": {"weight": 0}}"#,
    ];
    for resources in nothing {
        let planned = without(resources, false).unwrap();
        assert_eq!(planned.limits.writes, []);
        assert_eq!(planned.limits.ignored, Vec::<String>::new());
    }
}

#[test]
fn rules_for_devices_without_a_cgroup_are_passed_over_with_a_word() {
    let rules = r#"{"devices": [{"allow": false, "access": "rwm"}]}"#;
    let planned = without(rules, false).unwrap();
    assert_eq!(planned.limits.devices, None);
    let word = &planned.limits.ignored[0];
    assert!(
        word.starts_with("ignoring linux.resources.devices: "),
        "{word}"
    );
    assert_eq!(
        without(rules, true).unwrap().limits.ignored,
        Vec::<String>::new()
    );
}
