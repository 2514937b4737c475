//! What a workspace wrote, kept in three files of bounded size: written by its monitor, read by `logs`.
//!
//! One entry a line: `TIME STREAM TAG BYTES`. TIME is RFC 3339 in UTC with microseconds; STREAM is `stdout`, `stderr`
//! or, for what the monitor itself has to say, `monitor`; TAG is `F` when the program ended its line here and `P` when
//! it did not (the next entry of that stream goes on). BYTES are the program's, and may be any but the line's end. It is
//! the form in which the kubelet has its logs (CRI). `log` is written to; when it is full it becomes `log.1`, and that
//! `log.2`.

use std::fs::File;
use std::io;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::monitor::line::Stream;

/// The most bytes in one file.
const LARGEST: u64 = 8 << 20;
/// The files, the newest first.
pub(super) const FILES: [&str; 3] = ["log", "log.1", "log.2"];

/// Writes entries.
#[derive(Debug)]
pub(super) struct Journal {
    directory: PathBuf,
    file: Option<File>,
    size: u64,
    lost: u64,
}

impl Journal {
    /// The journal in `directory`, to be gone on with; its first entry makes its first file.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let size = match std::fs::metadata(directory.join(FILES[0])) {
            Ok(found) => found.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        Ok(Self {
            directory: directory.to_owned(),
            file: None,
            size,
            lost: 0,
        })
    }

    /// Enters what a program wrote. What cannot be written, because the disk is full, is counted, and told as soon as
    /// it can be.
    pub(super) fn enter(&mut self, stream: Stream, bytes: &[u8]) {
        let name = match stream {
            Stream::Out => "stdout",
            Stream::Err => "stderr",
        };
        let mut entries = Vec::with_capacity(bytes.len() + 64);
        if self.lost > 0 {
            let text = format!("{} bytes of output could not be kept", self.lost);
            push(&mut entries, "monitor", text.as_bytes());
        }
        push(&mut entries, name, bytes);
        match self.write(&entries) {
            Ok(()) => self.lost = 0,
            Err(_) => self.lost += bytes.len() as u64,
        }
    }

    /// Enters something that the monitor did.
    pub(super) fn remark(&mut self, text: &str) {
        let mut entry = Vec::new();
        push(&mut entry, "monitor", format!("{text}\n").as_bytes());
        // There is nobody else to tell when it cannot be kept.
        self.write(&entry).unwrap_or_default();
    }

    fn write(&mut self, entries: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + entries.len() as u64 > LARGEST {
            self.rotate()?;
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(append(&self.directory.join(FILES[0]))?),
        };
        let written = file.write_all(entries);
        match written {
            Ok(()) => self.size += entries.len() as u64,
            // Half an entry would be read as part of the next.
            Err(_) => file.set_len(self.size).unwrap_or_default(),
        }
        written
    }

    fn rotate(&mut self) -> io::Result<()> {
        for pair in FILES.windows(2).rev() {
            let renamed =
                std::fs::rename(self.directory.join(pair[0]), self.directory.join(pair[1]));
            match renamed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.file = None;
        self.size = 0;
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.append(true).create(true).mode(0o600);
    options.open(path)
}

/// Adds an entry for each line, and one for what is left without an end.
fn push(entries: &mut Vec<u8>, stream: &str, bytes: &[u8]) {
    let time = time_text(SystemTime::now());
    for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
        let (line, tag) = match piece.strip_suffix(b"\n") {
            Some(line) => (line, 'F'),
            None => (piece, 'P'),
        };
        entries.extend_from_slice(format!("{time} {stream} {tag} ").as_bytes());
        entries.extend_from_slice(line);
        entries.push(b'\n');
    }
}

/// A time as entries have it: texts of times compare as the times do.
#[must_use]
pub fn time_text(time: SystemTime) -> String {
    humantime::format_rfc3339_micros(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(directory: &Path, name: &str) -> String {
        std::fs::read_to_string(directory.join(name)).unwrap()
    }

    fn without_times(text: &str) -> Vec<&str> {
        text.lines()
            .map(|line| line.split_once(' ').unwrap().1)
            .collect()
    }

    #[test]
    fn lines_and_parts_of_lines_are_told_apart() {
        let home = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(home.path()).unwrap();
        journal.enter(Stream::Out, b"one\n\ntw");
        journal.enter(Stream::Err, b"three\n");
        journal.enter(Stream::Out, b"o\n");
        journal.remark("the lease has ended");
        assert_eq!(
            without_times(&text(home.path(), "log")),
            [
                "stdout F one",
                "stdout F ",
                "stdout P tw",
                "stderr F three",
                "stdout F o",
                "monitor F the lease has ended"
            ]
        );
    }

    #[test]
    fn a_flood_keeps_three_files_of_bounded_size() {
        let home = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(home.path()).unwrap();
        let chunk = [b'x'; 16 << 10];
        for _ in 0..2200 {
            journal.enter(Stream::Out, &chunk);
        }
        let sizes: Vec<u64> = FILES
            .iter()
            .map(|name| std::fs::metadata(home.path().join(name)).unwrap().len())
            .collect();
        assert!(sizes.iter().all(|size| *size <= LARGEST), "{sizes:?}");
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 3);
        assert!(sizes[1] > LARGEST - (64 << 10), "{sizes:?}");
    }

    #[test]
    fn a_journal_is_gone_on_with() {
        let home = tempfile::tempdir().unwrap();
        Journal::open(home.path())
            .unwrap()
            .enter(Stream::Out, b"a\n");
        Journal::open(home.path())
            .unwrap()
            .enter(Stream::Out, b"b\n");
        assert_eq!(
            without_times(&text(home.path(), "log")),
            ["stdout F a", "stdout F b"]
        );
    }
}
