//! The programs that the caller wants run at fixed points of a container's life.

use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use super::absent::is_default;
use super::absent::null_is_default;

/// All hooks, by the moment at which they run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hooks {
    /// In the runtime's namespaces, after the namespaces are made and before `pivot_root`; runs before
    /// `create_runtime`. Deprecated by the specification, still in wide use.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub prestart: Vec<Hook>,
    /// In the runtime's namespaces, after the namespaces are made and before `pivot_root`.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub create_runtime: Vec<Hook>,
    /// In the container's namespaces with the host's paths, before `pivot_root`.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub create_container: Vec<Hook>,
    /// In the container, as part of `start`, before the program.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub start_container: Vec<Hook>,
    /// In the runtime's namespaces, after the program was started, before `start` returns.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub poststart: Vec<Hook>,
    /// In the runtime's namespaces, after the container was deleted, before `delete` returns.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub poststop: Vec<Hook>,
}

impl Hooks {
    /// Each kind with its name in `config.json`, in the order in which they run.
    pub fn by_name(&self) -> [(&'static str, &[Hook]); 6] {
        [
            ("prestart", &self.prestart),
            ("createRuntime", &self.create_runtime),
            ("createContainer", &self.create_container),
            ("startContainer", &self.start_container),
            ("poststart", &self.poststart),
            ("poststop", &self.poststop),
        ]
    }
}

/// One program. It gets the container's state on its standard input.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hook {
    /// The program, absolute.
    #[serde(default, deserialize_with = "null_is_default")]
    pub path: PathBuf,
    /// Its arguments, with the zeroth; none means the path alone.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub args: Vec<String>,
    /// Its whole environment, `KEY=value`.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub env: Vec<String>,
    /// After how many seconds it is killed and counts as failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
}
