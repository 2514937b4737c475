//! Why an image cannot be used: which file, which part of it, and what to do about it.

use std::path::PathBuf;

use crate::sys::Errno;
use crate::sys::tree::Left;

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file or directory cannot be read.
    #[error("image {file:?}: cannot read {part}")]
    Unreadable {
        /// The image.
        file: PathBuf,
        /// Which part of it.
        part: String,
        /// Why.
        source: std::io::Error,
    },
    /// A document in it has another form than the OCI image specification gives it.
    #[error("image {file:?}: {part} is not what it should be: {why}")]
    Malformed {
        /// The image.
        file: PathBuf,
        /// Which document.
        part: String,
        /// What is wrong with it.
        why: String,
    },
    /// No image in it is the one that was asked for.
    #[error("image {file:?}: {why}")]
    Unchosen {
        /// The image.
        file: PathBuf,
        /// What was looked for, and what there is.
        why: String,
    },
    /// A part is not what the part that names it says.
    #[error("image {file:?}: {digest} is damaged: {why}; copy or save the image again")]
    Damaged {
        /// The image.
        file: PathBuf,
        /// Which part.
        digest: String,
        /// In which way.
        why: String,
    },
    /// A layer cannot be unpacked.
    #[error("image {file:?}: layer {digest}: {fault}")]
    Layer {
        /// The image.
        file: PathBuf,
        /// Which layer.
        digest: String,
        /// Why.
        fault: Fault,
    },
    /// The place where unpacked images are kept cannot be used.
    #[error("cannot {what} {path:?}")]
    Store {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// What is left of an unpacked image cannot be removed.
    #[error("unpacked image {path:?} cannot be removed")]
    Left {
        /// Its directory.
        path: PathBuf,
        /// Which part, and why.
        source: Left,
    },
}

/// Why a layer cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It is not what it is said to be, or cannot be read.
    #[error("{0}")]
    Stream(#[from] std::io::Error),
    /// Something could not be done to a file.
    #[error("{path:?}: cannot {what}: {source}")]
    Failed {
        /// Its path in the layer.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: Errno,
    },
    /// An entry that no tool writes and that is only good for mischief.
    #[error("{path:?}: refused: {why}")]
    Refused {
        /// Its path in the layer.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// There is more in it than an image may hold.
    #[error(
        "{path:?}: the image holds more than {most} {what}; unpack it by other means and name the directory as rootfs"
    )]
    TooMuch {
        /// Where the limit was met.
        path: PathBuf,
        /// The limit.
        most: u64,
        /// Of what.
        what: &'static str,
    },
}
