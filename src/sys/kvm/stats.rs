//! What KVM counts about a machine and its processors (`KVM_GET_STATS_FD`, Linux 5.14).
//!
//! The file describes itself: a header, a descriptor with a name for each value, then the values. Names and places are
//! read once, the values as often as they are wanted, at the price of one `pread(2)`. It is a file like others, so that
//! a process can leave the reading to whoever may look into it.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use crate::sys::Result;
use crate::sys::opened;

/// `_IO(KVMIO, 0xce)`.
const GET_STATS_FD: libc::Ioctl = 0xaece;
/// `struct kvm_stats_header`: flags, name size, count, and the offsets of id, descriptors and data.
const HEADER: usize = 24;
/// `struct kvm_stats_desc` without the name: flags, exponent, size, offset, bucket size.
const DESCRIPTOR: usize = 16;
/// More values than any kernel has.
const COUNT_MAX: usize = 1024;

/// The counters of one machine or processor.
#[derive(Debug)]
pub struct Stats {
    file: File,
    places: Vec<Place>,
    data: u64,
    length: usize,
}

#[derive(Debug)]
struct Place {
    name: String,
    offset: usize,
}

impl Stats {
    /// The counters in such a file.
    ///
    /// # Errors
    ///
    /// As the file is read; `InvalidData` when it is another file.
    pub fn new(file: File) -> io::Result<Self> {
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, 0)?;
        let field = |index: usize| number(&header, index * 4);
        let (name, count) = (field(1)?, field(2)?);
        let (descriptors, data) = (field(4)? as u64, field(5)? as u64);
        if count > COUNT_MAX || name > 4096 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut text = vec![0; count * (DESCRIPTOR + name)];
        file.read_exact_at(&mut text, descriptors)?;
        let places: Vec<Place> = text
            .chunks_exact(DESCRIPTOR + name)
            .filter_map(Place::read)
            .collect();
        let length = places.iter().map(|place| place.offset + 8).max();
        Ok(Self {
            file,
            places,
            data,
            length: length.unwrap_or_default(),
        })
    }

    /// The values with these names, as they are now; 0 for a name that this kernel does not have.
    ///
    /// # Errors
    ///
    /// As `pread(2)`.
    pub fn read<const N: usize>(&self, names: [&str; N]) -> io::Result<[u64; N]> {
        let mut data = vec![0; self.length];
        self.file.read_exact_at(&mut data, self.data)?;
        let value = |name: &str| {
            let place = self.places.iter().find(|place| place.name == name)?;
            let bytes = data.get(place.offset..)?.first_chunk()?;
            Some(u64::from_le_bytes(*bytes))
        };
        Ok(names.map(|name| value(name).unwrap_or_default()))
    }
}

impl Place {
    /// A descriptor with the name behind it.
    fn read(text: &[u8]) -> Option<Self> {
        let offset = number(text, 8).ok()?;
        let name = text.get(DESCRIPTOR..)?.split(|byte| *byte == 0).next()?;
        Some(Self {
            name: String::from_utf8_lossy(name).into_owned(),
            offset,
        })
    }
}

fn number(text: &[u8], at: usize) -> io::Result<usize> {
    let bytes = text.get(at..).and_then(<[u8]>::first_chunk);
    let bytes: &[u8; 4] = bytes.ok_or(io::ErrorKind::InvalidData)?;
    usize::try_from(u32::from_le_bytes(*bytes)).map_err(io::Error::other)
}

/// The file with the counters of a machine or processor.
///
/// # Errors
///
/// `ENOTTY` on a kernel without them.
pub fn open(machine: &impl AsRawFd) -> Result<OwnedFd> {
    // SAFETY: this request takes no argument and opens a descriptor, or gives an error where it is not known.
    opened(unsafe { libc::ioctl(machine.as_raw_fd(), GET_STATS_FD, 0) }.into())
}
