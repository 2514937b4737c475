//! Reading and writing straight from and to a guest's memory, many pieces in one call.

use std::os::fd::AsFd;
use std::os::fd::AsRawFd;

use vm_memory::VolatileSlice;

use crate::sys::Result;
use crate::sys::checked;

/// Which way bytes go, seen from the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the file into memory.
    In,
    /// From memory to the file.
    Out,
    /// From memory to the file, and on to what keeps it (`RWF_DSYNC`).
    OutDurably,
}

impl Way {
    /// The flags of `preadv2(2)` and `pwritev2(2)`.
    pub(crate) fn flags(self) -> i32 {
        match self {
            Self::In | Self::Out => 0,
            Self::OutDurably => libc::RWF_DSYNC,
        }
    }
}

/// The pieces as the kernel wants them. They are valid for as long as the slices are.
pub(crate) fn vectors(slices: &[VolatileSlice<'_>]) -> Vec<libc::iovec> {
    let vectors = slices.iter().map(|slice| libc::iovec {
        iov_base: slice.ptr_guard_mut().as_ptr().cast(),
        iov_len: slice.len(),
    });
    vectors.collect()
}

fn count(vectors: &[libc::iovec]) -> libc::c_int {
    libc::c_int::try_from(vectors.len()).unwrap_or(libc::c_int::MAX)
}

/// Moves bytes between a place in a file and memory; gives how many.
///
/// # Errors
///
/// Fails as `preadv2(2)` and `pwritev2(2)` do; at most 1024 pieces go in one call.
pub fn transfer(
    file: impl AsFd,
    way: Way,
    slices: &[VolatileSlice<'_>],
    offset: u64,
) -> Result<usize> {
    let fd = file.as_fd().as_raw_fd();
    let vectors = vectors(slices);
    let (start, count) = (vectors.as_ptr(), count(&vectors));
    let offset = i64::try_from(offset).unwrap_or(i64::MAX);
    let done = match way {
        Way::In => {
            // SAFETY: the vectors are those of slices that are mapped and may be written, for the call and longer;
            // nobody has a reference into guest memory.
            unsafe { libc::preadv2(fd, start, count, offset, 0) }
        }
        Way::Out | Way::OutDurably => {
            // SAFETY: the vectors are those of slices that are mapped, for the call and longer.
            unsafe { libc::pwritev2(fd, start, count, offset, way.flags()) }
        }
    };
    checked(done as libc::c_long).map(|done| usize::try_from(done).unwrap_or_default())
}

/// Reads one packet into memory; gives its length.
///
/// # Errors
///
/// Fails as `readv(2)` does; `EAGAIN` when there is none.
pub fn receive(file: impl AsFd, slices: &[VolatileSlice<'_>]) -> Result<usize> {
    let vectors = vectors(slices);
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: the vectors are those of slices that are mapped and may be written, for the call and longer; nobody has a
    // reference into guest memory.
    let done = unsafe { libc::readv(fd, vectors.as_ptr(), count(&vectors)) };
    checked(done as libc::c_long).map(|done| usize::try_from(done).unwrap_or_default())
}

/// Writes one packet from memory.
///
/// # Errors
///
/// Fails as `writev(2)` does.
pub fn send(file: impl AsFd, slices: &[VolatileSlice<'_>]) -> Result<usize> {
    let vectors = vectors(slices);
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: the vectors are those of slices that are mapped, for the call and longer.
    let done = unsafe { libc::writev(fd, vectors.as_ptr(), count(&vectors)) };
    checked(done as libc::c_long).map(|done| usize::try_from(done).unwrap_or_default())
}

/// Gives the pages of a private mapping back; they read as zero afterwards (`madvise(2)`, `MADV_DONTNEED`).
///
/// # Errors
///
/// Fails as `madvise(2)` does; the slice has to begin and end with a page.
pub fn give_back(slice: &VolatileSlice<'_>) -> Result<()> {
    let start = slice.ptr_guard_mut().as_ptr();
    // SAFETY: the slice is mapped, and nobody has a reference into guest memory: its bytes may change at any time.
    let done = unsafe { libc::madvise(start.cast(), slice.len(), libc::MADV_DONTNEED) };
    checked(done.into()).map(drop)
}

/// Fills `bytes` with random numbers of the kernel (`getrandom(2)`).
///
/// # Errors
///
/// Fails as `getrandom(2)` does.
pub fn fill_random(bytes: &mut [u8]) -> Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        // SAFETY: the buffer is alive and as long as said.
        let done = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        let done = checked(done as libc::c_long)?;
        let done = usize::try_from(done).unwrap_or_default();
        rest = rest.get_mut(done..).unwrap_or_default();
    }
    Ok(())
}
