//! One request of a driver: buffers in guest memory, linked by descriptors, each looked at once and checked.

use virtio_queue::desc::split::Descriptor;
use vm_memory::ByteValued;
use vm_memory::Bytes;
use vm_memory::GuestAddress;
use vm_memory::GuestMemory;
use vm_memory::GuestMemoryMmap;
use vm_memory::VolatileSlice;

/// The most buffers that a request may have, over an indirect table: as many as `readv(2)` takes.
const MOST_SEGMENTS: usize = 1024;
/// The size of a descriptor, in bytes.
const DESCRIPTOR: u32 = 16;

/// What is wrong with a chain of descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// A descriptor that the table does not have.
    #[error("descriptor {index} of a table of {size}")]
    Index {
        /// The descriptor.
        index: u16,
        /// How many there are.
        size: u16,
    },
    /// The table itself cannot be read.
    #[error("a descriptor at {address:#x} is not in guest memory")]
    Table {
        /// Where it should be.
        address: u64,
    },
    /// More descriptors than a chain can have, as when they go in a circle.
    #[error("more than {most} descriptors in a chain")]
    Endless {
        /// As many as there may be.
        most: usize,
    },
    /// A table of descriptors where none may be, or one of no whole number of them.
    #[error("an indirect table that cannot be")]
    Indirect,
    /// A buffer of no bytes.
    #[error("a buffer of no bytes")]
    Empty,
    /// A buffer to be read behind one to be written.
    #[error("a buffer to be read behind one to be written")]
    Order,
    /// More bytes than a request may have.
    #[error("more than 4 GiB in a chain")]
    Huge,
    /// A buffer that is not, or not wholly, in guest memory.
    #[error("{length} bytes at {address:#x} are not in guest memory")]
    Outside {
        /// Where it begins.
        address: u64,
        /// Its length.
        length: u32,
    },
    /// Fewer bytes than the request must have.
    #[error("a buffer ends too early")]
    Short,
}

/// A buffer of a request: it lies in guest memory, within one region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins.
    pub address: GuestAddress,
    /// Its length in bytes, never zero.
    pub length: u32,
}

/// A request: what the driver gives, and room for what it wants.
#[derive(Debug)]
pub struct Chain {
    head: u16,
    segments: Vec<Segment>,
    readable: usize,
}

impl Chain {
    /// The number that the driver knows the request by.
    #[must_use]
    pub fn head(&self) -> u16 {
        self.head
    }

    /// What the driver gives.
    #[must_use]
    pub fn readable(&self) -> &[Segment] {
        self.segments.get(..self.readable).unwrap_or_default()
    }

    /// Room for what the driver wants.
    #[must_use]
    pub fn writable(&self) -> &[Segment] {
        self.segments.get(self.readable..).unwrap_or_default()
    }

    /// Reads what the driver gives, from the beginning.
    #[must_use]
    pub fn reader<'a>(&'a self, memory: &'a GuestMemoryMmap<()>) -> Cursor<'a> {
        Cursor::new(memory, self.readable())
    }

    /// Writes what the driver wants, from the beginning.
    #[must_use]
    pub fn writer<'a>(&'a self, memory: &'a GuestMemoryMmap<()>) -> Cursor<'a> {
        Cursor::new(memory, self.writable())
    }
}

/// A table of descriptors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table {
    pub(super) address: u64,
    pub(super) size: u16,
    /// Whether a descriptor may lead to another table.
    pub(super) indirect: bool,
}

impl Table {
    fn descriptor(
        self,
        memory: &GuestMemoryMmap<()>,
        index: u16,
    ) -> Result<Descriptor, ChainError> {
        let size = self.size;
        if index >= size {
            return Err(ChainError::Index { index, size });
        }
        let offset = u64::from(index) * u64::from(DESCRIPTOR);
        let address = self.address.checked_add(offset);
        let read = address.map(|address| memory.read_obj(GuestAddress(address)));
        read.and_then(Result::ok).ok_or(ChainError::Table {
            address: self.address,
        })
    }

    /// The table that a descriptor of this one leads to.
    fn led_to(self, descriptor: Descriptor) -> Result<Self, ChainError> {
        let size = descriptor.len() / DESCRIPTOR;
        let whole = descriptor.len().is_multiple_of(DESCRIPTOR) && size > 0;
        if !self.indirect || descriptor.has_next() || !whole {
            return Err(ChainError::Indirect);
        }
        Ok(Self {
            address: descriptor.addr().0,
            size: u16::try_from(size).map_err(|_| ChainError::Indirect)?,
            indirect: false,
        })
    }
}

/// Follows the descriptors from `head`; every one is read once.
pub(super) fn walk(
    memory: &GuestMemoryMmap<()>,
    mut table: Table,
    head: u16,
) -> Result<Chain, ChainError> {
    let mut chain = Chain {
        head,
        segments: Vec::new(),
        readable: 0,
    };
    let mut index = head;
    let mut most = usize::from(table.size);
    let mut bytes: u32 = 0;
    loop {
        let descriptor = table.descriptor(memory, index)?;
        if descriptor.refers_to_indirect_table() {
            table = table.led_to(descriptor)?;
            most = MOST_SEGMENTS;
            index = 0;
            continue;
        }
        if chain.segments.len() == most {
            return Err(ChainError::Endless { most });
        }
        bytes = bytes
            .checked_add(descriptor.len())
            .ok_or(ChainError::Huge)?;
        chain.add(memory, descriptor)?;
        if !descriptor.has_next() {
            return Ok(chain);
        }
        index = descriptor.next();
    }
}

impl Chain {
    fn add(
        &mut self,
        memory: &GuestMemoryMmap<()>,
        descriptor: Descriptor,
    ) -> Result<(), ChainError> {
        let segment = Segment {
            address: descriptor.addr(),
            length: descriptor.len(),
        };
        if segment.length == 0 {
            return Err(ChainError::Empty);
        }
        segment.slice(memory)?;
        if !descriptor.is_write_only() {
            if self.readable < self.segments.len() {
                return Err(ChainError::Order);
            }
            self.readable += 1;
        }
        self.segments.push(segment);
        Ok(())
    }
}

impl Segment {
    /// The bytes themselves.
    ///
    /// # Errors
    ///
    /// [`ChainError::Outside`] when they are not in `memory`: never for a segment of a chain of that memory.
    pub fn slice<'a>(
        &self,
        memory: &'a GuestMemoryMmap<()>,
    ) -> Result<VolatileSlice<'a>, ChainError> {
        let length = usize::try_from(self.length).unwrap_or(usize::MAX);
        let slice = memory.get_slice(self.address, length);
        slice.map_err(|_| ChainError::Outside {
            address: self.address.0,
            length: self.length,
        })
    }
}

/// A place in the buffers of a request.
#[derive(Debug, Clone, Copy)]
pub struct Cursor<'a> {
    memory: &'a GuestMemoryMmap<()>,
    segments: &'a [Segment],
    /// How much of the first of `segments` is done.
    done: u32,
}

impl<'a> Cursor<'a> {
    /// The beginning of `segments`.
    #[must_use]
    pub fn new(memory: &'a GuestMemoryMmap<()>, segments: &'a [Segment]) -> Self {
        Self {
            memory,
            segments,
            done: 0,
        }
    }

    /// How many bytes are left.
    #[must_use]
    pub fn left(&self) -> usize {
        let all: u64 = self.segments.iter().map(|one| u64::from(one.length)).sum();
        usize::try_from(all - u64::from(self.done)).unwrap_or(usize::MAX)
    }

    /// The next bytes that lie together, at most `most` of them, and goes behind them; nothing at the end.
    ///
    /// # Errors
    ///
    /// As [`Segment::slice`].
    pub fn next_slice(&mut self, most: usize) -> Result<Option<VolatileSlice<'a>>, ChainError> {
        let Some((first, rest)) = self.segments.split_first() else {
            return Ok(None);
        };
        let left = first.length - self.done;
        let taken = left.min(u32::try_from(most).unwrap_or(u32::MAX));
        let part = Segment {
            address: GuestAddress(first.address.0 + u64::from(self.done)),
            length: taken,
        };
        if taken == left {
            self.segments = rest;
            self.done = 0;
        } else {
            self.done += taken;
        }
        part.slice(self.memory).map(Some)
    }

    /// The next `length` bytes as the pieces that they are, and goes behind them.
    ///
    /// # Errors
    ///
    /// [`ChainError::Short`] when there are fewer.
    pub fn slices(&mut self, length: usize) -> Result<Vec<VolatileSlice<'a>>, ChainError> {
        let mut left = length;
        let mut slices = Vec::with_capacity(self.segments.len());
        while left > 0 {
            let slice = self.next_slice(left)?.ok_or(ChainError::Short)?;
            left -= slice.len();
            slices.push(slice);
        }
        Ok(slices)
    }

    /// Copies the next bytes out.
    ///
    /// # Errors
    ///
    /// [`ChainError::Short`] when there are fewer.
    pub fn read(&mut self, bytes: &mut [u8]) -> Result<(), ChainError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let slice = self.next_slice(rest.len())?.ok_or(ChainError::Short)?;
            let copied = slice.copy_to(rest);
            rest = rest.get_mut(copied..).unwrap_or_default();
        }
        Ok(())
    }

    /// Copies the next bytes out, as a value.
    ///
    /// # Errors
    ///
    /// [`ChainError::Short`] when there are fewer.
    pub fn read_value<T: ByteValued + Default>(&mut self) -> Result<T, ChainError> {
        let mut value = T::default();
        self.read(value.as_mut_slice())?;
        Ok(value)
    }

    /// Copies `bytes` in.
    ///
    /// # Errors
    ///
    /// [`ChainError::Short`] when there is no room for them; as many as there is room for are copied.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ChainError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let slice = self.next_slice(rest.len())?.ok_or(ChainError::Short)?;
            slice.copy_from(rest);
            rest = rest.get(slice.len()..).unwrap_or_default();
        }
        Ok(())
    }

    /// Goes `length` bytes on.
    ///
    /// # Errors
    ///
    /// [`ChainError::Short`] when there are fewer.
    pub fn skip(&mut self, length: usize) -> Result<(), ChainError> {
        let mut left = length;
        while left > 0 {
            let slice = self.next_slice(left)?.ok_or(ChainError::Short)?;
            left -= slice.len();
        }
        Ok(())
    }
}
