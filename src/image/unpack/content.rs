//! The content of files, with holes where there is nothing but zeros.

use std::fs::File;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::io::Write;

use crate::image::extended;
use crate::image::extended::Record;

/// How much is read before it is looked at.
const CHUNK: usize = 64 << 10;
/// How many pieces a file may be in.
const MOST_PIECES: u64 = 1 << 20;

/// A file of which only some pieces are in the archive (GNU's sparse format 1.0 for POSIX archives, which stands in front of
/// the content and which the `tar` package leaves there).
#[derive(Debug)]
pub(super) struct Sparse {
    /// The length of the file with its holes.
    pub(super) size: u64,
}

impl Sparse {
    /// What the records of an entry say about it.
    pub(super) fn of(records: &[Record]) -> Option<Self> {
        let major = extended::number(records, "GNU.sparse.major")?;
        let size = extended::number(records, "GNU.sparse.realsize")?;
        (major == 1).then_some(Self { size })
    }
}

/// Copies all of it; gives its length.
pub(super) fn copy(content: &mut dyn Read, file: &mut File) -> std::io::Result<u64> {
    let mut chunk = vec![0u8; CHUNK];
    let mut length = 0;
    let mut hole = false;
    loop {
        let read = fill(content, &mut chunk)?;
        if read == 0 {
            break;
        }
        let bytes = chunk.get(..read).unwrap_or_default();
        length += read as u64;
        hole = read == CHUNK && bytes.iter().all(|byte| *byte == 0);
        if hole {
            file.seek(SeekFrom::Start(length))?;
        } else {
            file.write_all(bytes)?;
        }
    }
    if hole {
        file.set_len(length)?;
    }
    Ok(length)
}

/// Copies the pieces to their places; gives the length of the file.
pub(super) fn copy_sparse(
    content: &mut dyn Read,
    file: &mut File,
    sparse: &Sparse,
) -> std::io::Result<u64> {
    let mut map = Map { content, read: 0 };
    let count = map.number()?;
    if count > MOST_PIECES {
        return Err(broken());
    }
    let pieces: std::io::Result<Vec<(u64, u64)>> = (0..count)
        .map(|_| Ok((map.number()?, map.number()?)))
        .collect();
    map.end()?;
    for (at, length) in pieces? {
        if at.checked_add(length).is_none_or(|end| end > sparse.size) {
            return Err(broken());
        }
        file.seek(SeekFrom::Start(at))?;
        if std::io::copy(&mut content.take(length), file)? != length {
            return Err(broken());
        }
    }
    file.set_len(sparse.size)?;
    Ok(sparse.size)
}

/// The list of pieces: numbers, a line each, up to the end of a block.
struct Map<'c> {
    content: &'c mut dyn Read,
    read: u64,
}

impl Map<'_> {
    fn byte(&mut self) -> std::io::Result<u8> {
        let mut byte = [0u8];
        self.content.read_exact(&mut byte)?;
        self.read += 1;
        Ok(byte[0])
    }

    fn number(&mut self) -> std::io::Result<u64> {
        let mut number = 0_u64;
        loop {
            let byte = self.byte()?;
            if byte == b'\n' {
                return Ok(number);
            }
            let digit = char::from(byte).to_digit(10).ok_or_else(broken)?;
            let next = number
                .checked_mul(10)
                .and_then(|ten| ten.checked_add(digit.into()));
            number = next.ok_or_else(broken)?;
        }
    }

    fn end(mut self) -> std::io::Result<()> {
        while !self.read.is_multiple_of(512) {
            self.byte()?;
        }
        Ok(())
    }
}

fn broken() -> std::io::Error {
    std::io::Error::new(
        std::io::ErrorKind::InvalidData,
        "the list of the pieces of a sparse file is broken",
    )
}

/// Reads until the buffer is full or nothing is left.
fn fill(content: &mut dyn Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match content.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
