//! What stands before the bytes of a packet, and where those bytes lie.

use vm_memory::GuestAddress;
use vm_memory::GuestMemoryMmap;
use vm_memory::VolatileSlice;

use crate::backend::microvm::vmm::virtio::ChainError;
use crate::backend::microvm::vmm::virtio::Segment;

/// The host, as a guest addresses it (`VMADDR_CID_HOST`).
pub(super) const HOST_CID: u64 = 2;

/// The only type of socket that there is here: a stream (`VIRTIO_VSOCK_TYPE_STREAM`).
pub(super) const STREAM: u16 = 1;

/// The flags of a [`Op::Shutdown`]: who said it receives no more.
pub(super) const RECEIVES_NO_MORE: u32 = 1;
/// The flags of a [`Op::Shutdown`]: who said it sends no more.
pub(super) const SENDS_NO_MORE: u32 = 2;

/// What a packet is for (`VIRTIO_VSOCK_OP_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    /// A stream is asked for.
    Request,
    /// It is granted.
    Response,
    /// There is no such stream, or not any more.
    Reset,
    /// Its sender sends or receives no more.
    Shutdown,
    /// Bytes.
    Payload,
    /// How much room its sender has: as every packet tells.
    CreditUpdate,
    /// The other side is asked how much room it has.
    CreditRequest,
}

impl Op {
    /// The number on the wire.
    #[must_use]
    pub(super) fn number(self) -> u16 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
            Self::Reset => 3,
            Self::Shutdown => 4,
            Self::Payload => 5,
            Self::CreditUpdate => 6,
            Self::CreditRequest => 7,
        }
    }

    /// What the number on the wire means, if anything.
    #[must_use]
    pub(super) fn of(number: u16) -> Option<Self> {
        let op = match number {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Reset,
            4 => Self::Shutdown,
            5 => Self::Payload,
            6 => Self::CreditUpdate,
            7 => Self::CreditRequest,
            _ => return None,
        };
        Some(op)
    }
}

/// The first bytes of every packet (`struct virtio_vsock_hdr`), as they were when they were read: once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Header {
    /// The machine that it comes from.
    pub(super) src_cid: u64,
    /// The machine that it goes to.
    pub(super) dst_cid: u64,
    /// The port that it comes from.
    pub(super) src_port: u32,
    /// The port that it goes to.
    pub(super) dst_port: u32,
    /// How many bytes follow.
    pub(super) len: u32,
    /// The type of the socket.
    pub(super) kind: u16,
    /// The number of its [`Op`].
    pub(super) op: u16,
    /// What more there is to the op.
    pub(super) flags: u32,
    /// How many bytes the sender has room for, full or empty.
    pub(super) buf_alloc: u32,
    /// How many bytes have left that room since the stream began.
    pub(super) fwd_cnt: u32,
}

impl Header {
    /// Its length in bytes.
    pub(super) const LENGTH: usize = 44;

    /// Reads it from the bytes on the wire, in which numbers are little-endian.
    #[must_use]
    pub(super) fn parse(bytes: &[u8; Self::LENGTH]) -> Self {
        let mut rest = bytes.as_slice();
        Self {
            src_cid: u64::from_le_bytes(first(&mut rest)),
            dst_cid: u64::from_le_bytes(first(&mut rest)),
            src_port: u32::from_le_bytes(first(&mut rest)),
            dst_port: u32::from_le_bytes(first(&mut rest)),
            len: u32::from_le_bytes(first(&mut rest)),
            kind: u16::from_le_bytes(first(&mut rest)),
            op: u16::from_le_bytes(first(&mut rest)),
            flags: u32::from_le_bytes(first(&mut rest)),
            buf_alloc: u32::from_le_bytes(first(&mut rest)),
            fwd_cnt: u32::from_le_bytes(first(&mut rest)),
        }
    }

    /// The bytes on the wire.
    #[must_use]
    pub(super) fn bytes(&self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        let mut rest = bytes.as_mut_slice();
        put(&mut rest, &self.src_cid.to_le_bytes());
        put(&mut rest, &self.dst_cid.to_le_bytes());
        put(&mut rest, &self.src_port.to_le_bytes());
        put(&mut rest, &self.dst_port.to_le_bytes());
        put(&mut rest, &self.len.to_le_bytes());
        put(&mut rest, &self.kind.to_le_bytes());
        put(&mut rest, &self.op.to_le_bytes());
        put(&mut rest, &self.flags.to_le_bytes());
        put(&mut rest, &self.buf_alloc.to_le_bytes());
        put(&mut rest, &self.fwd_cnt.to_le_bytes());
        bytes
    }

    /// What it is for; nothing when that is not known.
    #[must_use]
    pub(super) fn op(&self) -> Option<Op> {
        Op::of(self.op)
    }
}

/// The first bytes of `rest`, which go from it; zeros where there are none.
fn first<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (taken, left) = rest.split_first_chunk().unwrap_or((&[0; N], &[]));
    *rest = left;
    *taken
}

/// Puts `field` at the beginning of `rest`, which then is what lies behind it.
fn put(rest: &mut &mut [u8], field: &[u8]) {
    let (place, left) = std::mem::take(rest).split_at_mut(field.len());
    place.copy_from_slice(field);
    *rest = left;
}

/// Adds to `slices` the bytes of `segments` that lie behind a header, `most` of them; gives how many these are.
///
/// A driver may lay a packet in as many buffers as it likes: Linux puts header and bytes into one or into two, and the
/// bytes of a large packet into one for each of its own pieces.
///
/// # Errors
///
/// As [`Segment::slice`]: never for the segments of a chain of that memory.
pub(super) fn payload<'a>(
    memory: &'a GuestMemoryMmap<()>,
    segments: &[Segment],
    most: u32,
    slices: &mut Vec<VolatileSlice<'a>>,
) -> Result<u32, ChainError> {
    let mut skip = u32::try_from(Header::LENGTH).unwrap_or(u32::MAX);
    let mut left = most;
    for segment in segments {
        if left == 0 {
            break;
        }
        let skipped = skip.min(segment.length);
        skip -= skipped;
        let part = Segment {
            address: GuestAddress(segment.address.0 + u64::from(skipped)),
            length: (segment.length - skipped).min(left),
        };
        if part.length > 0 {
            slices.push(part.slice(memory)?);
            left -= part.length;
        }
    }
    Ok(most - left)
}

/// How many bytes `segments` have room for behind a header; nothing when not even that fits.
#[must_use]
pub(super) fn room(segments: &[Segment]) -> Option<u32> {
    let all: u64 = segments.iter().map(|one| u64::from(one.length)).sum();
    let room = all.checked_sub(Header::LENGTH as u64)?;
    Some(u32::try_from(room).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            src_cid: 3,
            dst_cid: HOST_CID,
            src_port: 0x0102_0304,
            dst_port: 1024,
            len: 5,
            kind: STREAM,
            op: Op::Payload.number(),
            flags: 6,
            buf_alloc: 0x1_0000,
            fwd_cnt: u32::MAX,
        }
    }

    #[test]
    fn a_header_has_the_bytes_of_the_specification() {
        let expected = [
            3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 4, 3, 2, 1, 0, 4, 0, 0, 5, 0, 0, 0, 1,
            0, 5, 0, 6, 0, 0, 0, 0, 0, 1, 0, 255, 255, 255, 255,
        ];
        assert_eq!(header().bytes(), expected);
        assert_eq!(Header::parse(&expected), header());
    }

    #[test]
    fn every_op_is_known_by_its_number_and_no_other_is() {
        let known: Vec<u16> = (0..=u16::MAX)
            .filter(|one| Op::of(*one).is_some())
            .collect();
        assert_eq!(known, (1..=7).collect::<Vec<u16>>());
        for number in known {
            assert_eq!(Op::of(number).unwrap().number(), number);
        }
    }

    fn segments(parts: &[(u64, u32)]) -> Vec<Segment> {
        let segment = |(address, length): &(u64, u32)| Segment {
            address: GuestAddress(*address),
            length: *length,
        };
        parts.iter().map(segment).collect()
    }

    #[test]
    fn the_bytes_behind_a_header_are_found_however_they_are_laid() {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap();
        for parts in [
            &[(0x100_u64, 144_u32)][..],
            &[(0x100, 44), (0x200, 100)],
            &[(0x100, 20), (0x200, 24), (0x300, 50), (0x400, 50)],
            &[(0x100, 50), (0x200, 94), (0x300, 1000)],
        ] {
            let mut slices = Vec::new();
            let found = payload(&memory, &segments(parts), 100, &mut slices).unwrap();
            let bytes: usize = slices.iter().map(VolatileSlice::len).sum();
            assert_eq!((found, bytes), (100, 100), "{parts:?}");
        }
    }

    #[test]
    fn no_more_bytes_are_found_than_there_are() {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap();
        let mut slices = Vec::new();
        let found = payload(&memory, &segments(&[(0, 50), (100, 4)]), 1000, &mut slices);
        assert_eq!(found.unwrap(), 10);
    }

    #[test]
    fn room_is_what_a_header_leaves() {
        assert_eq!(room(&segments(&[(0, 40)])), None);
        assert_eq!(room(&segments(&[(0, 40), (0, 4)])), Some(0));
        assert_eq!(room(&segments(&[(0, 44), (0, 4096)])), Some(4096));
    }
}
