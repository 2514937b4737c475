//! Images as podman and skopeo write them, unpacked and verified.
//!
//! An image is read from an OCI layout (a directory) or an OCI archive (a tar of one). Every byte of it is checked against
//! the digest and the size that lead to it before anything made of it can be seen; its layers become one directory tree,
//! kept under the digest of its layers, that any number of workspaces share and none writes to.

mod choose;
mod digest;
mod error;
mod extended;
mod place;
mod source;
mod store;
mod stream;
mod unpack;

use std::fs::File;
use std::path::Path;

pub use self::choose::Chosen;
pub use self::choose::Defaults;
pub use self::choose::LayerOf;
pub use self::choose::choose;
pub use self::error::Fault;
pub use self::error::ImageError;
pub use self::source::Source;
pub use self::store::Entry;
pub use self::store::Origin;
pub use self::store::Store;

/// How much an image may hold, so that a small file cannot fill a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all layers, unpacked.
    pub bytes: u64,
    /// Files, directories, links and whiteouts of all layers.
    pub entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 64 << 30,
            entries: 4_000_000,
        }
    }
}

/// Unpacks the layers of an image into the directory `root`, which should be empty and nobody else's; gives how many bytes
/// its files hold.
///
/// `remark` is told what could not be given to a file here, such as a device node without the rights of root.
///
/// # Errors
///
/// [`ImageError`] names the layer and the path in it; what is below `root` is then worth nothing.
pub fn unpack(
    source: &Source,
    chosen: &Chosen,
    root: &Path,
    limits: Limits,
    remark: &mut dyn FnMut(String),
) -> Result<u64, ImageError> {
    let opened = File::open(root).map_err(|error| ImageError::Store {
        what: "open",
        path: root.to_owned(),
        source: error,
    })?;
    let mut unpacker = unpack::Unpacker::new(opened.into(), limits, remark);
    for layer in &chosen.layers {
        let fault = |fault| ImageError::Layer {
            file: source.path().to_owned(),
            digest: layer.digest.clone(),
            fault,
        };
        let blob = source.blob(&layer.digest)?;
        let mut plain = stream::Layer::new(blob, layer).map_err(|error| fault(error.into()))?;
        unpacker.apply(&mut plain).map_err(fault)?;
        plain.finish().map_err(|error| fault(error.into()))?;
    }
    unpacker.finish().map_err(|fault| ImageError::Layer {
        file: source.path().to_owned(),
        digest: chosen.manifest.clone(),
        fault,
    })
}
