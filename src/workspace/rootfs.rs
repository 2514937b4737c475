//! What the `rootfs` of a workspace document means: a directory as it is, or an image that is unpacked once for all.

use std::path::Path;
use std::path::PathBuf;

use crate::spec::image::ImageDefaults;
use crate::workspace::report::Report;
use crate::workspace::root::StateRoot;

/// A root filesystem that is there, to be used as the read-only lower layer of any number of workspaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Its directory, absolute.
    pub directory: PathBuf,
    /// What its image says about the program; none for a plain directory.
    pub image: Option<ImageDefaults>,
    /// The digest of the image's manifest; none for a plain directory.
    pub digest: Option<String>,
}

/// Why there is no root filesystem.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// There is nothing that can be looked at.
    #[error("rootfs: cannot use {path:?}")]
    Unusable {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is something that no root filesystem can be.
    #[error(
        "rootfs: {path:?} is neither a directory nor an image that skopeo or podman wrote (OCI layout or archive)"
    )]
    NoRootfs {
        /// Where.
        path: PathBuf,
    },
}

/// Finds what `text`, the `rootfs` of a document in the directory `base`, stands for.
///
/// # Errors
///
/// [`RootfsError`] names the path.
pub fn resolve(
    text: &str,
    base: &Path,
    _places: &StateRoot,
    _report: &dyn Report,
) -> Result<Resolved, RootfsError> {
    let path = base.join(text);
    let unusable = |source| RootfsError::Unusable {
        path: path.clone(),
        source,
    };
    let directory = std::fs::canonicalize(&path).map_err(unusable)?;
    if !std::fs::metadata(&directory).map_err(unusable)?.is_dir() {
        return Err(RootfsError::NoRootfs { path });
    }
    Ok(Resolved {
        directory,
        image: None,
        digest: None,
    })
}
