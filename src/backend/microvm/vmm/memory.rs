//! The guest's memory: one file without a name, so that a file server can be given it too.

use std::fs::File;

use rustix::fs::FallocateFlags;
use rustix::fs::MemfdFlags;
use rustix::fs::SealFlags;
use vm_memory::Bytes;
use vm_memory::FileOffset;
use vm_memory::GuestAddress;
use vm_memory::GuestMemory;
use vm_memory::GuestMemoryMmap;
use vm_memory::GuestMemoryRegion;
use vm_memory::GuestRegionCollectionError;
use vm_memory::GuestRegionMmap;

use crate::backend::microvm::vmm::layout;
use crate::sys::Errno;
use crate::sys::mapping;
use crate::sys::mapping::LARGE;

/// The memory of a guest, in one or two ranges.
pub type Memory = GuestMemoryMmap<()>;

/// Why there is no memory for a guest.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The file cannot be made.
    #[error("memory: {size} bytes cannot be had{}", hint(*huge))]
    File {
        /// How much was asked for.
        size: u64,
        /// Whether in huge pages.
        huge: bool,
        /// Why not.
        source: Errno,
    },
    /// The file cannot be mapped.
    #[error("memory: cannot be mapped")]
    Map(#[source] Errno),
    /// Its ranges cannot be.
    #[error("memory: its ranges cannot be put together")]
    Ranges(#[from] GuestRegionCollectionError),
}

fn hint(huge: bool) -> &'static str {
    if huge {
        " in huge pages (see vm.nr_hugepages)"
    } else {
        ""
    }
}

/// Makes memory of a size, in huge pages if that is asked for.
///
/// # Errors
///
/// [`MemoryError`].
pub(super) fn create(size: u64, huge: bool) -> Result<Memory, MemoryError> {
    let file = file(size, huge).map_err(|source| MemoryError::File { size, huge, source })?;
    let low = size.min(layout::HOLE);
    let piece = |address, offset, length: u64| {
        let file = file.try_clone().map_err(|error| MemoryError::File {
            size,
            huge,
            source: Errno::from_io_error(&error).unwrap_or(Errno::NOMEM),
        })?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let mapped = mapping::shared(FileOffset::new(file, offset), length);
        let mapped = mapped.map_err(MemoryError::Map)?;
        GuestRegionMmap::new(mapped, GuestAddress(address)).ok_or(MemoryError::Map(Errno::INVAL))
    };
    let mut pieces = vec![piece(0, 0, low)?];
    if size > low {
        pieces.push(piece(layout::HOLE_END, low, size - low)?);
    }
    Ok(Memory::from_regions(pieces)?)
}

/// Makes large pages of the part of the memory that is certainly used, if there are any to be had: each spares the
/// guest, and this host, five hundred faults.
pub(super) fn gather(memory: &Memory, from: u64, to: u64) {
    let large = LARGE as u64;
    let (from, to) = (from / large * large, to.next_multiple_of(large));
    let Some(region) = memory.find_region(GuestAddress(from)) else {
        return;
    };
    let (begin, last) = (region.start_addr().0, region.start_addr().0 + region.len());
    let to = to.min(last / large * large);
    // A large page is made of what is there, so something must be.
    for page in (from..to).step_by(LARGE) {
        let touched = memory.read_obj::<u8>(GuestAddress(page));
        touched.map(drop).unwrap_or_default();
    }
    let offset = usize::try_from(from.saturating_sub(begin)).unwrap_or(usize::MAX);
    let length = usize::try_from(to.saturating_sub(from)).unwrap_or_default();
    if length > 0 {
        // Small pages do as well.
        mapping::gather(region, offset, length).unwrap_or_default();
    }
}

/// A file of this size that cannot change its size: whoever is given it cannot take memory away under the guest.
fn file(size: u64, huge: bool) -> Result<File, Errno> {
    let mut flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    flags |= if huge {
        MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB
    } else {
        MemfdFlags::NOEXEC_SEAL
    };
    let file = match rustix::fs::memfd_create("guest", flags) {
        // NOEXEC_SEAL needs Linux 6.3.
        Err(Errno::INVAL) => rustix::fs::memfd_create("guest", flags - MemfdFlags::NOEXEC_SEAL),
        other => other,
    }?;
    rustix::fs::ftruncate(&file, size)?;
    if huge {
        // They are few: one that is missing when the guest comes to it would be the end of this process.
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, size)?;
    }
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW)?;
    Ok(File::from(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_beyond_the_devices_is_the_same_file_further_on() {
        let memory = create(4 << 30, false).unwrap();
        let regions: Vec<_> = memory.iter().collect();
        assert_eq!(regions.len(), 2);
        assert_eq!(regions[1].start_addr(), GuestAddress(4 << 30));
        assert_eq!(regions[1].len(), 1 << 30);
        assert_eq!(regions[1].file_offset().unwrap().start(), 3 << 30);
    }

    #[test]
    fn what_is_gathered_is_as_it_was() {
        let memory = create(9 << 20, false).unwrap();
        memory.write_slice(b"here", GuestAddress(5 << 20)).unwrap();
        gather(&memory, 3 << 20, 20 << 20);
        let mut found = [0; 5];
        memory
            .read_slice(&mut found, GuestAddress(5 << 20))
            .unwrap();
        assert_eq!(&found, b"here\0");
        gather(&memory, 1 << 40, 2 << 40);
    }

    #[test]
    fn nobody_can_make_the_memory_smaller() {
        let memory = create(8 << 20, false).unwrap();
        let region = memory.iter().next().unwrap();
        let refused = region.file_offset().unwrap().file().set_len(4096);
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EPERM));
    }
}
