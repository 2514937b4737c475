//! Files that the kernel writes while they are read (`/proc`, `/sys`), whole.
//!
//! They have no size that could be asked for, and nearly all of them fit into a page: so a page is asked for at once,
//! where the standard library would begin with 32 bytes.

use std::os::fd::OwnedFd;
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
    again(&open(path.as_ref())?)
}

/// Reads one that is open, from its beginning: the kernel writes it anew.
///
/// # Errors
///
/// Fails as `pread(2)` does.
pub fn again(file: &OwnedFd) -> Result<Vec<u8>> {
    let mut whole = Vec::new();
    while part(file, &mut whole)? {}
    Ok(whole)
}

/// Reads one that has one record, shorter than a page: the kernel gives all of that at once.
///
/// # Errors
///
/// As [`read`].
pub fn record(path: impl AsRef<Path>) -> Result<Vec<u8>> {
    let mut record = Vec::new();
    part(&open(path.as_ref())?, &mut record)?;
    Ok(record)
}

fn open(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

/// Reads what follows, as much as the kernel gives at once, and says whether there was any. It comes by way of the stack, so
/// that the heap has no page for what is a line mostly.
fn part(file: &OwnedFd, whole: &mut Vec<u8>) -> Result<bool> {
    let mut page = [0; PAGE];
    let offset = u64::try_from(whole.len()).map_err(|_| Errno::FBIG)?;
    let read = rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut page, offset))?;
    whole.extend_from_slice(page.get(..read).unwrap_or_default());
    Ok(read > 0)
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
