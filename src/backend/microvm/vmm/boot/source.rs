//! A file that is put into guest memory: the kernel moves the bytes from its cache to the memory's file, so that no page
//! of this process is touched and none is cleared before it is filled. Holes are left out: memory is zero already.

use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Seek;

use rustix::fs::SeekFrom;
use rustix::fs::seek;
use vm_memory::GuestMemory;
use vm_memory::GuestMemoryRegion;
use vm_memory::ReadVolatile;
use vm_memory::VolatileMemoryError;
use vm_memory::VolatileSlice;
use vm_memory::bitmap::BitmapSlice;

use crate::backend::microvm::vmm::memory::Memory;
use crate::sys::Errno;

/// A file, and the memory that it goes into, of which nothing was used before.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub(super) file: &'a mut File,
    pub(super) memory: &'a Memory,
    /// Whether the bytes are left where they are: then only places are looked at.
    pub(super) rehearsal: bool,
}

impl<'a> Source<'a> {
    /// A file that is to be read into this memory.
    pub(super) fn new(file: &'a mut File, memory: &'a Memory) -> Self {
        Self {
            file,
            memory,
            rehearsal: false,
        }
    }

    /// Moves up to `length` bytes to this address of the process, if that is a place in the memory's own file.
    fn pour(&mut self, address: usize, length: usize) -> Option<io::Result<usize>> {
        let (to, place) = self.memory.iter().find_map(|region| {
            let inside = address.checked_sub(region.as_ptr().addr())?;
            let inside = u64::try_from(inside).ok()?;
            let offset = region.file_offset()?;
            (inside < region.len()).then(|| (offset.file(), offset.start() + inside))
        })?;
        Some(self.move_to(to, place, length))
    }

    fn move_to(&self, to: &File, place: u64, length: usize) -> io::Result<usize> {
        let from = &*self.file;
        let at = seek(from, SeekFrom::Current(0))?;
        let data = match seek(from, SeekFrom::Data(at)) {
            // There is a hole up to the end.
            Err(Errno::NXIO) => seek(from, SeekFrom::End(0))?,
            answer => answer?,
        };
        if data > at {
            let hole = usize::try_from(data - at).unwrap_or(usize::MAX).min(length);
            seek(from, SeekFrom::Start(at + hole as u64))?;
            return Ok(hole);
        }
        let end = seek(from, SeekFrom::Hole(at))?;
        let piece = usize::try_from(end - at).unwrap_or(usize::MAX).min(length);
        seek(from, SeekFrom::Start(at))?;
        seek(to, SeekFrom::Start(place))?;
        Ok(rustix::fs::sendfile(to, from, None, piece)?)
    }
}

impl ReadVolatile for Source<'_> {
    fn read_volatile<B: BitmapSlice>(
        &mut self,
        slice: &mut VolatileSlice<'_, B>,
    ) -> Result<usize, VolatileMemoryError> {
        if self.rehearsal {
            let length = i64::try_from(slice.len()).unwrap_or(i64::MAX);
            self.file
                .seek(io::SeekFrom::Current(length))
                .map_err(VolatileMemoryError::IOError)?;
            return Ok(slice.len());
        }
        let address = slice.ptr_guard_mut().as_ptr().addr();
        let mut done = 0;
        while done < slice.len() {
            let moved = match self.pour(address + done, slice.len() - done) {
                Some(Ok(moved)) => moved,
                // Memory in huge pages cannot be written to by the kernel so, and not every file can be read so.
                Some(Err(_)) | None => self.file.read_volatile(&mut slice.offset(done)?)?,
            };
            if moved == 0 {
                break;
            }
            done += moved;
        }
        Ok(done)
    }
}

impl Read for Source<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.file.read(bytes)
    }
}

impl Seek for Source<'_> {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use vm_memory::Bytes;
    use vm_memory::GuestAddress;

    use super::*;
    use crate::backend::microvm::vmm::memory;

    /// Reads a file with a hole in its middle, from its byte 100 on, to an odd place.
    #[track_caller]
    fn reads(memory: &Memory) {
        let mut content = vec![0; 30_000];
        let mut file = tempfile::tempfile().unwrap();
        for (at, byte) in [(0, 7), (20_480, 9)] {
            content[at..at + 4096].fill(byte);
            file.write_all_at(&content[at..at + 4096], at as u64)
                .unwrap();
        }
        file.set_len(30_000).unwrap();
        file.seek(io::SeekFrom::Start(100)).unwrap();
        let mut source = Source::new(&mut file, memory);
        let place = GuestAddress(4099);
        let read = memory.read_exact_volatile_from(place, &mut source, 29_000);
        read.unwrap();
        let mut found = vec![0; 29_002];
        memory.read_slice(&mut found, GuestAddress(4098)).unwrap();
        assert_eq!((found[0], found[29_001]), (0, 0));
        assert!(found[1..29_001] == content[100..29_100]);
        assert_eq!(source.stream_position().unwrap(), 29_100);
        // What is not there is not made up.
        let more = memory.read_exact_volatile_from(place, &mut source, 1000);
        assert!(more.is_err());
    }

    #[test]
    fn bytes_of_a_file_come_to_their_place_in_memory() {
        reads(&memory::create(8 << 20, false).unwrap());
    }

    #[test]
    fn memory_without_a_file_is_read_into_as_well() {
        reads(&Memory::from_ranges(&[(GuestAddress(0), 8 << 20)]).unwrap());
    }
}
