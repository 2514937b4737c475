//! A disk: a raw image or a block device, byte for byte.
//!
//! Nothing is guessed from what is in it: an image that looks like another format is served as the bytes that it is.

mod engine;
mod request;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::io::Seek;
use std::io::SeekFrom;

use rustix::fs::FallocateFlags;
use virtio_bindings::virtio_blk::VIRTIO_BLK_F_BLK_SIZE;
use virtio_bindings::virtio_blk::VIRTIO_BLK_F_DISCARD;
use virtio_bindings::virtio_blk::VIRTIO_BLK_F_FLUSH;
use virtio_bindings::virtio_blk::VIRTIO_BLK_F_RO;
use virtio_bindings::virtio_blk::VIRTIO_BLK_F_SEG_MAX;
use virtio_bindings::virtio_blk::VIRTIO_BLK_F_SIZE_MAX;
use virtio_bindings::virtio_blk::VIRTIO_BLK_F_WRITE_ZEROES;
use virtio_bindings::virtio_blk::VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;
use vmm_sys_util::epoll::EventSet;

use crate::backend::microvm::vmm::config::Limit;
use crate::backend::microvm::vmm::virtio::Memory;
use crate::backend::microvm::vmm::virtio::block::engine::Engine;
use crate::backend::microvm::vmm::virtio::block::engine::Started;
use crate::backend::microvm::vmm::virtio::block::engine::Transfer;
use crate::backend::microvm::vmm::virtio::block::request::HEAD;
use crate::backend::microvm::vmm::virtio::block::request::Order;
use crate::backend::microvm::vmm::virtio::block::request::Outcome;
use crate::backend::microvm::vmm::virtio::block::request::Part;
use crate::backend::microvm::vmm::virtio::block::request::Request;
use crate::backend::microvm::vmm::virtio::block::request::SECTOR;
use crate::backend::microvm::vmm::virtio::chain::Chain;
use crate::backend::microvm::vmm::virtio::device::Activation;
use crate::backend::microvm::vmm::virtio::device::DeviceError;
use crate::backend::microvm::vmm::virtio::device::RING_FEATURES;
use crate::backend::microvm::vmm::virtio::device::VirtioDevice;
use crate::backend::microvm::vmm::virtio::device::read_bytes;
use crate::backend::microvm::vmm::virtio::event_loop::Watch;
use crate::backend::microvm::vmm::virtio::limiter::Throttle;
use crate::backend::microvm::vmm::virtio::ring::Ring;
use crate::sys::scatter::Way;

/// How many descriptors there are.
const ENTRIES: u16 = 256;
/// Buffers in a request: all descriptors but those of head and status.
const SEGMENTS: u32 = 254;
/// Bytes in a buffer.
const SEGMENT: u32 = 256 << 10;
/// Bytes in a request.
const LARGEST: usize = (SEGMENTS as usize) * (SEGMENT as usize);
/// Parts in a request to empty them.
const PARTS: u32 = 32;
/// Sectors in such a part: 1 GiB.
const PART: u32 = 1 << 21;
/// The length of a disk's name.
const NAME: usize = 20;
/// How many requests are begun before others have their turn.
const TURN: usize = 4 * ENTRIES as usize;

/// Tokens beyond those of the ring.
const ENDED: u32 = 0x100;
const GO_ON: u32 = 0x101;

/// What there is to say about a disk besides its bytes.
#[derive(Debug, Clone, Default)]
pub struct BlockOptions {
    /// Whether the guest may not write; the file need not be open for writing then.
    pub read_only: bool,
    /// What the guest knows it by (`/sys/block/vda/serial`); at most 20 bytes of it.
    pub name: String,
    /// How much may go through.
    pub limit: Option<Limit>,
    /// Whether every request is waited for, also where there is another way.
    pub direct: bool,
}

/// A disk.
#[derive(Debug)]
pub struct Block {
    engine: Engine,
    sectors: u64,
    read_only: bool,
    name: [u8; NAME],
    throttle: Throttle,
    active: Option<Active>,
}

/// A disk that a driver uses.
#[derive(Debug)]
struct Active {
    ring: Ring,
    memory: Memory,
    way_out: Way,
    /// Requests that are under way, by their heads.
    begun: Vec<Option<Request>>,
}

impl Block {
    /// A disk of these bytes; what does not fill a sector at the end is not there.
    ///
    /// # Errors
    ///
    /// Fails as `lseek(2)` and `timerfd_create(2)` do.
    pub fn new(mut file: File, options: &BlockOptions) -> io::Result<Self> {
        let sectors = file.seek(SeekFrom::End(0))? / SECTOR;
        let mut name = [0; NAME];
        for (to, from) in name.iter_mut().zip(options.name.bytes()) {
            *to = from;
        }
        let engine = if options.direct {
            Engine::direct(file)
        } else {
            Engine::new(file, ENTRIES.into())
        };
        Ok(Self {
            engine,
            sectors,
            read_only: options.read_only,
            name,
            throttle: Throttle::new(options.limit)?,
            active: None,
        })
    }

    /// Whether requests are answered later, by a ring of the kernel.
    #[must_use]
    pub fn is_asynchronous(&self) -> bool {
        self.engine.ring().is_some()
    }

    /// Begins what the driver asks for, and answers what is done.
    fn serve(&mut self) -> Result<(), DeviceError> {
        let Some(mut active) = self.active.take() else {
            return Ok(());
        };
        let served = self.serve_for(&mut active);
        let answered = served.and_then(|()| self.answer_ended(&mut active));
        let told = answered.and_then(|()| Ok(active.ring.notify()?));
        self.active = Some(active);
        told
    }

    fn serve_for(&mut self, active: &mut Active) -> Result<(), DeviceError> {
        active.ring.mute()?;
        for _ in 0..TURN {
            if !self.throttle.passes()? {
                return self.submit();
            }
            let Some(chain) = active.ring.next_request()? else {
                return self.submit();
            };
            self.begin(active, chain)?;
        }
        active.ring.again();
        self.submit()
    }

    fn submit(&mut self) -> Result<(), DeviceError> {
        self.engine
            .submit()
            .map_err(DeviceError::host("begin requests"))
    }

    fn begin(&mut self, active: &mut Active, chain: Chain) -> Result<(), DeviceError> {
        let request = Request::read(&active.memory, chain)?;
        self.throttle
            .charge(u64::try_from(request.length()).unwrap_or(u64::MAX));
        let token = u64::from(request.chain.head());
        let started = match request.order {
            Order::Read | Order::Write => self.transfer(active, &request)?,
            Order::Flush => self.engine.sync(token),
            Order::Identify => Started::Done(self.identify(active, &request)),
            Order::Discard | Order::WriteZeroes => Started::Done(self.empty(active, &request)),
            Order::Unknown => Started::Done(Err(io::ErrorKind::Unsupported.into())),
        };
        match started {
            Started::Done(result) => active.answer(&request, result.into()),
            Started::Later => {
                let place = active.begun.get_mut(usize::from(request.chain.head()));
                if let Some(place) = place {
                    *place = Some(request);
                }
                Ok(())
            }
        }
    }

    fn transfer(&mut self, active: &Active, request: &Request) -> Result<Started, DeviceError> {
        let transfer = active.transfer(request, self.sectors);
        let Some(transfer) = transfer.filter(|transfer| self.may(transfer.way)) else {
            return Ok(Started::Done(Err(io::ErrorKind::InvalidInput.into())));
        };
        let token = u64::from(request.chain.head());
        Ok(self.engine.transfer(&active.memory, transfer, token)?)
    }

    fn may(&self, way: Way) -> bool {
        way == Way::In || !self.read_only
    }

    fn answer_ended(&mut self, active: &mut Active) -> Result<(), DeviceError> {
        while let Some(ended) = self.engine.ended() {
            let place = usize::try_from(ended.token).unwrap_or(usize::MAX);
            let request = active.begun.get_mut(place).and_then(Option::take);
            let Some(request) = request else {
                continue;
            };
            let result = self.result(active, &request, ended.result);
            active.answer(&request, result.into())?;
        }
        Ok(())
    }

    /// What a result of the ring means; a transfer that came to an end early is brought to its own.
    fn result(&self, active: &Active, request: &Request, result: i32) -> io::Result<()> {
        let done = match usize::try_from(result) {
            Ok(done) => done,
            Err(_) if [libc::EAGAIN, libc::EINTR].contains(&-result) => 0,
            Err(_) => return Err(io::Error::from_raw_os_error(-result)),
        };
        match active.transfer(request, self.sectors) {
            Some(transfer) if done < transfer.length => self.engine.finish(transfer, done),
            _ => Ok(()),
        }
    }

    fn identify(&self, active: &Active, request: &Request) -> io::Result<()> {
        let length = request.room.min(NAME);
        let name = self.name.get(..length).unwrap_or_default();
        let mut writer = request.chain.writer(&active.memory);
        writer.write(name).map_err(io::Error::other)
    }

    /// Discards parts, or fills them with zeroes.
    fn empty(&mut self, active: &Active, request: &Request) -> io::Result<()> {
        let bad = || io::Error::from(io::ErrorKind::InvalidInput);
        let most = Part::SIZE * PARTS as usize;
        let whole = request.given > 0 && request.given.is_multiple_of(Part::SIZE);
        if self.read_only || !whole || request.given > most {
            return Err(bad());
        }
        let mut reader = request.chain.reader(&active.memory);
        let mut read = |bytes: &mut [u8]| reader.read(bytes).map_err(io::Error::other);
        read(&mut [0; HEAD])?;
        let zeroes = request.order == Order::WriteZeroes;
        for _ in 0..request.given / Part::SIZE {
            let mut bytes = [0; Part::SIZE];
            read(&mut bytes)?;
            let part = Part::read(bytes, self.sectors, PART).ok_or_else(bad)?;
            let unmap = part.flags == VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
            if part.flags != 0 && !(zeroes && unmap) {
                return Err(io::ErrorKind::Unsupported.into());
            }
            self.empty_part(part, zeroes && !unmap)?;
            self.throttle.charge(0);
        }
        Ok(())
    }

    fn empty_part(&self, part: Part, keep: bool) -> io::Result<()> {
        if part.length == 0 {
            return Ok(());
        }
        let file = self.engine.file();
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let zeroes = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        let how = if keep { zeroes } else { hole };
        match rustix::fs::fallocate(file, how, part.offset, part.length) {
            // A hole reads as zeroes too.
            Err(rustix::io::Errno::OPNOTSUPP) if keep => {
                rustix::fs::fallocate(file, hole, part.offset, part.length)?;
            }
            done => done?,
        }
        Ok(())
    }
}

impl Active {
    /// The transfer of a request, if it can be.
    fn transfer<'a>(&'a self, request: &'a Request, sectors: u64) -> Option<Transfer<'a>> {
        let (way, place) = match request.order {
            Order::Read => (Way::In, request.chain.writer(&self.memory)),
            Order::Write => {
                let mut place = request.chain.reader(&self.memory);
                place.skip(HEAD).ok()?;
                (self.way_out, place)
            }
            Order::Flush
            | Order::Identify
            | Order::Discard
            | Order::WriteZeroes
            | Order::Unknown => return None,
        };
        Some(Transfer {
            way,
            place,
            length: request.length(),
            offset: request.offset(sectors, LARGEST)?,
        })
    }

    fn answer(&mut self, request: &Request, outcome: Outcome) -> Result<(), DeviceError> {
        let written = request.answer(&self.memory, outcome)?;
        Ok(self.ring.push(request.chain.head(), written)?)
    }
}

impl VirtioDevice for Block {
    fn kind(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn queue_sizes(&self) -> &[u16] {
        &[ENTRIES]
    }

    fn features(&self) -> u64 {
        let common = [
            VIRTIO_BLK_F_SIZE_MAX,
            VIRTIO_BLK_F_SEG_MAX,
            VIRTIO_BLK_F_BLK_SIZE,
            VIRTIO_BLK_F_FLUSH,
        ];
        let writing = [VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_WRITE_ZEROES];
        let special: &[u32] = if self.read_only {
            &[VIRTIO_BLK_F_RO]
        } else {
            &writing
        };
        let bits = common.iter().chain(special);
        bits.fold(RING_FEATURES, |all, bit| all | (1 << bit))
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut config = [0; 60];
        let fields: [(usize, &[u8]); 9] = [
            (0, &self.sectors.to_le_bytes()),
            (8, &SEGMENT.to_le_bytes()),
            (12, &SEGMENTS.to_le_bytes()),
            (20, &512_u32.to_le_bytes()),
            (36, &PART.to_le_bytes()),
            (40, &PARTS.to_le_bytes()),
            (44, &8_u32.to_le_bytes()),
            (48, &PART.to_le_bytes()),
            (52, &PARTS.to_le_bytes()),
        ];
        for (place, bytes) in fields {
            if let Some(field) = config.get_mut(place..place + bytes.len()) {
                field.copy_from_slice(bytes);
            }
        }
        // Zeroes may be made by a hole.
        config[56] = 1;
        read_bytes(&config, offset, data);
    }

    fn activate(
        &mut self,
        mut activation: Activation,
        watch: &mut Watch<'_>,
    ) -> Result<(), DeviceError> {
        let ring = activation.ring(0)?;
        // A driver that never flushes has what it wrote kept when it is told that it is written.
        let way_out = if activation.has(VIRTIO_BLK_F_FLUSH) {
            Way::Out
        } else {
            Way::OutDurably
        };
        watch.ring(&ring)?;
        if let Some(uring) = self.engine.ring() {
            watch.add(ENDED, uring, EventSet::IN | EventSet::EDGE_TRIGGERED)?;
        }
        self.throttle.watch(watch, GO_ON)?;
        self.active = Some(Active {
            begun: (0..ENTRIES).map(|_| None).collect(),
            memory: activation.memory,
            ring,
            way_out,
        });
        Ok(())
    }

    fn process(&mut self, _: u32, _: EventSet, _: &mut Watch<'_>) -> Result<(), DeviceError> {
        self.serve()
    }

    fn reset(&mut self) {
        self.engine.drain();
        self.active = None;
    }
}
