//! A guest for tests: memory with a gap in it, and a driver that does what it is told, right or wrong.

pub(crate) mod hostile;
pub(crate) mod random;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_NEEDS_RESET;
use virtio_bindings::virtio_mmio;
use vm_memory::Bytes;
use vm_memory::FileOffset;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::epoll::ControlOperation;
use vmm_sys_util::epoll::Epoll;
use vmm_sys_util::epoll::EpollEvent;
use vmm_sys_util::epoll::EventSet;

use crate::backend::microvm::vmm::bus::BusDevice;
use crate::backend::microvm::vmm::virtio::EventLoop;
use crate::backend::microvm::vmm::virtio::Memory;
use crate::backend::microvm::vmm::virtio::Orders;
use crate::backend::microvm::vmm::virtio::Transport;
use crate::backend::microvm::vmm::virtio::VirtioDevice;

/// The end of the first range of memory.
pub(crate) const GAP: u64 = 0x10_0000;
/// Where memory goes on.
pub(crate) const GAP_END: u64 = 0x20_0000;
/// The end of memory.
pub(crate) const END: u64 = 0x30_0000;
/// Where tests put their buffers.
pub(crate) const BUFFERS: u64 = 0x8_0000;
/// Entries of each queue.
pub(crate) const SIZE: u16 = 16;
/// What a driver says, stage by stage.
pub(crate) const STAGES: [u32; 4] = [1, 3, 11, 15];
/// Longer than anything takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Descriptor flags.
pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// A descriptor, as it stands in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Descriptor {
    pub(crate) address: u64,
    pub(crate) length: u32,
    pub(crate) flags: u16,
    pub(crate) next: u16,
}

impl Descriptor {
    pub(crate) fn bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.length.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }
}

/// The driver's side of a queue.
#[derive(Debug, Clone, Copy, Default)]
struct Side {
    available: u16,
    used: u16,
    next_descriptor: u16,
}

/// A guest, its one device, and the thread that the device works on.
pub(crate) struct Guest {
    pub(crate) transport: Transport,
    pub(crate) memory: Memory,
    sides: Vec<Side>,
    interrupt: Epoll,
    orders: Orders,
    thread: Option<JoinHandle<()>>,
    troubles: Arc<Mutex<Vec<String>>>,
}

/// Memory as a machine has it: one file, in two ranges.
pub(crate) fn memory() -> Memory {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let file = File::from(rustix::fs::memfd_create("guest", flags).unwrap());
    file.set_len(GAP + END - GAP_END).unwrap();
    let piece = |start: u64, end: u64, offset| {
        let place = FileOffset::new(file.try_clone().unwrap(), offset);
        (
            GuestAddress(start),
            usize::try_from(end - start).unwrap(),
            Some(place),
        )
    };
    let pieces = [piece(0, GAP, 0), piece(GAP_END, END, GAP)];
    Arc::new(GuestMemoryMmap::from_ranges_with_files(pieces).unwrap())
}

impl Guest {
    /// A guest that has not looked at its device yet.
    pub(crate) fn new(device: impl VirtioDevice + 'static) -> Self {
        let troubles: Arc<Mutex<Vec<String>>> = Arc::default();
        let told = Arc::clone(&troubles);
        let mut event_loop = EventLoop::new(move |_, error| {
            told.lock().unwrap().push(error.to_string());
        })
        .unwrap();
        let queues = device.queue_sizes().len();
        let seat = event_loop.seat(device);
        let orders = event_loop.orders();
        let memory = memory();
        let transport = Transport::new(seat, memory.clone()).unwrap();
        let interrupt = Epoll::new().unwrap();
        let event = EpollEvent::new(EventSet::IN, 0);
        let line = transport.line().as_raw_fd();
        interrupt.ctl(ControlOperation::Add, line, event).unwrap();
        let thread = std::thread::spawn(move || event_loop.run().unwrap());
        Self {
            transport,
            memory,
            sides: vec![Side::default(); queues],
            interrupt,
            orders,
            thread: Some(thread),
            troubles,
        }
    }

    /// A guest whose driver uses the device, with all features.
    pub(crate) fn ready(device: impl VirtioDevice + 'static) -> Self {
        let mut guest = Self::new(device);
        guest.set_up(u64::MAX);
        guest
    }

    /// Does all that a driver does, with those of `features` that are offered.
    pub(crate) fn set_up(&mut self, features: u64) {
        self.negotiate(features);
        for queue in 0..self.sides.len() {
            assert!(self.set_up_queue(queue, SIZE), "queue {queue}");
        }
        self.status(15);
    }

    /// Up to the moment when queues are set up.
    pub(crate) fn negotiate(&mut self, features: u64) {
        self.status(0);
        self.status(1);
        self.status(3);
        let offered = self.offered();
        self.choose(features & offered);
        self.status(11);
        assert_eq!(self.register(virtio_mmio::VIRTIO_MMIO_STATUS), 11);
    }

    pub(crate) fn offered(&mut self) -> u64 {
        let mut half = |which| {
            self.set(virtio_mmio::VIRTIO_MMIO_DEVICE_FEATURES_SEL, which);
            u64::from(self.register(virtio_mmio::VIRTIO_MMIO_DEVICE_FEATURES))
        };
        half(0) | (half(1) << 32)
    }

    pub(crate) fn choose(&mut self, features: u64) {
        for which in 0..2 {
            self.set(virtio_mmio::VIRTIO_MMIO_DRIVER_FEATURES_SEL, which);
            let half = u32::try_from((features >> (32 * which)) & 0xffff_ffff).unwrap();
            self.set(virtio_mmio::VIRTIO_MMIO_DRIVER_FEATURES, half);
        }
    }

    pub(crate) fn register(&mut self, offset: u32) -> u32 {
        let mut bytes = [0xff; 4];
        self.transport.read(offset.into(), &mut bytes);
        u32::from_le_bytes(bytes)
    }

    pub(crate) fn set(&mut self, offset: u32, value: u32) {
        self.transport.write(offset.into(), &value.to_le_bytes());
    }

    pub(crate) fn status(&mut self, value: u32) {
        self.set(virtio_mmio::VIRTIO_MMIO_STATUS, value);
        if value == 0 {
            self.sides.fill(Side::default());
        }
    }

    /// Where the parts of a queue are: descriptors, the driver's ring, the device's ring.
    pub(crate) fn parts(queue: usize) -> [u64; 3] {
        let start = 0x1_0000 * (u64::try_from(queue).unwrap() + 1);
        [start, start + 0x2000, start + 0x3000]
    }

    /// Sets a queue up; gives whether the device takes it.
    pub(crate) fn set_up_queue(&mut self, queue: usize, size: u16) -> bool {
        self.set_up_queue_at(queue, size.into(), Self::parts(queue))
    }

    pub(crate) fn set_up_queue_at(&mut self, queue: usize, size: u32, parts: [u64; 3]) -> bool {
        for (part, length) in parts.into_iter().zip([0x1000, 0x300, 0x900]) {
            // What is not in memory cannot be cleared.
            self.memory
                .write_slice(&vec![0; length], GuestAddress(part))
                .ok();
        }
        self.set(
            virtio_mmio::VIRTIO_MMIO_QUEUE_SEL,
            u32::try_from(queue).unwrap(),
        );
        self.set(virtio_mmio::VIRTIO_MMIO_QUEUE_NUM, size);
        let places = [
            virtio_mmio::VIRTIO_MMIO_QUEUE_DESC_LOW,
            virtio_mmio::VIRTIO_MMIO_QUEUE_AVAIL_LOW,
            virtio_mmio::VIRTIO_MMIO_QUEUE_USED_LOW,
        ];
        for (place, part) in places.into_iter().zip(parts) {
            self.set(place, u32::try_from(part & 0xffff_ffff).unwrap());
            self.set(place + 4, u32::try_from(part >> 32).unwrap());
        }
        self.set(virtio_mmio::VIRTIO_MMIO_QUEUE_READY, 1);
        self.register(virtio_mmio::VIRTIO_MMIO_QUEUE_READY) == 1
    }

    /// Writes a descriptor into a queue's table.
    pub(crate) fn describe(&self, queue: usize, index: u16, descriptor: Descriptor) {
        let place = Self::parts(queue)[0] + 16 * u64::from(index);
        self.memory
            .write_slice(&descriptor.bytes(), GuestAddress(place))
            .unwrap();
    }

    /// Makes a request available by its head, and the next after it.
    pub(crate) fn offer_head(&mut self, queue: usize, head: u16) {
        let ring = Self::parts(queue)[1];
        let side = &mut self.sides[queue];
        let place = ring + 4 + 2 * u64::from(side.available % SIZE);
        side.available = side.available.wrapping_add(1);
        let available = side.available;
        self.memory.write_obj(head, GuestAddress(place)).unwrap();
        self.memory
            .write_obj(available, GuestAddress(ring + 2))
            .unwrap();
    }

    /// Makes a request of buffers available: what is given first, then the room; gives its head.
    pub(crate) fn offer(
        &mut self,
        queue: usize,
        given: &[(u64, usize)],
        room: &[(u64, usize)],
    ) -> u16 {
        let head = self.sides[queue].next_descriptor;
        let all = given.len() + room.len();
        let buffers = given.iter().map(|buffer| (buffer, 0));
        let buffers = buffers.chain(room.iter().map(|buffer| (buffer, WRITE)));
        for (index, ((address, length), flags)) in buffers.enumerate() {
            let this = (head + u16::try_from(index).unwrap()) % SIZE;
            let more = if index + 1 < all { NEXT } else { 0 };
            let descriptor = Descriptor {
                address: *address,
                length: u32::try_from(*length).unwrap(),
                flags: flags | more,
                next: (this + 1) % SIZE,
            };
            self.describe(queue, this, descriptor);
        }
        self.sides[queue].next_descriptor = (head + u16::try_from(all).unwrap()) % SIZE;
        self.offer_head(queue, head);
        head
    }

    pub(crate) fn kick(&mut self, queue: usize) {
        let number = u32::try_from(queue).unwrap();
        self.set(virtio_mmio::VIRTIO_MMIO_QUEUE_NOTIFY, number);
    }

    /// Offers, kicks and waits; gives how many bytes of the room were used.
    pub(crate) fn ask(
        &mut self,
        queue: usize,
        given: &[(u64, usize)],
        room: &[(u64, usize)],
    ) -> u32 {
        let head = self.offer(queue, given, room);
        self.kick(queue);
        let (answered, used) = self.answer(queue);
        assert_eq!(answered, head);
        used
    }

    /// The next answer, if there is one: the request's head, and how many bytes were used.
    pub(crate) fn try_answer(&mut self, queue: usize) -> Option<(u16, u32)> {
        let [_, driver, ring] = Self::parts(queue);
        let side = &mut self.sides[queue];
        let wish = GuestAddress(driver + 4 + 2 * u64::from(SIZE));
        self.memory.write_obj(side.used, wish).unwrap();
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        let used: u16 = self.memory.read_obj(GuestAddress(ring + 2)).unwrap();
        if used == side.used {
            return None;
        }
        let place = ring + 4 + 8 * u64::from(side.used % SIZE);
        side.used = side.used.wrapping_add(1);
        let [head, length]: [u32; 2] = self.memory.read_obj(GuestAddress(place)).unwrap();
        Some((u16::try_from(head).unwrap(), length))
    }

    /// Waits for the next answer, by the interrupt.
    pub(crate) fn answer(&mut self, queue: usize) -> (u16, u32) {
        self.wait("an answer", |guest| guest.try_answer(queue))
    }

    /// Waits for something that an interrupt comes with.
    pub(crate) fn wait<T>(
        &mut self,
        what: &str,
        mut there: impl FnMut(&mut Self) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = there(self) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {what}; told: {:?}", self.troubles());
            let left = i32::try_from(left.as_millis()).unwrap();
            self.interrupt.wait(left, &mut [EpollEvent::default()]).ok();
            self.transport.line().read().ok();
            let causes = self.register(virtio_mmio::VIRTIO_MMIO_INTERRUPT_STATUS);
            self.set(virtio_mmio::VIRTIO_MMIO_INTERRUPT_ACK, causes);
        }
    }

    /// Waits until the device says that it needs a reset.
    pub(crate) fn needs_reset(&mut self) {
        self.wait("need of a reset", |guest| {
            let status = guest.register(virtio_mmio::VIRTIO_MMIO_STATUS);
            (status & VIRTIO_CONFIG_S_NEEDS_RESET != 0).then_some(())
        });
    }

    /// What was told of the device.
    pub(crate) fn troubles(&self) -> Vec<String> {
        self.troubles.lock().unwrap().clone()
    }

    pub(crate) fn put(&self, address: u64, bytes: &[u8]) {
        self.memory
            .write_slice(bytes, GuestAddress(address))
            .unwrap();
    }

    pub(crate) fn get(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory
            .read_slice(&mut bytes, GuestAddress(address))
            .unwrap();
        bytes
    }

    pub(crate) fn config(&mut self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0xff; length];
        self.transport.read(0x100 + offset, &mut bytes);
        bytes
    }

    /// Lets the event loop go through all that was asked of it, by asking for one thing more that it waits for.
    pub(crate) fn settle(&mut self) {
        self.status(0);
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.orders.stop();
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            assert!(
                matches!(ended, Some(Ok(()))),
                "the devices' thread has died"
            );
        }
    }
}
