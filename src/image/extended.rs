//! What stands before an entry of a tar archive and speaks of it: the records of POSIX's extended headers.
//!
//! The `tar` package reads them too, but takes the end of a line for the end of a record, so that a value with a line
//! feed in it is lost: a file capability may hold one. So a copy of what it reads between two entries is kept, bounded,
//! and the records in it are read by their lengths.

use std::cell::RefCell;
use std::io::Read;
use std::rc::Rc;

/// How much may stand between two entries, in bytes.
const MOST_BETWEEN: usize = 4 << 20;
/// The size of a block.
const BLOCK: usize = 512;

/// What is known of the stream below the reader of the archive.
#[derive(Debug, Default)]
pub(super) struct Between {
    copy: Vec<u8>,
    /// Whether the reader is between two entries.
    keeps: bool,
    /// Bytes of the whole stream that may still be read.
    left: u64,
    /// Bytes that were read.
    at: u64,
}

/// Lets a stream through, and keeps a copy of what is read between two entries.
#[derive(Debug)]
pub(super) struct Tap<R> {
    inner: R,
    between: Rc<RefCell<Between>>,
}

impl<R: Read> Tap<R> {
    /// A tap on `inner`, of which at most `most` bytes may be read.
    pub(super) fn new(inner: R, most: u64) -> (Self, Rc<RefCell<Between>>) {
        let between = Rc::new(RefCell::new(Between {
            left: most,
            ..Between::default()
        }));
        let tap = Self {
            inner,
            between: Rc::clone(&between),
        };
        (tap, between)
    }
}

impl<R: Read> Read for Tap<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(into)?;
        let mut between = self.between.borrow_mut();
        let length = read as u64;
        between.left = between.left.checked_sub(length).ok_or_else(too_long)?;
        between.at += length;
        if between.keeps {
            if between.copy.len() + read > MOST_BETWEEN {
                return Err(std::io::Error::other(
                    "an entry has more than 4 MiB of extended headers",
                ));
            }
            let bytes = into.get(..read).unwrap_or_default();
            between.copy.extend_from_slice(bytes);
        }
        Ok(read)
    }
}

/// More bytes than an image may have were read.
fn too_long() -> std::io::Error {
    std::io::ErrorKind::FileTooLarge.into()
}

impl Between {
    /// Begins to keep what is read; what fills the last block of the entry before is none of it.
    pub(super) fn begin(&mut self) -> usize {
        self.keeps = true;
        self.copy.clear();
        let over = self.at % BLOCK as u64;
        usize::try_from(over).map_or(0, |over| (BLOCK - over) % BLOCK)
    }

    /// Ends that, and gives the records of the entry that was reached, those that count last behind the others.
    pub(super) fn end(&mut self, padding: usize) -> Option<Vec<Record>> {
        self.keeps = false;
        let mut rest = self.copy.get(padding..)?;
        let mut found = Vec::new();
        while let Some((block, behind)) = rest.split_at_checked(BLOCK) {
            let header = tar::Header::from_byte_slice(block);
            let kind = header.entry_type();
            let extends = kind.is_pax_local_extensions()
                || kind.is_pax_global_extensions()
                || kind.is_gnu_longname()
                || kind.is_gnu_longlink();
            if !extends {
                break;
            }
            let size = usize::try_from(header.entry_size().ok()?).ok()?;
            if kind.is_pax_local_extensions() {
                found.extend(records(behind.get(..size)?)?);
            }
            rest = behind
                .get(size.next_multiple_of(BLOCK)..)
                .unwrap_or_default();
        }
        Some(found)
    }
}

/// A key and its value.
pub(super) type Record = (Vec<u8>, Vec<u8>);

/// The records of one header: `LENGTH KEY=VALUE\n`, where the length counts all of it; nothing when it is no such header.
fn records(mut text: &[u8]) -> Option<Vec<Record>> {
    let mut found = Vec::new();
    while !text.is_empty() && text.iter().any(|byte| *byte != 0) {
        let space = text.iter().position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(text.get(..space)?).ok()?.parse().ok()?;
        let (record, rest) = text.split_at_checked(length)?;
        let body = record.get(space + 1..)?.strip_suffix(b"\n")?;
        let equals = body.iter().position(|byte| *byte == b'=')?;
        found.push((
            body.get(..equals)?.to_vec(),
            body.get(equals + 1..)?.to_vec(),
        ));
        text = rest;
    }
    Some(found)
}

/// The last value of a key.
pub(super) fn value<'a>(records: &'a [Record], key: &str) -> Option<&'a [u8]> {
    let found = records
        .iter()
        .rev()
        .find(|(name, _)| name == key.as_bytes());
    found.map(|(_, value)| value.as_slice())
}

/// The last value of a key as a number.
pub(super) fn number(records: &[Record], key: &str) -> Option<u64> {
    std::str::from_utf8(value(records, key)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_with_line_feeds_in_it_is_whole() {
        let found = records(b"12 a=b\nc=d\n\n11 path=xy\n").unwrap();
        assert_eq!(value(&found, "a").unwrap(), b"b\nc=d\n");
        assert_eq!(value(&found, "path").unwrap(), b"xy");
    }

    #[test]
    fn a_record_that_is_longer_than_its_header_is_none() {
        assert_eq!(records(b"99 a=b\n"), None);
        assert_eq!(records(b"x"), None);
        assert_eq!(records(b"3 a"), None);
    }
}
