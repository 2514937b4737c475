//! Memory of a file, mapped where a processor's large pages can be used for it.

use std::os::fd::AsFd;
use std::ptr::null_mut;

use rustix::mm::MapFlags;
use rustix::mm::ProtFlags;
use vm_memory::FileOffset;
use vm_memory::MmapRegion;
use vm_memory::mmap::MmapRegionBuilder;

use crate::sys::Errno;
use crate::sys::Result;
use crate::sys::checked;

/// The size of a large page.
pub const LARGE: usize = 2 << 20;

/// `MADV_COLLAPSE` (Linux 6.1).
const COLLAPSE: libc::c_int = 25;

/// Maps `length` bytes of a file, shared, to be read and written, from an address that is a multiple of [`LARGE`]. The
/// mapping stays as long as the process.
///
/// # Errors
///
/// Fails as `mmap(2)` does.
pub fn shared(place: FileOffset, length: usize) -> Result<MmapRegion<()>> {
    let whole = length.checked_add(LARGE).ok_or(Errno::NOMEM)?;
    let nothing = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: only addresses are taken, that nobody has and nobody can touch.
    let reserved =
        unsafe { rustix::mm::mmap_anonymous(null_mut(), whole, ProtFlags::empty(), nothing) }?;
    let aligned = reserved.map_addr(|address| address.next_multiple_of(LARGE));
    let rights = ProtFlags::READ | ProtFlags::WRITE;
    let flags = MapFlags::SHARED | MapFlags::NORESERVE | MapFlags::FIXED;
    let file = place.file().as_fd();
    // SAFETY: the range lies in the addresses just taken, so nobody's memory is replaced; it is only ever touched as
    // volatile memory.
    let mapped = unsafe { rustix::mm::mmap(aligned, length, rights, flags, file, place.start()) }?;
    let region = MmapRegionBuilder::new(length)
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(libc::MAP_SHARED | libc::MAP_NORESERVE)
        .with_file_offset(place);
    // SAFETY: there are `length` bytes mapped at this address, and nobody unmaps them.
    let region = unsafe { region.with_raw_mmap_pointer(mapped.cast()) };
    region.build().map_err(|_| Errno::INVAL)
}

/// Makes large pages of the small ones of a part of a mapping, whatever the system's setting for them is; no byte
/// changes. Each large page must have something in it already.
///
/// # Errors
///
/// `EINVAL` before Linux 6.1 or for what is not whole large pages, `ENOMEM` or `EAGAIN` when there are none to be had.
pub fn gather(region: &MmapRegion<()>, offset: usize, length: usize) -> Result<()> {
    let end = offset.checked_add(length);
    if end.is_none_or(|end| end > region.size()) {
        return Err(Errno::INVAL);
    }
    let start = region.as_ptr().wrapping_add(offset);
    // SAFETY: the range lies in the mapping, as checked above, whose content the call leaves as it is.
    checked(unsafe { libc::madvise(start.cast(), length, COLLAPSE) }.into()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_begins_at_a_large_page_and_is_the_file() {
        use std::os::unix::fs::FileExt;
        use vm_memory::Bytes;
        use vm_memory::VolatileMemory;
        let file = tempfile::tempfile().unwrap();
        file.set_len(3 * LARGE as u64).unwrap();
        let place = FileOffset::new(file.try_clone().unwrap(), LARGE as u64);
        let region = shared(place, 2 * LARGE).unwrap();
        assert!(region.as_ptr().addr().is_multiple_of(LARGE));
        region.as_volatile_slice().write_obj(7_u8, 5).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, LARGE as u64 + 5).unwrap();
        assert_eq!(byte, [7]);
        assert_eq!(gather(&region, LARGE, 2 * LARGE), Err(Errno::INVAL));
    }
}
