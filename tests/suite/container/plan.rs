//! Plans as text: what would be done for a configuration, kept in `tests/fixtures/plans` and compared.

use std::path::Path;
use std::path::PathBuf;

use bulkhead::plan;
use bulkhead::plan::Options;
use bulkhead::spec::Spec;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/plans")
}

/// The plan of a configuration, for a bundle at a fixed place.
fn plan_of(name: &str) -> String {
    let config = std::fs::read(fixtures().join(format!("{name}.json"))).unwrap();
    let spec = Spec::parse(&config).unwrap();
    spec.validate().unwrap();
    let options = Options {
        id: "golden".to_owned(),
        bundle: PathBuf::from("/bundle"),
        cgroup: Some(PathBuf::from("/sys/fs/cgroup/golden")),
        ..Options::default()
    };
    plan::build(&spec, &options).unwrap().to_string()
}

/// Compares with the text that is kept. `BULKHEAD_KEEP_PLANS=1` keeps the new one, to be read before it is committed.
#[track_caller]
fn compare(name: &str) {
    let planned = plan_of(name);
    let file = fixtures().join(format!("{name}.txt"));
    if std::env::var_os("BULKHEAD_KEEP_PLANS").is_some() {
        std::fs::write(&file, &planned).unwrap();
    }
    let kept = std::fs::read_to_string(&file).unwrap();
    assert_eq!(planned, kept, "{}", file.display());
}

#[test]
fn the_smallest_container_is_planned_as_kept() {
    compare("smallest");
}

#[test]
fn the_default_configuration_is_planned_as_kept() {
    compare("default");
}

#[test]
fn a_container_in_a_user_namespace_is_planned_as_kept() {
    compare("user-namespace");
}

#[test]
fn everything_at_once_is_planned_as_kept() {
    compare("everything");
}

#[test]
fn joined_namespaces_are_planned_as_kept() {
    compare("joined");
}

#[test]
fn the_same_configuration_gives_the_same_plan() {
    assert_eq!(plan_of("everything"), plan_of("everything"));
}
