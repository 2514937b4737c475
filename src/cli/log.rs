//! Says what went wrong where callers look for it: standard error, and exactly one JSON object in `--log`.
//!
//! podman reads the whole log as one object and loses the message when there are two; containerd reads a stream and
//! keeps the last error. So remarks are held back until the command's end: with success they are written, with failure
//! only the error is. conmon reports an error only when standard error has bytes, so the error always goes there too;
//! remarks do not when there is a log, since standard error may be the container's own.

use std::cell::OnceCell;
use std::cell::RefCell;
use std::fs::File;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::Context;
use serde::Serialize;

use crate::accounting::AccountingError;
use crate::accounting::bill;
use crate::accounting::bill::Disk;
use crate::monitor;
use crate::workspace::record::Record;
use crate::workspace::report::Counted;
use crate::workspace::report::End;
use crate::workspace::report::Report;
use crate::workspace::root::StateRoot;
use crate::workspace::store::Store;

/// How lines in the log are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// `time="…" level=error msg="…"`
    Text,
    /// `{"level":"error","msg":"…","time":"…"}`
    Json,
}

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// Only with `--debug`.
    Debug,
    /// Something was ignored or survived.
    Warning,
    /// The command failed.
    Error,
}

#[derive(Debug, Serialize)]
struct Line<'a> {
    level: Level,
    msg: &'a str,
    time: String,
}

/// The log of one command.
#[derive(Debug)]
pub(super) struct Log {
    file: Option<PathBuf>,
    format: Format,
    least: Level,
    held: RefCell<Vec<(Level, String)>>,
    /// Where the bill is kept, as soon as that is known.
    billed_at: OnceCell<StateRoot>,
}

impl Log {
    /// A log that goes to `file`, or to standard error without one; lines below `least` are dropped.
    pub(super) fn new(file: Option<PathBuf>, format: Format, least: Level) -> Self {
        Self {
            file,
            format,
            least,
            held: RefCell::default(),
            billed_at: OnceCell::new(),
        }
    }

    /// Makes the file, as runc does: a caller who cannot be told what goes wrong is told so before anything is done.
    pub(super) fn begin(&self) -> anyhow::Result<()> {
        let Some(path) = &self.file else {
            return Ok(());
        };
        open(path)
            .map(drop)
            .with_context(|| format!("--log: cannot open {}", path.display()))
    }

    /// Says where the bill of this command's workspaces is kept.
    pub(super) fn bill_at(&self, root: &StateRoot) {
        self.billed_at.get_or_init(|| root.clone());
    }

    /// A workspace must not depend on whether it can be billed.
    fn bill(&self, enter: impl FnOnce(&StateRoot) -> Result<(), AccountingError>) {
        let entered = self.billed_at.get().map_or(Ok(()), enter);
        if let Err(error) = entered {
            let text = one_line(&error.into());
            self.warning(&format!("ignoring that it cannot be billed: {text}"));
        }
    }

    /// Writes what was held back: the command succeeded.
    pub(super) fn succeeded(&self) {
        let held = self.held.take();
        match held.is_empty() {
            true => {}
            false if self.file.is_some() => self.append(&held),
            false => Self::to_stderr(&held),
        }
    }

    /// Writes `message` as the one error of this command.
    pub(super) fn failed(&self, message: &str) {
        let held = self.held.take();
        let error = [(Level::Error, message.to_owned())];
        if self.file.is_some() {
            self.append(&error);
        }
        if self.file.is_none() || self.least == Level::Debug {
            Self::to_stderr(&held);
        }
        Self::to_stderr(&error);
    }

    /// Writes `message` to standard error alone: there is no log.
    pub(super) fn failed_alone(message: &str) {
        Self::to_stderr(&[(Level::Error, message.to_owned())]);
    }

    fn hold(&self, level: Level, text: &str) {
        if level >= self.least {
            self.held.borrow_mut().push((level, text.to_owned()));
        }
    }

    /// Appends all lines with one write, so that concurrent commands do not mix theirs.
    fn append(&self, lines: &[(Level, String)]) {
        let Some(path) = &self.file else { return };
        let mut bytes = String::new();
        for (level, text) in lines {
            bytes.push_str(&self.line(*level, text));
            bytes.push('\n');
        }
        let written = open(path).and_then(|mut file| file.write_all(bytes.as_bytes()));
        if let Err(error) = written {
            let text = format!(
                "ignoring that the log {} cannot be written: {}",
                path.display(),
                plain_cause(&error.to_string())
            );
            Self::to_stderr(&[(Level::Warning, text)]);
        }
    }

    fn line(&self, level: Level, msg: &str) -> String {
        let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let line = Line { level, msg, time };
        match self.format {
            Format::Json => serde_json::to_string(&line).unwrap_or_default(),
            Format::Text => {
                let word = match level {
                    Level::Debug => "debug",
                    Level::Warning => "warning",
                    Level::Error => "error",
                };
                format!("time=\"{}\" level={word} msg={:?}", line.time, line.msg)
            }
        }
    }

    /// A closed standard error is the caller's wish, not a failure.
    fn to_stderr(lines: &[(Level, String)]) {
        let mut stderr = std::io::stderr().lock();
        for (level, text) in lines {
            let kind = match level {
                Level::Debug => "debug: ",
                Level::Warning => "warning: ",
                Level::Error => "",
            };
            if writeln!(stderr, "bulkhead: {kind}{text}").is_err() {
                return;
            }
        }
    }
}

impl Report for Log {
    fn warning(&self, text: &str) {
        self.hold(Level::Warning, text);
    }

    fn debug(&self, text: &dyn Fn() -> String) {
        if self.least == Level::Debug {
            self.hold(Level::Debug, &text());
        }
    }

    fn begun(&self, first: &Counted<'_>) {
        self.bill(|root| bill::begun(root, first, None, Disk::Awaited));
    }

    fn started(&self, record: &Record) {
        let Some(root) = self
            .billed_at
            .get()
            .filter(|_| !record.annotations.is_empty())
        else {
            return;
        };
        if let Err(error) = monitor::begin_lease(&Store::new(root.clone()), &record.id) {
            let text = one_line(&error.into());
            self.warning(&format!(
                "ignoring that nobody watches over its lease: {text}"
            ));
        }
    }

    fn ending(&self, last: &Counted<'_>, end: End) {
        self.bill(|root| bill::ended(root, last, end, None, Disk::Awaited));
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        .open(path)
}

/// The whole chain of an error as one line, each link once.
///
/// Causes from the kernel are put as C and Go put them, lower case and without the number: callers tell a missing
/// program from a forbidden one by `no such file or directory` and `permission denied`.
pub(super) fn one_line(error: &anyhow::Error) -> String {
    let links: Vec<String> = error
        .chain()
        .map(|link| plain_cause(&link.to_string()))
        .collect();
    links.join(": ").replace('\n', " ")
}

fn plain_cause(text: &str) -> String {
    let Some((cause, _)) = text
        .rsplit_once(" (os error ")
        .filter(|(_, end)| end.ends_with(')'))
    else {
        return text.to_owned();
    };
    let at = cause.rfind(": ").map_or(0, |colon| colon + 2);
    let (before, last) = cause.split_at(at);
    let mut letters = last.chars();
    let first = letters.next().map(|letter| letter.to_ascii_lowercase());
    before.chars().chain(first).chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn causes_from_the_kernel_are_lower_case_and_without_number() {
        let error = Err::<(), _>(std::io::Error::from_raw_os_error(2))
            .context("cannot open x")
            .context("cannot create y")
            .unwrap_err();
        assert_eq!(
            one_line(&error),
            "cannot create y: cannot open x: no such file or directory"
        );
    }

    #[test]
    fn the_last_part_of_a_cause_is_what_becomes_lower_case() {
        assert_eq!(
            plain_cause("Step: Is a directory (os error 21)"),
            "Step: is a directory"
        );
    }

    #[test]
    fn a_failed_command_leaves_exactly_one_object() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("log");
        let log = Log::new(Some(path.clone()), Format::Json, Level::Warning);
        log.warning("ignoring this");
        log.failed("that \"failed\"");
        let whole: serde_json::Value =
            serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert_eq!(whole["level"], "error");
        assert_eq!(whole["msg"], "that \"failed\"");
    }

    #[test]
    fn a_successful_command_writes_its_remarks() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("log");
        let log = Log::new(Some(path.clone()), Format::Text, Level::Warning);
        log.warning("ignoring this");
        log.succeeded();
        let text = std::fs::read_to_string(path).unwrap();
        assert!(
            text.ends_with(" level=warning msg=\"ignoring this\"\n"),
            "{text}"
        );
    }
}
