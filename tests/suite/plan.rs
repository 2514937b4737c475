//! Plans as data: the same for the same spec, whole after a journey, and in an order that is safe.

use std::path::PathBuf;

use bulkhead::plan;
use bulkhead::plan::Options;
use bulkhead::plan::Plan;
use bulkhead::plan::namespaces::NetworkMaker;
use bulkhead::plan::step::Barrier;
use bulkhead::plan::step::Step;
use bulkhead::spec::Spec;
use serde_json::Value;
use serde_json::json;

const EVERY_PROPERTY: &str = include_str!("../../runtime-spec/examples/every-property.json");

fn options() -> Options {
    Options {
        id: "web-1".to_owned(),
        bundle: PathBuf::from("/srv/web-1"),
        cgroup: Some(PathBuf::from("/sys/fs/cgroup/web-1")),
        apparmor: true,
        selinux: true,
        ..Options::default()
    }
}

fn every_property() -> Spec {
    Spec::parse(EVERY_PROPERTY.as_bytes()).unwrap()
}

fn planned(spec: &Spec) -> Plan {
    plan::build(spec, &options()).unwrap()
}

/// The places of all steps of a kind in a plan.
fn places(plan: &Plan, is_meant: impl Fn(&Step) -> bool) -> Vec<usize> {
    let steps = plan.steps.iter().enumerate();
    steps
        .filter(|(_, step)| is_meant(step))
        .map(|(place, _)| place)
        .collect()
}

/// Whether each kind comes, as a whole, before the next one; a kind that is not there is in nobody's way.
fn in_order(plan: &Plan, kinds: &[fn(&Step) -> bool]) -> bool {
    let places: Vec<usize> = kinds.iter().flat_map(|kind| places(plan, kind)).collect();
    places.is_sorted()
}

#[test]
fn the_same_spec_gives_the_same_bytes() {
    for spec in [
        every_property(),
        Spec::starter(),
        Spec::starter_rootless(1000, 1000),
    ] {
        let bytes = |plan: &Plan| serde_json::to_vec(plan).unwrap();
        assert_eq!(bytes(&planned(&spec)), bytes(&planned(&spec)));
    }
}

#[test]
fn a_plan_is_whole_after_a_journey() {
    let plan = planned(&every_property());
    let there = serde_json::to_vec(&plan).unwrap();
    assert_eq!(serde_json::from_slice::<Plan>(&there).unwrap(), plan);
}

#[test]
fn every_step_says_in_words_what_it_does() {
    let plan = planned(&every_property());
    let texts: Vec<String> = plan.steps.iter().map(ToString::to_string).collect();
    let raw = texts
        .iter()
        .filter(|text| text.is_empty() || text.contains(" { "));
    assert_eq!(raw.collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn the_root_is_built_before_it_is_entered_and_hidden_paths_are_hidden_inside() {
    let kinds: [fn(&Step) -> bool; 6] = [
        |step| matches!(step, Step::Propagate(_)),
        |step| matches!(step, Step::Root { .. }),
        |step| {
            matches!(
                step,
                Step::Mount(_) | Step::Bind(_) | Step::Device(_) | Step::Symlink { .. }
            )
        },
        |step| matches!(step, Step::Enter(_)),
        |step| matches!(step, Step::Sysctl { .. }),
        |step| matches!(step, Step::Mask(_) | Step::Readonly(_)),
    ];
    assert!(in_order(&planned(&every_property()), &kinds));
}

#[test]
fn the_network_is_there_before_what_depends_on_it_and_the_rest_does_not_wait_for_it() {
    let first = |change: fn(&mut Value)| {
        let mut config = serde_json::to_value(Spec::starter()).unwrap();
        change(&mut config);
        let plan = planned(&Spec::parse(config.to_string().as_bytes()).unwrap());
        assert_eq!(plan.namespaces.network_by, NetworkMaker::Outside);
        let joined = places(&plan, |step| matches!(step, Step::JoinNetwork))[0];
        // Who may want to speak before it is known to be up waits until it is.
        let waits = matches!(plan.steps[joined + 1], Step::Loopback);
        assert_ne!(plan.namespaces.loopback, waits);
        let speaks = |step: &Step| matches!(step, Step::Hook(_));
        let before_start = places(&plan, |step| matches!(step, Step::Await(Barrier::Start)))[0];
        assert_eq!(waits, plan.steps[..before_start].iter().any(speaks));
        plan.steps[joined + 1 + usize::from(waits)].to_string()
    };
    assert_eq!(first(|_| {}), "mount sysfs on /sys");
    let all = first(|config| config["mounts"] = json!([]));
    assert!(all.starts_with("enter the root"), "{all}");
    let hooked = first(|config| {
        config["mounts"] = json!([]);
        config["hooks"] = json!({"createRuntime": [{"path": "/hook"}]});
    });
    assert!(hooked.contains("hooks"), "{hooked}");
    let hooked = first(|config| {
        config["mounts"] = json!([]);
        config["hooks"] = json!({"createContainer": [{"path": "/hook"}]});
    });
    assert!(hooked.contains("hooks.createContainer"), "{hooked}");
    let bound = first(|config| {
        config["mounts"] =
            json!([{"destination": "/net", "source": "/proc/net", "options": ["bind"]}]);
    });
    assert_eq!(bound, "bind /proc/net on /net");
}

#[test]
fn devices_are_made_before_what_waits_for_the_network_unless_they_are_below_it() {
    let order = |change: fn(&mut Value)| {
        let mut config = serde_json::to_value(Spec::starter()).unwrap();
        change(&mut config);
        let plan = planned(&Spec::parse(config.to_string().as_bytes()).unwrap());
        let system = |step: &Step| matches!(step, Step::Mount(mount) if mount.kind == "sysfs");
        let node = |step: &Step| matches!(step, Step::Device(_));
        let groups = |step: &Step| matches!(step, Step::Mount(mount) if mount.kind == "cgroup2");
        let system = places(&plan, system)[0];
        assert!(places(&plan, groups)[0] > system);
        let nodes = places(&plan, node);
        [nodes.first(), nodes.last()].map(|node| *node.unwrap() < system)
    };
    assert_eq!(order(|_| {}), [true, true]);
    let below = order(|config| {
        config["linux"]["devices"] =
            json!([{"path": "/sys/null", "type": "c", "major": 1, "minor": 3}]);
    });
    assert_eq!(below, [true, false]);
    let covered = order(|config| {
        let later = json!({"destination": "/dev/later", "source": "/tmp", "options": ["bind"]});
        config["mounts"].as_array_mut().unwrap().push(later);
    });
    assert_eq!(covered, [false, false]);
}

#[test]
fn who_may_speak_with_the_network_waits_until_it_is_up() {
    let by_whom = |mount: Value| {
        let mut config = serde_json::to_value(Spec::starter()).unwrap();
        config["mounts"].as_array_mut().unwrap().push(mount);
        let plan = planned(&Spec::parse(config.to_string().as_bytes()).unwrap());
        let own = plan.steps.iter().any(|step| matches!(step, Step::Loopback));
        assert_ne!(own, plan.namespaces.loopback);
        own
    };
    assert!(!by_whom(json!({"destination": "/tmp", "type": "tmpfs"})));
    let far = json!({"destination": "/far", "type": "nfs4", "source": "127.0.0.1:/"});
    assert!(by_whom(far));
}

#[test]
fn a_network_that_somebody_cannot_come_back_from_is_made_with_the_process() {
    let by = |spec: &Spec, change: fn(&mut Options)| {
        let mut options = options();
        change(&mut options);
        plan::build(spec, &options).unwrap().namespaces.network_by
    };
    let starter = Spec::starter();
    assert_eq!(
        by(&starter, |options| options.bridged = true),
        NetworkMaker::Outside
    );
    assert_eq!(
        by(&starter, |options| options.nested = true),
        NetworkMaker::Birth
    );
    let own_users = Spec::starter_rootless(1000, 1000);
    assert_eq!(by(&own_users, |_| {}), NetworkMaker::Birth);
    assert_eq!(by(&every_property(), |_| {}), NetworkMaker::Birth);
}

#[test]
fn hooks_inside_run_before_the_root_is_entered_or_after_the_start() {
    let plan = planned(&every_property());
    let hook = |name: &'static str| {
        places(
            &plan,
            |step| matches!(step, Step::Hook(hook) if hook.name.contains(name)),
        )
    };
    let enter = places(&plan, |step| matches!(step, Step::Enter(_)));
    let start = places(&plan, |step| matches!(step, Step::Await(Barrier::Start)));
    assert!(hook("createContainer") < enter);
    assert!(hook("startContainer") > start);
}

#[test]
fn rights_are_given_up_in_an_order_in_which_each_can_be() {
    let kinds: [fn(&Step) -> bool; 6] = [
        |step| matches!(step, Step::Bound(_)),
        |step| matches!(step, Step::Become(_)),
        |step| matches!(step, Step::Lookup(_)),
        |step| matches!(step, Step::Await(Barrier::Start)),
        |step| matches!(step, Step::Seccomp(_)),
        |step| matches!(step, Step::Execute(_)),
    ];
    for spec in [
        every_property(),
        Spec::starter(),
        Spec::starter_rootless(1000, 1000),
    ] {
        assert!(in_order(&planned(&spec), &kinds));
    }
}

#[test]
fn nothing_comes_after_the_program() {
    let plan = planned(&every_property());
    assert!(matches!(plan.steps.last(), Some(Step::Execute(_))));
    assert_eq!(
        places(&plan, |step| matches!(step, Step::Execute(_))).len(),
        1
    );
}

#[test]
fn nothing_that_is_asked_for_is_left_out_of_the_plan() {
    let whole = planned(&every_property());
    let document: Value = serde_json::from_str(EVERY_PROPERTY).unwrap();
    let properties = [
        ("hostname", ""),
        ("domainname", ""),
        ("process", "oomScoreAdj"),
        ("process", "scheduler"),
        ("process", "ioPriority"),
        ("process", "rlimits"),
        ("process", "apparmorProfile"),
        ("process", "selinuxLabel"),
        ("process", "consoleSize"),
        ("linux", "sysctl"),
        ("linux", "devices"),
        ("linux", "netDevices"),
        ("linux", "timeOffsets"),
        ("linux", "maskedPaths"),
        ("linux", "readonlyPaths"),
        ("linux", "rootfsPropagation"),
        ("linux", "seccomp"),
        ("linux", "memoryPolicy"),
        ("linux", "personality"),
        ("linux", "mountLabel"),
    ];
    for (top, name) in properties {
        let mut less = document.clone();
        let object = if name.is_empty() {
            &mut less
        } else {
            &mut less[top]
        };
        let name = if name.is_empty() { top } else { name };
        assert!(
            object.as_object_mut().unwrap().remove(name).is_some(),
            "{name}"
        );
        let less = Spec::parse(less.to_string().as_bytes()).unwrap();
        assert_ne!(planned(&less), whole, "{name} changes nothing");
    }
}

#[test]
fn a_label_that_nobody_enforces_is_refused_by_its_field() {
    let less = Options {
        selinux: false,
        ..options()
    };
    let mut process = Spec::starter();
    process.process.selinux_label = "system_u:system_r:container_t:s0".to_owned();
    let mut mounts = Spec::starter();
    mounts.linux.mount_label = "system_u:object_r:container_file_t:s0".to_owned();
    for (spec, field) in [
        (&process, "process.selinuxLabel: "),
        (&mounts, "linux.mountLabel: "),
    ] {
        assert!(plan::build(spec, &options()).is_ok());
        let words = plan::build(spec, &less).unwrap_err().to_string();
        assert!(words.starts_with(field), "{words}");
        assert!(words.contains("SELinux is not enabled"), "{words}");
    }
    let words = plan::exec(&process, &process.process, &less)
        .unwrap_err()
        .to_string();
    assert!(words.starts_with("process.selinuxLabel: "), "{words}");
}
