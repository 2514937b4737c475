//! What a driver asks of a disk.

use std::io;

use virtio_bindings::virtio_blk::VIRTIO_BLK_S_IOERR;
use virtio_bindings::virtio_blk::VIRTIO_BLK_S_OK;
use virtio_bindings::virtio_blk::VIRTIO_BLK_S_UNSUPP;
use virtio_bindings::virtio_blk::VIRTIO_BLK_T_DISCARD;
use virtio_bindings::virtio_blk::VIRTIO_BLK_T_FLUSH;
use virtio_bindings::virtio_blk::VIRTIO_BLK_T_GET_ID;
use virtio_bindings::virtio_blk::VIRTIO_BLK_T_IN;
use virtio_bindings::virtio_blk::VIRTIO_BLK_T_OUT;
use virtio_bindings::virtio_blk::VIRTIO_BLK_T_WRITE_ZEROES;
use vm_memory::GuestMemoryMmap;

use crate::backend::microvm::vmm::virtio::chain::Chain;
use crate::backend::microvm::vmm::virtio::device::DeviceError;

/// How long the head of a request is.
pub(super) const HEAD: usize = 16;
/// The size of a sector, whatever the disk's own is.
pub(super) const SECTOR: u64 = 512;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Read,
    Write,
    Flush,
    Identify,
    Discard,
    WriteZeroes,
    Unknown,
}

/// How a request ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    Failed,
    Unsupported,
}

impl Outcome {
    /// As the driver reads it.
    pub(super) fn byte(self) -> u8 {
        let status = match self {
            Self::Done => VIRTIO_BLK_S_OK,
            Self::Failed => VIRTIO_BLK_S_IOERR,
            Self::Unsupported => VIRTIO_BLK_S_UNSUPP,
        };
        u8::try_from(status).unwrap_or(u8::MAX)
    }
}

impl From<io::Result<()>> for Outcome {
    fn from(result: io::Result<()>) -> Self {
        match result {
            Ok(()) => Self::Done,
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Self::Unsupported,
            Err(_) => Self::Failed,
        }
    }
}

/// A request, its head read.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) chain: Chain,
    pub(super) order: Order,
    sector: u64,
    /// Bytes that the driver gives behind the head.
    pub(super) given: usize,
    /// Bytes that the driver has room for before the status.
    pub(super) room: usize,
}

impl Request {
    /// Reads the head of a request, once.
    pub(super) fn read(memory: &GuestMemoryMmap<()>, chain: Chain) -> Result<Self, DeviceError> {
        let mut head = [0; HEAD];
        let mut reader = chain.reader(memory);
        let short = |_| DeviceError::Request("a request without a whole head");
        reader.read(&mut head).map_err(short)?;
        let given = reader.left();
        let room = chain.writer(memory).left().checked_sub(1);
        let room = room.ok_or(DeviceError::Request("a request without room for a status"))?;
        let [a, b, c, d, _, _, _, _, sector @ ..] = head;
        let order = match u32::from_le_bytes([a, b, c, d]) {
            VIRTIO_BLK_T_IN => Order::Read,
            VIRTIO_BLK_T_OUT => Order::Write,
            VIRTIO_BLK_T_FLUSH => Order::Flush,
            VIRTIO_BLK_T_GET_ID => Order::Identify,
            VIRTIO_BLK_T_DISCARD => Order::Discard,
            VIRTIO_BLK_T_WRITE_ZEROES => Order::WriteZeroes,
            _ => Order::Unknown,
        };
        Ok(Self {
            chain,
            order,
            sector: u64::from_le_bytes(sector),
            given,
            room,
        })
    }

    /// How many bytes it moves to or from the disk.
    pub(super) fn length(&self) -> usize {
        match self.order {
            Order::Read => self.room,
            Order::Write => self.given,
            Order::Flush
            | Order::Identify
            | Order::Discard
            | Order::WriteZeroes
            | Order::Unknown => 0,
        }
    }

    /// Where on the disk it begins, if all of it is there: whole sectors, and not none.
    pub(super) fn offset(&self, sectors: u64, most: usize) -> Option<u64> {
        let length = u64::try_from(self.length()).ok()?;
        if length == 0 || length % SECTOR != 0 || self.length() > most {
            return None;
        }
        let end = self.sector.checked_add(length / SECTOR)?;
        (end <= sectors).then(|| self.sector * SECTOR)
    }

    /// Says how it ended; gives how many bytes of the room were used.
    pub(super) fn answer(
        &self,
        memory: &GuestMemoryMmap<()>,
        outcome: Outcome,
    ) -> Result<u32, DeviceError> {
        let mut writer = self.chain.writer(memory);
        writer.skip(self.room)?;
        writer.write(&[outcome.byte()])?;
        let filled = match (self.order, outcome) {
            (Order::Read | Order::Identify, Outcome::Done) => self.room,
            _ => 0,
        };
        Ok(u32::try_from(filled + 1).unwrap_or(u32::MAX))
    }
}

/// A part of a disk that is to be emptied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) flags: u32,
}

impl Part {
    /// How long one is, as the driver writes it.
    pub(super) const SIZE: usize = 16;

    /// Reads one; nothing if it is not all on the disk, or longer than may be.
    pub(super) fn read(bytes: [u8; Self::SIZE], sectors: u64, most: u32) -> Option<Self> {
        let [a, b, c, d, e, f, g, h, i, j, k, l, flags @ ..] = bytes;
        let sector = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let count = u32::from_le_bytes([i, j, k, l]);
        let end = sector.checked_add(count.into())?;
        (end <= sectors && count <= most).then(|| Self {
            offset: sector * SECTOR,
            length: u64::from(count) * SECTOR,
            flags: u32::from_le_bytes(flags),
        })
    }
}
