//! A guest that does as it is told, on one thread with its device, so that the same bytes do the same.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use bulkhead::backend::microvm::vmm::BusDevice;
use bulkhead::backend::microvm::vmm::virtio::EventLoop;
use bulkhead::backend::microvm::vmm::virtio::Memory;
use bulkhead::backend::microvm::vmm::virtio::Transport;
use bulkhead::backend::microvm::vmm::virtio::VirtioDevice;
use vm_memory::Bytes;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryMmap;

use super::source::Source;

/// Entries of each queue.
pub(crate) const SIZE: u16 = 16;
/// The end of the first range of memory, and where it goes on.
const GAP: u64 = 0x8_0000;
const GAP_END: u64 = 0x10_0000;
/// The end of memory.
const END: u64 = 0x18_0000;
/// Where buffers are, in front of the gap.
pub(crate) const BUFFERS: u64 = 0x6_0000;

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;

pub(crate) struct Guest {
    events: EventLoop,
    transport: Transport,
    memory: Memory,
    features: u64,
    available: Vec<u16>,
    seen: Vec<u16>,
}

fn turn_until(events: &mut EventLoop, written: &AtomicBool) {
    while !written.load(Ordering::Acquire) {
        events.turn(1).unwrap();
    }
}

impl Guest {
    /// A guest whose driver has set the device up, with as many of its features as `mask` leaves.
    pub(crate) fn new(device: impl VirtioDevice + 'static, mask: u64) -> Self {
        let mut events = EventLoop::new(|_, _| ()).unwrap();
        let queues = device.queue_sizes().len();
        let features = device.features() & (mask | 1 << 32);
        let seat = events.seat(device);
        let ranges = [
            (GuestAddress(0), GAP as usize),
            (GuestAddress(GAP_END), (END - GAP_END) as usize),
        ];
        let memory = Memory::new(GuestMemoryMmap::from_ranges(&ranges).unwrap());
        let transport = Transport::new(seat, Arc::clone(&memory)).unwrap();
        let mut guest = Self {
            events,
            transport,
            memory,
            features,
            available: vec![0; queues],
            seen: vec![0; queues],
        };
        guest.begin();
        guest
    }

    /// Sets the device up as if there had been nothing before.
    pub(crate) fn begin(&mut self) {
        let features = self.features;
        self.available.fill(0);
        self.seen.fill(0);
        self.poke(0x70, 0, 4);
        for status in [1, 3] {
            self.set(0x70, status);
        }
        for half in 0..2 {
            self.set(0x24, half);
            self.set(0x20, (features >> (32 * half)) as u32);
        }
        self.set(0x70, 11);
        for queue in 0..self.available.len() {
            let [descriptors, driver, device] = parts(queue);
            for part in [descriptors, driver, device] {
                self.put(part, &[0; 0x400]);
            }
            self.set(0x30, queue as u32);
            self.set(0x38, SIZE.into());
            for (register, place) in [(0x80, descriptors), (0x90, driver), (0xa0, device)] {
                self.set(register, place as u32);
                self.set(register + 4, 0);
            }
            self.set(0x44, 1);
        }
        self.set(0x70, 15);
        self.turn();
    }

    pub(crate) fn set(&mut self, register: u64, value: u32) {
        self.transport.write(register, &value.to_le_bytes());
    }

    /// Writes as many bytes of a value anywhere in the device's window; a reset waits for the event loop, which turns
    /// meanwhile.
    pub(crate) fn poke(&mut self, offset: u64, value: u32, width: usize) {
        let bytes = u64::from(value).to_le_bytes();
        let (events, transport) = (&mut self.events, &mut self.transport);
        let written = AtomicBool::new(false);
        std::thread::scope(|scope| {
            if offset == 0x70 {
                scope.spawn(|| turn_until(events, &written));
            }
            transport.write(offset, &bytes[..width]);
            written.store(true, Ordering::Release);
        });
    }

    /// Reads so many bytes anywhere in the device's window.
    pub(crate) fn peek(&mut self, offset: u64, width: usize) {
        self.transport.read(offset, &mut [0; 8][..width]);
    }

    /// Reads and writes the device's own configuration.
    pub(crate) fn configure(&mut self, offset: u8, value: u32) {
        self.transport.read(0x100 + u64::from(offset), &mut [0; 4]);
        self.set(0x100 + u64::from(offset), value);
    }

    /// Whether the device waits for a reset, as it should after what no driver does.
    pub(crate) fn stands_still(&mut self) -> bool {
        let mut status = [0; 4];
        self.transport.read(0x70, &mut status);
        u32::from_le_bytes(status) & 0x40 != 0
    }

    pub(crate) fn turn(&mut self) {
        self.events.turn(0).unwrap();
    }

    pub(crate) fn put(&self, address: u64, bytes: &[u8]) {
        self.memory
            .write_slice(bytes, GuestAddress(address))
            .unwrap();
    }

    pub(crate) fn get(&self, address: u64, bytes: &mut [u8]) {
        self.memory
            .read_slice(bytes, GuestAddress(address))
            .unwrap();
    }

    pub(crate) fn describe(
        &self,
        queue: usize,
        index: u16,
        place: (u64, u32),
        flags: u16,
        next: u16,
    ) {
        let mut bytes = place.0.to_le_bytes().to_vec();
        bytes.extend(place.1.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.put(parts(queue)[0] + 16 * u64::from(index % SIZE), &bytes);
    }

    pub(crate) fn offer(&mut self, queue: usize, head: u16) {
        let ring = parts(queue)[1];
        let available = self.available[queue];
        let place = ring + 4 + 2 * u64::from(available % SIZE);
        self.put(place, &head.to_le_bytes());
        self.available[queue] = available.wrapping_add(1);
        self.put(ring + 2, &self.available[queue].to_le_bytes());
    }

    pub(crate) fn kick(&mut self, queue: usize) {
        self.set(0x50, queue as u32);
    }

    /// The head of the next answer.
    pub(crate) fn answer(&mut self, queue: usize) -> Option<u16> {
        let ring = parts(queue)[2];
        let mut index = [0; 2];
        self.get(ring + 2, &mut index);
        let seen = self.seen[queue];
        if u16::from_le_bytes(index) == seen {
            return None;
        }
        self.seen[queue] = seen.wrapping_add(1);
        let mut head = [0; 2];
        self.get(ring + 4 + 8 * u64::from(seen % SIZE), &mut head);
        Some(u16::from_le_bytes(head))
    }

    /// Writes a descriptor of any kind, and offers a head of any kind, as `source` says.
    pub(crate) fn deceive(&mut self, queue: usize, source: &mut Source<'_>) -> Option<()> {
        for _ in 0..=source.byte()? % 4 {
            let address = match source.byte()? % 8 {
                0 => source.long()?,
                1 => GAP - u64::from(source.byte()?),
                2 => END - u64::from(source.byte()?),
                // The queues themselves.
                3 => u64::from(source.short()?),
                _ => BUFFERS + u64::from(source.short()?),
            };
            let length = match source.byte()? % 4 {
                0 => source.word()?,
                _ => u32::from(source.short()? % 0x2000),
            };
            let flags = u16::from(source.byte()? % 8);
            let (index, next) = (source.byte()?, source.byte()?);
            self.describe(queue, index.into(), (address, length), flags, next.into());
        }
        let head = u16::from(source.byte()? % 20);
        self.offer(queue, head);
        self.kick(queue);
        Some(())
    }
}

/// Where the parts of a queue are.
fn parts(queue: usize) -> [u64; 3] {
    let start = 0x1000 * (queue as u64 + 1);
    [start, start + 0x400, start + 0x800]
}
