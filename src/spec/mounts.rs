//! What is mounted over the root filesystem, as it was asked for.

use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use super::absent::is_default;
use super::absent::null_is_default;
use super::linux::IdMapping;

/// File systems that are on a block device.
const ON_DISK: [&str; 5] = ["ext2", "ext3", "ext4", "erofs", "squashfs"];
/// Those of them that nobody can write to.
const FIXED: [&str; 2] = ["erofs", "squashfs"];

/// One mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Where, inside the root; a relative path is taken from the root, as old bundles expect.
    #[serde(default, deserialize_with = "null_is_default")]
    pub destination: PathBuf,
    /// The filesystem's type; empty for a bind mount.
    #[serde(
        rename = "type",
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub kind: String,
    /// A path, absolute or relative to the bundle, for a bind mount; else whatever the filesystem makes of it.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub source: String,
    /// Options as `mount(8)` has them, and those of the specification.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub options: Vec<String>,
    /// For an id-mapped mount: which owners on the filesystem are which in the container.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub uid_mappings: Vec<IdMapping>,
    /// The same for groups.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub gid_mappings: Vec<IdMapping>,
}

impl Mount {
    /// Whether its file system is one that is on a block device, or in an image of one.
    #[must_use]
    pub fn is_on_disk(&self) -> bool {
        ON_DISK.contains(&self.kind.as_str())
    }

    /// Whether its file system is one that cannot be written to.
    #[must_use]
    pub fn is_fixed(&self) -> bool {
        FIXED.contains(&self.kind.as_str())
    }
}
