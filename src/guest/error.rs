//! Why there is no guest.

use std::path::PathBuf;

/// Something about a guest failed.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// A file cannot be read or written.
    #[error("cannot {what} {path:?}")]
    File {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// It is no kernel.
    #[error("--kernel: {path:?} is neither an ELF file nor a bzImage for x86")]
    NoKernel {
        /// Which file.
        path: PathBuf,
    },
    /// It is packed in a way that is not known here.
    #[error(
        "--kernel: {path:?} is packed with {method}, which cannot be unpacked here; give its vmlinux"
    )]
    Packed {
        /// Which file.
        path: PathBuf,
        /// How.
        method: &'static str,
    },
    /// It is packed, and damaged.
    #[error("--kernel: {path:?} cannot be unpacked: {words}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What the unpacker says.
        words: String,
    },
    /// A module that every machine needs is neither in the kernel nor beside it.
    #[error(
        "--modules: the kernel has no {name}, and {directory:?} has no such module; a machine needs it"
    )]
    NoModule {
        /// Which.
        name: String,
        /// Where it was looked for.
        directory: PathBuf,
    },
    /// The agent is not there.
    #[error("--agent: there is no bulkhead-agent beside this program; give its file")]
    NoAgent,
    /// The agent cannot run alone.
    #[error("--agent: {path:?} is not a static program for x86-64")]
    NotStatic {
        /// Which file.
        path: PathBuf,
    },
    /// It is no name.
    #[error("--name: {name:?} is not 1 to 64 letters, digits, dots, dashes and underscores")]
    Name {
        /// As it was given.
        name: String,
    },
    /// There is no such guest.
    #[error("there is no guest {name}; add one with: bulkhead guest add")]
    Missing {
        /// Which.
        name: String,
    },
    /// There is no guest at all.
    #[error(
        "there is no guest to boot on this host; make one with: make guest, or: bulkhead guest add --kernel FILE"
    )]
    None,
    /// The file about it cannot be understood.
    #[error("{path:?} is damaged; add the guest again")]
    About {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

impl GuestError {
    /// Names what was done with which file when it failed.
    pub(super) fn file(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}
