//! Why processes could not be saved or brought back, with CRIU's own words.

use std::path::Path;
use std::path::PathBuf;

use crate::backend::BackendError;
use crate::sys::Errno;

/// How many lines of a log are quoted.
const QUOTED: usize = 5;

/// Why processes could not be saved or brought back.
#[derive(Debug, thiserror::Error)]
pub enum CriuError {
    /// There is no such program.
    #[error("criu: executable file not found in $PATH; install criu")]
    Absent,
    /// The kernel refused something on the way.
    #[error("cannot {what}")]
    Kernel {
        /// What was to be done.
        what: &'static str,
        /// The kernel's reason.
        source: Errno,
    },
    /// The tree that is restored into could not be built.
    #[error("cannot prepare the root filesystem: {0}")]
    Tree(String),
    /// What was to be done beside CRIU failed.
    #[error("{0:#}")]
    Witness(anyhow::Error),
    /// CRIU failed.
    #[error("criu failed: {kind}: {words}; {log:?} ends with: {quoted}")]
    Failed {
        /// At what.
        kind: &'static str,
        /// Its own first word, or the number of its error.
        words: String,
        /// Its log.
        log: PathBuf,
        /// The end of that.
        quoted: String,
    },
    /// CRIU ended without an answer.
    #[error("criu ended without an answer; {log:?} ends with: {quoted}")]
    Silent {
        /// Its log.
        log: PathBuf,
        /// The end of that.
        quoted: String,
    },
    /// A part of the preparation is the backend's.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

impl CriuError {
    /// Names what was to be done when the kernel refused it.
    pub(super) fn kernel(what: &'static str) -> impl FnOnce(Errno) -> Self {
        move |source| Self::Kernel { what, source }
    }
}

/// The last lines of a log that speak of errors; when none does, the last lines.
pub(super) fn quote(log: &Path) -> String {
    // host path: the log that CRIU was told to write.
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    quote_of(&text)
}

fn quote_of(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(without_time).collect();
    let errors: Vec<&str> = lines
        .iter()
        .copied()
        .filter(|line| line.contains("Error"))
        .collect();
    let chosen = if errors.is_empty() { &lines } else { &errors };
    let first = chosen.len().saturating_sub(QUOTED);
    match chosen.get(first..) {
        Some([_, ..]) => chosen[first..].join(" | "),
        _ => "nothing".to_owned(),
    }
}

/// A line of CRIU's log begins with the time in brackets.
fn without_time(line: &str) -> &str {
    let rest = line
        .strip_prefix('(')
        .and_then(|rest| rest.split_once(") "));
    rest.map_or(line, |(_, words)| words).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_quoted_before_anything_else() {
        let log = "(00.1) one\n(00.2) Error (criu/a.c:1): no\n(00.3) two\n";
        assert_eq!(quote_of(log), "Error (criu/a.c:1): no");
        assert_eq!(quote_of("(00.1) one\n(00.2)  two\n"), "one | two");
        assert_eq!(quote_of(""), "nothing");
    }
}
