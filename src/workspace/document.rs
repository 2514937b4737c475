//! The state of a workspace as callers read it, key for key.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use crate::spec::state::State;
use crate::spec::state::Status;
use crate::workspace::record::Record;

/// What `state` and `list` print. The order of the keys, and which are left out when, is runc's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    /// The version of the specification that its configuration was written for.
    pub oci_version: String,
    /// Its name.
    pub id: String,
    /// The number of its first process; 0 when that has ended.
    pub pid: i32,
    /// Where it stands in its life.
    pub status: Status,
    /// Its bundle, absolute.
    pub bundle: PathBuf,
    /// Its root filesystem, absolute.
    pub rootfs: PathBuf,
    /// When it was made, RFC 3339.
    pub created: String,
    /// The configuration's annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Who made it: a name in `list`, empty in `state`.
    pub owner: String,
}

impl Document {
    /// The document of a workspace that stands at `status`.
    #[must_use]
    pub fn new(record: &Record, status: Status) -> Self {
        Self {
            oci_version: record.oci_version.clone(),
            id: record.id.to_string(),
            pid: pid_of(record, status),
            status,
            bundle: record.bundle.clone(),
            rootfs: record.rootfs.clone(),
            created: record.created.clone(),
            annotations: record.annotations.clone(),
            owner: String::new(),
        }
    }
}

/// The state that hooks read.
#[must_use]
pub fn for_hooks(record: &Record, status: Status) -> State {
    State {
        oci_version: record.oci_version.clone(),
        id: record.id.to_string(),
        status,
        pid: pid_of(record, status).unsigned_abs(),
        bundle: record.bundle.clone(),
        annotations: record.annotations.clone(),
    }
}

fn pid_of(record: &Record, status: Status) -> i32 {
    let init = record.init.as_ref().filter(|_| status != Status::Stopped);
    init.map_or(0, |init| init.pid)
}

#[cfg(test)]
mod tests {
    use crate::workspace::life::Life;

    use super::*;

    #[test]
    fn the_document_is_what_runc_prints() {
        let maker = Life {
            pid: 1,
            start_time: 2,
            boot: "b".to_owned(),
            identity: None,
        };
        let mut record = Record::new(
            "web-1".parse().unwrap(),
            "/b".into(),
            "/b/rootfs".into(),
            maker,
        );
        record.created = "2026-01-02T03:04:05.000000006Z".to_owned();
        record.oci_version = "1.3.0".to_owned();
        record.init = Some(Life {
            pid: 42,
            start_time: 3,
            boot: "b".to_owned(),
            identity: None,
        });
        let text = serde_json::to_string_pretty(&Document::new(&record, Status::Running)).unwrap();
        let expected = r#"{
  "ociVersion": "1.3.0",
  "id": "web-1",
  "pid": 42,
  "status": "running",
  "bundle": "/b",
  "rootfs": "/b/rootfs",
  "created": "2026-01-02T03:04:05.000000006Z",
  "owner": ""
}"#;
        assert_eq!(text, expected);
        assert_eq!(Document::new(&record, Status::Stopped).pid, 0);
    }
}
