//! The ledger: what workspaces have used, kept for longer than they and the host's uptime last.
//!
//! ```text
//! DATA/ledger/00000001.jsonl   lines, oldest file first; the last one is appended to
//! DATA/ledger/lock             who writes holds it (flock(2)) alone, who reads with others
//! DATA/ledger/boot             the uptime for which lives of earlier ones were closed
//! ```
//!
//! A line is written by one `write(2)` to a file opened with `O_APPEND`, under the lock. A write that was cut short is
//! taken back; one that was cut short with the host leaves a line without an end, which the next writer ends and every
//! reader passes over with a warning. Lines that say that a life begins or ends are on the disk (`fdatasync(2)`) when
//! they have been entered; those in between are not waited for, since the next one repeats them. A file that has
//! [`FULL`] bytes is followed by a new one, and of [`KEPT`] files the oldest goes.

pub mod entry;
pub mod sums;

use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::FlockOperation;

use crate::accounting::ledger::entry::Entry;
use crate::accounting::ledger::entry::Kind;
use crate::accounting::ledger::entry::VERSION;
use crate::sys::Errno;
use crate::sys::uptime;
use crate::workspace::life;
use crate::workspace::root::StateRoot;

/// The size in bytes from which on a file is followed by a new one.
pub const FULL: u64 = 16 << 20;
/// How many files there are at most.
pub const KEPT: usize = 64;

const LOCK: &str = "lock";
const BOOT: &str = "boot";
const ENDING: &str = ".jsonl";

/// The ledger cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Something could not be done to a file of it.
    #[error("cannot {what} {path:?}")]
    File {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// An entry cannot be written as JSON.
    #[error("cannot write an entry")]
    Entry(#[from] serde_json::Error),
}

type Result<T> = std::result::Result<T, LedgerError>;

/// The ledger of one state root.
#[derive(Debug, Clone)]
pub struct Ledger {
    directory: PathBuf,
    boot: String,
    full: u64,
    kept: usize,
    warnings: Vec<String>,
}

impl Ledger {
    /// The ledger of a state root. Lives of an earlier uptime of the host that have no last line get one now, marked
    /// [`entry::Reason::LostAtReboot`]; nothing is made where there is no ledger yet.
    ///
    /// # Errors
    ///
    /// If there is one that cannot be read.
    pub fn open(root: &StateRoot) -> Result<Self> {
        let boot = life::boot_id().map_err(|errno| LedgerError::File {
            what: "read",
            path: uptime::BOOT_ID.into(),
            source: errno.into(),
        })?;
        Self::with(root, boot, FULL, KEPT)
    }

    /// As [`Ledger::open`], with another uptime and other bounds.
    ///
    /// # Errors
    ///
    /// As [`Ledger::open`].
    pub fn with(root: &StateRoot, boot: String, full: u64, kept: usize) -> Result<Self> {
        let mut ledger = Self {
            directory: root.data.join("ledger"),
            boot,
            full,
            kept: kept.max(2),
            warnings: Vec::new(),
        };
        if ledger.noted_boot() != ledger.boot && !ledger.numbers()?.is_empty() {
            // Who may only read sees the lives as they were left.
            if let Err(error) = ledger.close_lost() {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                ledger.warnings.push(format!(
                    "ignoring that lives from before the last boot cannot be closed: {error}: {}",
                    cause.unwrap_or_default()
                ));
            }
        }
        Ok(ledger)
    }

    /// What went wrong when it was opened and was survived, a sentence each.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Enters a line; one that begins or ends a life is on the disk then.
    ///
    /// # Errors
    ///
    /// If it cannot be written as a whole; then nothing of it is there.
    pub fn append(&self, entry: &Entry) -> Result<()> {
        self.enter(entry)?;
        match entry.kind {
            Kind::Interval => Ok(()),
            Kind::Created | Kind::Ended => self.sync(),
        }
    }

    /// Waits until every line that has been entered is on the disk.
    ///
    /// # Errors
    ///
    /// As `fdatasync(2)` fails; nothing is known of the last lines then.
    pub fn sync(&self) -> Result<()> {
        // One that was full was synced when the next was begun.
        let Some(last) = self.numbers()?.pop() else {
            return Ok(());
        };
        let path = self.file(last);
        let file = File::open(&path).map_err(failed("open", &path))?;
        file.sync_data().map_err(failed("write to", &path))
    }

    /// Enters a line that every reader sees at once, and that a power cut may take back until [`Ledger::sync`].
    ///
    /// # Errors
    ///
    /// As [`Ledger::append`].
    pub fn enter(&self, entry: &Entry) -> Result<()> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder
            .create(&self.directory)
            .map_err(failed("make", &self.directory))?;
        let _lock = self.lock(FlockOperation::LockExclusive)?;
        if self.noted_boot().is_empty() {
            self.note_boot()?;
        }
        self.write(entry)
    }

    /// Gives each entry in the order they were made; what cannot be read is passed over with a warning.
    ///
    /// # Errors
    ///
    /// If a file cannot be read.
    pub fn replay(&self, mut each: impl FnMut(Entry)) -> Result<Vec<String>> {
        if self.numbers()?.is_empty() {
            return Ok(Vec::new());
        }
        // Held while it is found out how far each file goes; what is appended later is not read.
        let lock = self.lock(FlockOperation::LockShared);
        let mut files = Vec::new();
        for number in self.numbers()? {
            let path = self.file(number);
            let file = File::open(&path).map_err(failed("open", &path))?;
            let length = file.metadata().map_err(failed("look at", &path))?.len();
            files.push((path, file.take(length)));
        }
        drop(lock);
        let mut warnings = Vec::new();
        for (path, file) in files {
            read_lines(&path, BufReader::new(file), &mut each, &mut warnings)?;
        }
        Ok(warnings)
    }

    /// Gives every life that has no last line a last one, marked.
    fn close_lost(&self) -> Result<()> {
        let _lock = self.lock(FlockOperation::LockExclusive)?;
        if self.noted_boot() == self.boot {
            return Ok(());
        }
        let mut open = std::collections::BTreeMap::new();
        for number in self.numbers()? {
            let path = self.file(number);
            let file = File::open(&path).map_err(failed("open", &path))?;
            let mut each = |entry: Entry| {
                let life = entry.life();
                match entry.kind {
                    Kind::Ended => open.remove(&life),
                    Kind::Created | Kind::Interval => open.insert(life, entry),
                };
            };
            // Readers are told of what cannot be read.
            read_lines(&path, BufReader::new(file), &mut each, &mut Vec::new())?;
        }
        let lost = open.into_values();
        for entry in lost.filter(|entry| entry.usage.boot != self.boot) {
            self.write(&Entry::lost(entry))?;
        }
        self.sync()?;
        self.note_boot()
    }

    /// Writes one line; the lock is held.
    fn write(&self, entry: &Entry) -> Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let (path, file) = self.current()?;
        let length = file.metadata().map_err(failed("look at", &path))?.len();
        if !ends_a_line(&file, length).map_err(failed("read", &path))? {
            line.insert(0, b'\n');
        }
        let written = rustix::io::write(&file, &line);
        if written != Ok(line.len()) {
            // Half a line is worse than none; if even that fails, the next writer ends it.
            file.set_len(length).unwrap_or_default();
            let errno = written.err().unwrap_or(Errno::NOSPC);
            return Err(failed("write to", &path)(errno.into()));
        }
        Ok(())
    }

    /// The file that is appended to: the last one, or one after it when that is full.
    fn current(&self) -> Result<(PathBuf, File)> {
        let numbers = self.numbers()?;
        let last = numbers.last().copied().unwrap_or(1);
        let opened = self.appended(last)?;
        let length = opened.1.metadata().map_err(failed("look at", &opened.0))?;
        if length.len() < self.full {
            return Ok(opened);
        }
        opened
            .1
            .sync_data()
            .map_err(failed("write to", &opened.0))?;
        let next = self.appended(last + 1)?;
        // The name of a new file is as durable as what will be in it.
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(failed("write to", &self.directory))?;
        let old = numbers.len().saturating_sub(self.kept - 1);
        for number in &numbers[..old] {
            let path = self.file(*number);
            std::fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
        Ok(next)
    }

    fn appended(&self, number: u64) -> Result<(PathBuf, File)> {
        let path = self.file(number);
        let mut options = std::fs::OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        let file = options.open(&path).map_err(failed("open", &path))?;
        Ok((path, file))
    }

    fn lock(&self, how: FlockOperation) -> Result<File> {
        let path = self.directory.join(LOCK);
        let mut options = std::fs::OpenOptions::new();
        let shared = matches!(how, FlockOperation::LockShared);
        options
            .read(true)
            .write(!shared)
            .create(!shared)
            .mode(0o600);
        let file = options.open(&path).map_err(failed("open", &path))?;
        loop {
            match rustix::fs::flock(&file, how) {
                Err(Errno::INTR) => {}
                answer => {
                    answer.map_err(|errno| failed("lock", &path)(errno.into()))?;
                    return Ok(file);
                }
            }
        }
    }

    /// The numbers of the files, ascending.
    fn numbers(&self) -> Result<Vec<u64>> {
        let entries = match std::fs::read_dir(&self.directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            answer => answer.map_err(failed("read", &self.directory))?,
        };
        let mut numbers: Vec<u64> = entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name();
                name.to_str()?.strip_suffix(ENDING)?.parse().ok()
            })
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn file(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{number:08}{ENDING}"))
    }

    fn noted_boot(&self) -> String {
        std::fs::read_to_string(self.directory.join(BOOT)).unwrap_or_default()
    }

    fn note_boot(&self) -> Result<()> {
        let (path, new) = (self.directory.join(BOOT), self.directory.join(".boot"));
        std::fs::write(&new, &self.boot)
            .and_then(|()| std::fs::rename(&new, &path))
            .map_err(failed("write", &path))
    }
}

/// Whether a file is empty or ends with the end of a line.
fn ends_a_line(file: &File, length: u64) -> std::io::Result<bool> {
    let Some(last) = length.checked_sub(1) else {
        return Ok(true);
    };
    let mut byte = [0];
    file.read_exact_at(&mut byte, last)?;
    Ok(byte == *b"\n")
}

/// Reads lines as bytes, since what was cut short need not be text.
fn read_lines(
    path: &Path,
    mut lines: impl BufRead,
    each: &mut dyn FnMut(Entry),
    warnings: &mut Vec<String>,
) -> Result<()> {
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if lines
            .read_until(b'\n', &mut line)
            .map_err(failed("read", path))?
            == 0
        {
            break;
        }
        let what = match serde_json::from_slice::<Entry>(&line) {
            Ok(entry) if entry.version <= VERSION => {
                each(entry);
                continue;
            }
            Ok(entry) => format!("has version {}, and only {VERSION} is known", entry.version),
            Err(_) if !line.ends_with(b"\n") => "was cut short".to_owned(),
            Err(error) => format!("is no entry: {error}"),
        };
        warnings.push(format!(
            "ignoring that {}, line {number}, {what}",
            path.display()
        ));
    }
    Ok(())
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> LedgerError {
    let path = path.to_owned();
    move |source| LedgerError::File { what, path, source }
}
