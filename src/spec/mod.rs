//! What was asked for: the OCI configuration, read and checked without a kernel.
//!
//! [`Spec::parse`] reads the shape; a wrong type is refused with the property's path. [`Spec::validate`] reads the
//! meaning. Properties that the specification does not know are passed over, as it demands.

mod absent;
pub mod asked;
pub mod capability;
pub mod default;
mod error;
mod hardware;
pub mod hooks;
pub mod id;
pub mod image;
pub mod linux;
pub mod list;
pub mod mount_options;
pub mod mounts;
mod objects;
pub mod process;
pub mod quantity;
pub mod resources;
pub mod seccomp;
pub mod state;
pub mod sysctl;
pub mod user;
mod validate;
pub mod vm;
pub mod workspace;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use error::SpecError;
pub use error::Warning;

use self::absent::is_default;
use self::absent::null_is_default;
use self::hooks::Hooks;
use self::linux::Linux;
use self::mounts::Mount;
use self::objects::Objects;
use self::process::Process;
use self::vm::Vm;

/// A whole `config.json`. What is absent has the value that the specification gives to its absence.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// Which version of the specification the document was written for.
    #[serde(default, deserialize_with = "null_is_default")]
    pub oci_version: String,
    /// The tree that becomes `/`.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub root: Root,
    /// The first process.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    // Boxed, as `linux` is: who passes a specification on by value passes on what is small, in a stack of few pages.
    pub process: Box<Process>,
    /// The host name inside; empty leaves it alone. Needs a uts namespace of its own.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub hostname: String,
    /// The NIS domain name inside; empty leaves it alone. Needs a uts namespace of its own.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub domainname: String,
    /// What is mounted over the root, in this order.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub mounts: Vec<Mount>,
    /// Programs to run at fixed points of the life.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub hooks: Hooks,
    /// Free text for callers, and what they say to runtimes beyond the specification.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub annotations: BTreeMap<String, String>,
    /// All that exists on Linux only.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub linux: Box<Linux>,
    /// The machine to run in, for the isolation that has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vm: Option<Vm>,
}

/// The root filesystem.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Root {
    /// Where it is, absolute or relative to the bundle.
    #[serde(default, deserialize_with = "null_is_default")]
    pub path: PathBuf,
    /// Whether nothing in it may be changed.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub readonly: bool,
}

impl Spec {
    /// Reads a `config.json`.
    ///
    /// # Errors
    ///
    /// [`SpecError::Shape`] when the bytes are not JSON or a property has a wrong type; it names the property.
    pub fn parse(bytes: &[u8]) -> Result<Self, SpecError> {
        parse(bytes)
    }

    /// Writes a `config.json` that [`Spec::parse`] reads as this.
    ///
    /// # Errors
    ///
    /// [`SpecError::Shape`] when a text holds what no such file may; it names the property.
    pub fn write(&self) -> Result<Vec<u8>, SpecError> {
        let bytes = serde_json::to_vec(self).map_err(|error| SpecError::shape(".", &error))?;
        refuse_nul(&bytes)?;
        Ok(bytes)
    }
}

impl Process {
    /// Reads a process alone, as `exec --process FILE` is given it.
    ///
    /// # Errors
    ///
    /// As [`Spec::parse`].
    pub fn parse(bytes: &[u8]) -> Result<Self, SpecError> {
        parse(bytes)
    }
}

/// Reads any part of the configuration that stands in a file of its own, such as the resources given to `update`.
///
/// # Errors
///
/// [`SpecError::Shape`], which names the property.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, SpecError> {
    refuse_nul(bytes)?;
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(Objects(&mut reader))
        .map_err(|error| SpecError::shape(&error.path().to_string(), error.inner()))?;
    reader
        .end()
        .map_err(|error| SpecError::shape(".", &error))?;
    Ok(value)
}

/// Refuses a NUL character anywhere: no text of the kernel can hold one, and what follows it would silently be cut off.
/// Valid JSON can only write it as an escape, so documents without that are not searched.
fn refuse_nul(bytes: &[u8]) -> Result<(), SpecError> {
    const ESCAPE: &[u8] = br"\u0000";
    if !bytes.windows(ESCAPE.len()).any(|window| window == ESCAPE) {
        return Ok(());
    }
    match serde_json::from_slice(bytes)
        .ok()
        .and_then(|value| nul_in(&value))
    {
        Some(path) => {
            let reason = "has a NUL character in it".to_owned();
            Err(SpecError::at(path.trim_start_matches('.'), reason))
        }
        None => Ok(()),
    }
}

fn nul_in(value: &serde_json::Value) -> Option<String> {
    use serde_json::Value;
    match value {
        Value::String(text) => text.contains('\0').then(String::new),
        Value::Array(list) => {
            let mut places = list.iter().enumerate();
            places.find_map(|(index, inner)| Some(format!("[{index}]{}", nul_in(inner)?)))
        }
        Value::Object(map) => map.iter().find_map(|(key, inner)| {
            let below = if key.contains('\0') {
                String::new()
            } else {
                nul_in(inner)?
            };
            Some(format!(".{}{below}", key.escape_debug()))
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}
