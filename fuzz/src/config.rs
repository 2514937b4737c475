//! A `config.json`: any bytes are refused or are a configuration, which reads back as what it was written, and one that is
//! accepted has a plan, the same each time.

use std::path::PathBuf;

use bulkhead::plan;
use bulkhead::spec::Spec;

/// Reads these bytes as a configuration, checks it and plans it, as `create` would.
pub fn run(bytes: &[u8]) {
    let Ok(spec) = Spec::parse(bytes) else { return };
    let written = serde_json::to_vec(&spec).unwrap();
    assert_eq!(Spec::parse(&written).unwrap(), spec);
    if spec.validate().is_err() {
        return;
    }
    let options = plan::Options {
        id: "fuzz".to_owned(),
        bundle: PathBuf::from("/bundle"),
        apparmor: true,
        ..plan::Options::default()
    };
    let first = plan::build(&spec, &options);
    let again = plan::build(&spec, &options);
    match (first, again) {
        (Ok(first), Ok(again)) => assert_eq!(first.to_string(), again.to_string()),
        (first, again) => assert_eq!(first.is_ok(), again.is_ok()),
    }
}
