//! The state of a container, in the document that hooks and seccomp agents are given.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use super::absent::is_default;
use super::absent::null_is_default;

/// What the specification calls the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The version of the specification that this document follows.
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// Where it stands in its life.
    pub status: Status,
    /// Its first process, in the host's numbers; absent when there is none.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub pid: u32,
    /// Its bundle, absolute.
    pub bundle: PathBuf,
    /// The configuration's annotations.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub annotations: BTreeMap<String, String>,
}

/// Where a container stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Its surroundings are being made.
    Creating,
    /// All is made; the program waits for `start`.
    Created,
    /// The program runs.
    Running,
    /// The program stands still. Not in the specification; every runtime has it.
    Paused,
    /// The program has ended.
    Stopped,
}

impl Status {
    /// The word in documents and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}
