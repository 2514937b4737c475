//! Reads what a journal has, from its oldest file on, and goes on as it grows and its files change places.

use std::fs::File;
use std::io;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::inotify;

use crate::monitor::journal::FILES;
use crate::monitor::line::Stream;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When it was made, RFC 3339.
    pub time: String,
    /// Where the program wrote it; nothing for what the monitor itself says.
    pub stream: Option<Stream>,
    /// What was written, with the end of the line where there was one.
    pub bytes: Vec<u8>,
}

impl Entry {
    /// Reads a line of the file, without its end.
    fn parse(line: &[u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let mut word = || std::str::from_utf8(parts.next()?).ok();
        let (time, stream, tag) = (word()?.to_owned(), word()?, word()?);
        let stream = match stream {
            "stdout" => Some(Stream::Out),
            "stderr" => Some(Stream::Err),
            _ => None,
        };
        let mut bytes = parts.next()?.to_vec();
        if tag == "F" {
            bytes.push(b'\n');
        }
        Some(Self {
            time,
            stream,
            bytes,
        })
    }
}

/// Reads a journal.
#[derive(Debug)]
pub struct Reader {
    directory: PathBuf,
    open: Option<(u64, File)>,
    /// The begin of an entry whose end is not written yet.
    rest: Vec<u8>,
    changes: OwnedFd,
}

impl Reader {
    /// The journal in `directory`.
    ///
    /// # Errors
    ///
    /// Fails when there is no such directory.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let changes = inotify::init(flags)?;
        let watched = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::DELETE_SELF;
        inotify::add_watch(&changes, directory, watched)?;
        Ok(Self {
            directory: directory.to_owned(),
            open: None,
            rest: Vec::new(),
            changes,
        })
    }

    /// Gives `each` every entry that was made since the last call.
    ///
    /// # Errors
    ///
    /// Fails when a file cannot be read, or as `each` does.
    pub fn read(&mut self, each: &mut dyn FnMut(Entry) -> io::Result<()>) -> io::Result<()> {
        self.forget_changes();
        self.read_open(each)?;
        for (number, file) in self.later() {
            self.rest.clear();
            self.open = Some((number, file));
            self.read_open(each)?;
        }
        Ok(())
    }

    /// The files that are newer than the one that is open, the oldest first.
    fn later(&self) -> Vec<(u64, File)> {
        let files = FILES.iter().rev();
        let files: Vec<(u64, File)> = files
            .filter_map(|name| {
                let file = File::open(self.directory.join(name)).ok()?;
                Some((file.metadata().ok()?.ino(), file))
            })
            .collect();
        let own = self.open.as_ref().map(|(number, _)| *number);
        let from = files
            .iter()
            .position(|(number, _)| Some(*number) == own)
            .map_or(0, |at| at + 1);
        files.into_iter().skip(from).collect()
    }

    fn read_open(&mut self, each: &mut dyn FnMut(Entry) -> io::Result<()>) -> io::Result<()> {
        let Some((_, file)) = &mut self.open else {
            return Ok(());
        };
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = file.read(&mut buffer)?;
            if length == 0 {
                return Ok(());
            }
            self.rest.extend_from_slice(&buffer[..length]);
            let end = self.rest.iter().rposition(|byte| *byte == b'\n');
            let Some(end) = end else { continue };
            let after = self.rest.split_off(end + 1);
            let whole = std::mem::replace(&mut self.rest, after);
            let lines = whole[..end].split(|byte| *byte == b'\n');
            for entry in lines.filter_map(Entry::parse) {
                each(entry)?;
            }
        }
    }

    fn forget_changes(&self) {
        let mut buffer = [0; 4096];
        while rustix::io::read(&self.changes, &mut buffer).is_ok_and(|length| length > 0) {}
    }
}

/// Readable when there may be more to read.
impl AsFd for Reader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.changes.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use crate::monitor::journal::Journal;

    use super::*;

    fn all(reader: &mut Reader) -> Vec<u8> {
        let mut bytes = Vec::new();
        reader
            .read(&mut |entry| {
                bytes.extend(entry.bytes);
                Ok(())
            })
            .unwrap();
        bytes
    }

    #[test]
    fn what_was_entered_is_read_byte_for_byte() {
        let home = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(home.path()).unwrap();
        let every: Vec<u8> = (0..=255).cycle().take(70_000).collect();
        journal.enter(Stream::Out, &every);
        let mut reader = Reader::open(home.path()).unwrap();
        assert_eq!(all(&mut reader), every);
        journal.enter(Stream::Err, b"more\n");
        assert_eq!(all(&mut reader), b"more\n");
        assert_eq!(all(&mut reader), b"");
    }

    #[test]
    fn nothing_is_missed_when_files_change_places() {
        let home = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(home.path()).unwrap();
        let mut reader = Reader::open(home.path()).unwrap();
        let mut read = 0;
        let chunk = [b'y'; 1 << 20];
        for _ in 0..40 {
            journal.enter(Stream::Out, &chunk);
            read += all(&mut reader).len();
        }
        assert_eq!(read, 40 << 20);
    }

    #[test]
    fn what_is_no_entry_is_passed_over() {
        assert_eq!(Entry::parse(b"half"), None);
        assert_eq!(
            Entry::parse(b"2026-01-01T00:00:00Z stderr P a b "),
            Some(Entry {
                time: "2026-01-01T00:00:00Z".to_owned(),
                stream: Some(Stream::Err),
                bytes: b"a b ".to_vec(),
            })
        );
    }
}
