//! What is remembered of a workspace between commands: `state.json` in its directory.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use crate::plan::cgroup::Place;
use crate::plan::cgroup::guarantee::DiskShares;
use crate::plan::machine::Extent;
use crate::plan::rdt::RdtPlan;
use crate::spec::asked::Isolation;
use crate::spec::hooks::Hook;
use crate::spec::id::ContainerId;
use crate::workspace::agent::Agent;
use crate::workspace::late::Late;
use crate::workspace::life::Life;

/// The version of the format that is written here, and the only one that is read.
const VERSION: u32 = 1;

/// What is remembered of a workspace. Written once before the first side effect, and again when it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    version: u32,
    /// Its name.
    pub id: ContainerId,
    /// The version of the specification that its configuration was written for.
    pub oci_version: String,
    /// Its bundle, absolute.
    pub bundle: PathBuf,
    /// Its root filesystem, absolute.
    pub rootfs: PathBuf,
    /// When it was made, RFC 3339.
    pub created: String,
    /// The configuration's annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The command that makes it: while that lives, an unfinished workspace is being made.
    pub maker: Life,
    /// Its first process; absent until there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<Life>,
    /// Which wall it is behind.
    #[serde(default)]
    pub isolation: Isolation,
    /// How large its machine is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Extent>,
    /// Whether it shares a pid namespace, so that the end of its first process does not end the others.
    #[serde(default)]
    pub shared_pids: bool,
    /// Where its cgroup is.
    #[serde(default)]
    pub place: Place,
    /// What it weighs for the CPU as long as nobody is promised any; absent is the usual weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u64>,
    /// Its parts of disks as long as nobody is promised any of them.
    #[serde(default, skip_serializing_if = "DiskShares::is_empty")]
    pub disk_shares: DiskShares,
    /// Its class of cache and memory bandwidth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdt: Option<RdtPlan>,
    /// Who decides about its system calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Agent>,
    /// What is done between start and program, in words.
    #[serde(default)]
    pub late: Late,
    /// Hooks to run after the start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub poststart: Vec<Hook>,
    /// Hooks to run after the deletion.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub poststop: Vec<Hook>,
}

/// A state file says nothing.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It is not what was written.
    #[error("state.json is damaged")]
    Damaged {
        /// Why.
        #[from]
        source: serde_json::Error,
    },
    /// There is none.
    #[error("state.json is missing")]
    Absent,
    /// A later version of this program wrote it.
    #[error("state.json has version {found}, and only {VERSION} is known")]
    Version {
        /// The version it has.
        found: u32,
    },
    /// It tells of another workspace.
    #[error("state.json tells of {found}")]
    OtherId {
        /// Of which.
        found: ContainerId,
    },
}

impl Record {
    /// What is known of a workspace before anything of it exists.
    #[must_use]
    pub fn new(id: ContainerId, bundle: PathBuf, rootfs: PathBuf, maker: Life) -> Self {
        let created = humantime::format_rfc3339_nanos(std::time::SystemTime::now()).to_string();
        Self {
            version: VERSION,
            id,
            oci_version: String::new(),
            bundle,
            rootfs,
            created,
            annotations: BTreeMap::new(),
            maker,
            init: None,
            isolation: Isolation::default(),
            machine: None,
            shared_pids: false,
            place: Place::Nowhere,
            weight: None,
            disk_shares: DiskShares::default(),
            rdt: None,
            agent: None,
            late: Late::default(),
            poststart: Vec::new(),
            poststop: Vec::new(),
        }
    }

    /// Reads the record of workspace `id`.
    ///
    /// # Errors
    ///
    /// [`RecordError`] when the bytes are not a record of it.
    pub fn parse(bytes: &[u8], id: &ContainerId) -> Result<Self, RecordError> {
        let record: Self = serde_json::from_slice(bytes)?;
        if record.version != VERSION {
            return Err(RecordError::Version {
                found: record.version,
            });
        }
        if record.id != *id {
            return Err(RecordError::OtherId { found: record.id });
        }
        Ok(record)
    }

    /// The record as it is written.
    ///
    /// # Errors
    ///
    /// Fails for a path that is not Unicode.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let maker = Life {
            pid: 1,
            start_time: 2,
            boot: "b".to_owned(),
            identity: None,
        };
        Record::new("a".parse().unwrap(), "/b".into(), "/b/rootfs".into(), maker)
    }

    #[test]
    fn what_is_written_is_read() {
        let record = record();
        let bytes = record.to_bytes().unwrap();
        assert_eq!(Record::parse(&bytes, &record.id).unwrap(), record);
    }

    #[test]
    fn every_shortened_record_is_refused() {
        let bytes = record().to_bytes().unwrap();
        let refused = |length: &usize| Record::parse(&bytes[..*length], &record().id).is_err();
        assert_eq!((0..bytes.len()).filter(refused).count(), bytes.len());
    }

    #[test]
    fn a_record_of_another_workspace_or_version_is_refused() {
        let bytes = record().to_bytes().unwrap();
        assert!(Record::parse(&bytes, &"other".parse().unwrap()).is_err());
        let later = String::from_utf8(bytes)
            .unwrap()
            .replace("\"version\":1", "\"version\":2");
        assert!(Record::parse(later.as_bytes(), &record().id).is_err());
    }
}
