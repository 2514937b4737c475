//! A driver of the device, as small as one can be: one request at a time, in rings at fixed places.

use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use vm_memory::Bytes;
use vm_memory::FileOffset;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::epoll::ControlOperation;
use vmm_sys_util::epoll::Epoll;
use vmm_sys_util::epoll::EpollEvent;
use vmm_sys_util::epoll::EventSet;

use bulkhead::backend::microvm::vmm::bus::BusDevice;
use bulkhead::backend::microvm::vmm::virtio::EventLoop;
use bulkhead::backend::microvm::vmm::virtio::Fs;
use bulkhead::backend::microvm::vmm::virtio::Memory;
use bulkhead::backend::microvm::vmm::virtio::Orders;
use bulkhead::backend::microvm::vmm::virtio::Transport;

/// The memory of the guest that is not there.
const MEMORY: usize = 8 << 20;
/// Where the rings of a queue are: descriptors, then available, then used.
const RINGS: [u64; 2] = [0x1000, 0x8000];
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
/// How many requests a ring holds here.
const SIZE: u16 = 16;
/// Where a request goes, and where its answer comes.
const REQUEST: u64 = 0x10_0000;
const ANSWER: u64 = 0x40_0000;
/// How long an answer may take on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(20);

/// A descriptor: where, how long, and the next one if there is one; whether the device may write there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub(super) address: u64,
    pub(super) length: u32,
    pub(super) writable: bool,
}

/// The device with a driver.
pub(super) struct Driver {
    memory: Memory,
    transport: Transport,
    taken: [u16; 2],
    orders: Orders,
    thread: Option<JoinHandle<()>>,
    gone: mpsc::Receiver<()>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.orders.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Driver {
    /// Sets the device up for the server at the other end of `connection`.
    #[expect(
        clippy::print_stderr,
        reason = "a device that fails says why, where its test can only wait"
    )]
    pub(super) fn new(connection: OwnedFd) -> Self {
        let memory = memory();
        let mut events = EventLoop::new(|_, error| eprintln!("the device: {error}")).unwrap();
        let (tell, gone) = mpsc::channel();
        let device = Fs::new("share", connection, move || {
            tell.send(()).unwrap_or_default()
        });
        let seat = events.seat(device.unwrap());
        let transport = Transport::new(seat, Arc::clone(&memory)).unwrap();
        let orders = events.orders();
        let thread = std::thread::spawn(move || events.run().unwrap());
        let mut driver = Self {
            memory,
            transport,
            taken: [0; 2],
            orders,
            thread: Some(thread),
            gone,
        };
        driver.set_up();
        driver
    }

    fn write(&mut self, register: u64, value: u32) {
        self.transport.write(register, &value.to_le_bytes());
    }

    /// A register of the device.
    pub(super) fn read(&mut self, register: u64) -> u32 {
        let mut value = [0; 4];
        self.transport.read(register, &mut value);
        u32::from_le_bytes(value)
    }

    /// Says what a driver says at first, and where the rings are.
    pub(super) fn set_up(&mut self) {
        self.taken = [0; 2];
        self.write(0x070, 1);
        self.write(0x070, 1 | 2);
        // VERSION_1, in the upper half; with INDIRECT_DESC in the lower.
        for (half, features) in [(0, 1 << 28), (1, 1)] {
            self.write(0x024, half);
            self.write(0x020, features);
        }
        self.write(0x070, 1 | 2 | 8);
        for (queue, rings) in (0u32..).zip(RINGS) {
            for at in (rings..rings + 0x4000).step_by(8) {
                self.memory.write_obj(0u64, GuestAddress(at)).unwrap();
            }
            self.write(0x030, queue);
            self.write(0x038, u32::from(SIZE));
            let places = [
                (0x080, rings),
                (0x090, rings + AVAILABLE),
                (0x0a0, rings + USED),
            ];
            for (register, place) in places {
                self.write(register, u32::try_from(place).unwrap());
                self.write(register + 4, 0);
            }
            self.write(0x044, 1);
        }
        self.write(0x070, 1 | 2 | 8 | 4);
    }

    /// The driver lets go of the device.
    pub(super) fn reset(&mut self) {
        self.write(0x070, 0);
    }

    /// The status of the device.
    pub(super) fn status(&mut self) -> u32 {
        self.read(0x070)
    }

    /// Whether the device has said that its server is gone.
    pub(super) fn is_lost(&self) -> bool {
        self.gone.recv_timeout(PATIENCE).is_ok()
    }

    /// Asks, and gives the answer; nothing when it is empty.
    pub(super) fn ask(&mut self, queue: usize, request: &[u8], room: usize) -> Vec<u8> {
        self.memory
            .write_slice(request, GuestAddress(REQUEST))
            .unwrap();
        let length = |bytes: usize| u32::try_from(bytes).unwrap();
        let mut parts = vec![Part {
            address: REQUEST,
            length: length(request.len()),
            writable: false,
        }];
        if room > 0 {
            parts.push(Part {
                address: ANSWER,
                length: length(room),
                writable: true,
            });
        }
        let length = self.ask_parts(queue, &parts).unwrap();
        let mut answer = vec![0; length.min(room)];
        self.memory
            .read_slice(&mut answer, GuestAddress(ANSWER))
            .unwrap();
        answer
    }

    /// Puts a chain of descriptors into a ring, and gives the length of the answer; nothing when none came because the
    /// server has gone.
    pub(super) fn ask_parts(&mut self, queue: usize, parts: &[Part]) -> Option<usize> {
        let rings = RINGS[queue];
        for (index, part) in (0u16..).zip(parts) {
            let more = usize::from(index) + 1 < parts.len();
            let flags = u16::from(more) | u16::from(part.writable) << 1;
            let at = rings + 16 * u64::from(index);
            self.memory
                .write_obj(part.address, GuestAddress(at))
                .unwrap();
            let rest = [(8, part.length & 0xffff), (10, part.length >> 16)];
            for (offset, half) in rest {
                let half = u16::try_from(half).unwrap();
                self.memory
                    .write_obj(half, GuestAddress(at + offset))
                    .unwrap();
            }
            self.memory.write_obj(flags, GuestAddress(at + 12)).unwrap();
            self.memory
                .write_obj(index + 1, GuestAddress(at + 14))
                .unwrap();
        }
        let taken = self.taken[queue];
        let entry = rings + AVAILABLE + 4 + 2 * u64::from(taken % SIZE);
        self.memory.write_obj(0u16, GuestAddress(entry)).unwrap();
        self.publish(queue, taken.wrapping_add(1));
        self.taken[queue] = taken.wrapping_add(1);
        self.answered(queue)
    }

    /// Says that there are requests up to this number.
    pub(super) fn publish(&mut self, queue: usize, until: u16) {
        let index = RINGS[queue] + AVAILABLE + 2;
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        self.memory.write_obj(until, GuestAddress(index)).unwrap();
        let kick = self.transport.kicks().nth(queue).unwrap();
        kick.write(1).unwrap();
    }

    fn answered(&mut self, queue: usize) -> Option<usize> {
        let used = RINGS[queue] + USED;
        let begun = Instant::now();
        loop {
            let done: u16 = self.memory.read_obj(GuestAddress(used + 2)).unwrap();
            if done == self.taken[queue] {
                let entry = used + 4 + 8 * u64::from(done.wrapping_sub(1) % SIZE);
                let length: u32 = self.memory.read_obj(GuestAddress(entry + 4)).unwrap();
                return Some(usize::try_from(length).unwrap());
            }
            if self.gone.try_recv().is_ok() {
                return None;
            }
            assert!(begun.elapsed() < PATIENCE, "the device does not answer");
            self.wait_for_interrupt();
        }
    }

    /// Waits a little for the interrupt; the one who waits looks for itself then.
    fn wait_for_interrupt(&self) {
        let epoll = Epoll::new().unwrap();
        let line = self.transport.line();
        let event = EpollEvent::new(EventSet::IN, 0);
        epoll
            .ctl(ControlOperation::Add, line.as_raw_fd(), event)
            .unwrap();
        let mut events = [EpollEvent::default()];
        epoll.wait(100, &mut events).unwrap_or_default();
        line.read().unwrap_or_default();
    }
}

fn memory() -> Memory {
    let file = rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(file.as_fd(), MEMORY as u64).unwrap();
    let range = (
        GuestAddress(0),
        MEMORY,
        Some(FileOffset::new(file.into(), 0)),
    );
    Arc::new(GuestMemoryMmap::from_ranges_with_files([range]).unwrap())
}
