//! `--version`: who this is, in the form that callers parse.

use std::io::Write;
use std::process::ExitCode;

/// The runc whose command line this one speaks.
const SPEAKS: &str = "1.5.1";
/// The newest OCI runtime specification that is understood.
pub(super) const OCI_VERSION: &str = "1.3.0";

/// Prints the version. Line 1 begins with `runc version `, without which go-runc (containerd, Docker) finds none; the
/// word "version" stands in no other line, because Docker takes the last one.
pub(super) fn print() -> ExitCode {
    let ours = env!("CARGO_PKG_VERSION");
    let commit = env!("BULKHEAD_COMMIT");
    let text = format!(
        "runc version {SPEAKS}+bulkhead.{ours}\ncommit: {commit}\nspec: {OCI_VERSION}\nbulkhead: {ours}\n"
    );
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
