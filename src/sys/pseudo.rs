//! Files that the kernel writes while they are read (`/proc`, `/sys`), whole.
//!
//! They have no size that could be asked for, and nearly all of them fit into a page: so a page is asked for at once,
//! where the standard library would begin with 32 bytes.

use std::path::Path;

use rustix::fs::Mode;
use rustix::fs::OFlags;

use crate::sys::Errno;
use crate::sys::Result;

/// Bytes that are asked for at once.
const PAGE: usize = 4096;

/// Reads one.
///
/// # Errors
///
/// Fails as `open(2)` and `read(2)` do.
pub fn read(path: impl AsRef<Path>) -> Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(path.as_ref(), flags, Mode::empty())?;
    let mut whole = Vec::new();
    loop {
        whole.reserve(PAGE);
        match rustix::io::read(&file, rustix::buffer::spare_capacity(&mut whole)) {
            Ok(0) => return Ok(whole),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Reads one that has one record, shorter than a page: the kernel gives all of that at once.
///
/// # Errors
///
/// As [`read`].
pub fn record(path: impl AsRef<Path>) -> Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(path.as_ref(), flags, Mode::empty())?;
    let mut record = Vec::with_capacity(PAGE);
    loop {
        match rustix::io::read(&file, rustix::buffer::spare_capacity(&mut record)) {
            Ok(_) => return Ok(record),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Reads one as text; what is no UTF-8 in it is replaced.
///
/// # Errors
///
/// As [`read`].
pub fn text(path: impl AsRef<Path>) -> Result<String> {
    Ok(String::from_utf8_lossy(&read(path)?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_to_its_end_however_long_it_is() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let long = vec![b'a'; 3 * PAGE + 1];
        std::fs::write(file.path(), &long).unwrap();
        assert_eq!(read(file.path()).unwrap(), long);
    }

    #[test]
    fn a_record_is_there_at_once() {
        assert!(record("/proc/self/stat").unwrap().ends_with(b"\n"));
    }

    #[test]
    fn what_is_not_there_is_said_not_to_be() {
        assert_eq!(text("/proc/self/nothing"), Err(crate::sys::Errno::NOENT));
    }
}
