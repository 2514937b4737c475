//! The registers of a device (virtio over MMIO, version 2): where a driver finds it, and sets it up, in one order only.

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_ACKNOWLEDGE;
use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_DRIVER;
use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_DRIVER_OK;
use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_FAILED;
use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_FEATURES_OK;
use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_NEEDS_RESET;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_mmio;
use virtio_bindings::virtio_mmio::VIRTIO_MMIO_INT_VRING;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;
use virtio_queue::Queue;
use virtio_queue::QueueT;
use vm_memory::GuestAddress;
use vm_memory::GuestMemory;
use vmm_sys_util::eventfd::EFD_CLOEXEC;
use vmm_sys_util::eventfd::EFD_NONBLOCK;
use vmm_sys_util::eventfd::EventFd;

use crate::backend::microvm::vmm::bus::BusDevice;
use crate::backend::microvm::vmm::virtio::Memory;
use crate::backend::microvm::vmm::virtio::device::Activation;
use crate::backend::microvm::vmm::virtio::event_loop::Seat;
use crate::backend::microvm::vmm::virtio::interrupt::Interrupt;
use crate::backend::microvm::vmm::virtio::ring::Ring;

/// How large the window of a device is, in bytes.
pub const WINDOW: u64 = 0x1000;
/// Where the device's own configuration begins.
const CONFIG: u64 = 0x100;
/// `virt`.
const MAGIC: u32 = 0x7472_6976;
const VERSION: u32 = 2;
/// `BULK`, so that a guest's log says whose device it is.
const VENDOR: u32 = 0x4b4c_5542;
/// The length of a region of shared memory that is not there, in two halves.
const NO_REGION: u32 = u32::MAX;

/// What each stage needs, in their order: the whole of the status before it.
const STAGES: [(u32, u32); 4] = [
    (VIRTIO_CONFIG_S_ACKNOWLEDGE, 0),
    (VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_ACKNOWLEDGE),
    (
        VIRTIO_CONFIG_S_FEATURES_OK,
        VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER,
    ),
    (
        VIRTIO_CONFIG_S_DRIVER_OK,
        VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK,
    ),
];
/// The status in which features are chosen.
const CHOOSING: u32 = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;
/// The status in which queues are set up.
const SETTING_UP: u32 = CHOOSING | VIRTIO_CONFIG_S_FEATURES_OK;

/// The registers of one device.
#[derive(Debug)]
pub struct Transport {
    seat: Seat,
    memory: Memory,
    interrupt: Interrupt,
    kind: u32,
    outside: bool,
    offered: u64,
    offered_half: u32,
    chosen: u64,
    chosen_half: u32,
    queues: Vec<Registers>,
    selected: u32,
    /// Whether the device was handed to the event loop and not reset since.
    active: bool,
}

/// The registers of one queue.
#[derive(Debug)]
struct Registers {
    most: u16,
    size: u32,
    ready: bool,
    descriptors: u64,
    driver: u64,
    device: u64,
    kick: Arc<EventFd>,
}

impl Transport {
    /// The registers of the device on `seat`, of a guest with this memory.
    ///
    /// # Errors
    ///
    /// Fails as `eventfd(2)` does.
    pub fn new(seat: Seat, memory: Memory) -> io::Result<Self> {
        let device = seat.device();
        let sizes = device.queue_sizes().iter();
        let queues: io::Result<Vec<_>> = sizes.map(|most| Registers::new(*most)).collect();
        let (kind, offered) = (device.kind(), device.features());
        let outside = device.is_driven_outside();
        drop(device);
        Ok(Self {
            seat,
            memory,
            interrupt: Interrupt::new()?,
            kind,
            outside,
            offered: offered | (1 << VIRTIO_F_VERSION_1),
            offered_half: 0,
            chosen: 0,
            chosen_half: 0,
            queues: queues?,
            selected: 0,
            active: false,
        })
    }

    /// What raises the device's interrupt: to be made an irqfd.
    #[must_use]
    pub fn line(&self) -> &EventFd {
        self.interrupt.line()
    }

    /// The doorbells, one for each queue: each to be made an ioeventfd for writes of its number to
    /// `VIRTIO_MMIO_QUEUE_NOTIFY`.
    pub fn kicks(&self) -> impl Iterator<Item = &EventFd> {
        self.queues.iter().map(|queue| &*queue.kick)
    }

    fn register(&self, offset: u32) -> u32 {
        let queue = self.queue();
        match offset {
            virtio_mmio::VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            virtio_mmio::VIRTIO_MMIO_VERSION => VERSION,
            virtio_mmio::VIRTIO_MMIO_DEVICE_ID => self.kind,
            virtio_mmio::VIRTIO_MMIO_VENDOR_ID => VENDOR,
            virtio_mmio::VIRTIO_MMIO_DEVICE_FEATURES => half(self.offered, self.offered_half),
            virtio_mmio::VIRTIO_MMIO_QUEUE_NUM_MAX => {
                queue.map_or(0, |queue| u32::from(queue.most))
            }
            virtio_mmio::VIRTIO_MMIO_QUEUE_READY => queue.map_or(0, |queue| u32::from(queue.ready)),
            virtio_mmio::VIRTIO_MMIO_INTERRUPT_STATUS => self.causes(),
            virtio_mmio::VIRTIO_MMIO_STATUS => self.interrupt.status(),
            virtio_mmio::VIRTIO_MMIO_SHM_LEN_LOW
            | virtio_mmio::VIRTIO_MMIO_SHM_LEN_HIGH
            | virtio_mmio::VIRTIO_MMIO_SHM_BASE_LOW
            | virtio_mmio::VIRTIO_MMIO_SHM_BASE_HIGH => NO_REGION,
            virtio_mmio::VIRTIO_MMIO_CONFIG_GENERATION => self.interrupt.generation(),
            _ => 0,
        }
    }

    /// Who raises interrupts outside cannot say why: it is for used buffers.
    fn causes(&self) -> u32 {
        let outside = if self.outside && self.active {
            VIRTIO_MMIO_INT_VRING
        } else {
            0
        };
        self.interrupt.causes() | outside
    }

    fn queue(&self) -> Option<&Registers> {
        self.queues.get(usize::try_from(self.selected).ok()?)
    }

    fn set_register(&mut self, offset: u32, value: u32) {
        match offset {
            virtio_mmio::VIRTIO_MMIO_DEVICE_FEATURES_SEL => self.offered_half = value,
            virtio_mmio::VIRTIO_MMIO_DRIVER_FEATURES_SEL => self.chosen_half = value,
            virtio_mmio::VIRTIO_MMIO_DRIVER_FEATURES => self.choose(value),
            virtio_mmio::VIRTIO_MMIO_QUEUE_SEL => self.selected = value,
            virtio_mmio::VIRTIO_MMIO_QUEUE_NOTIFY => self.ring(value),
            virtio_mmio::VIRTIO_MMIO_INTERRUPT_ACK => self.interrupt.acknowledge(value),
            virtio_mmio::VIRTIO_MMIO_STATUS => self.set_status(value),
            _ => self.set_up_queue(offset, value),
        }
    }

    fn choose(&mut self, value: u32) {
        if self.interrupt.status() != CHOOSING {
            return;
        }
        let value = u64::from(value);
        match self.chosen_half {
            0 => self.chosen = (self.chosen & !u64::from(u32::MAX)) | value,
            1 => self.chosen = (self.chosen & u64::from(u32::MAX)) | (value << 32),
            _ => {}
        }
    }

    /// The doorbell of a queue, where no ioeventfd stands before it.
    fn ring(&self, number: u32) {
        let queue = usize::try_from(number)
            .ok()
            .and_then(|number| self.queues.get(number));
        if let Some(queue) = queue.filter(|_| self.active) {
            // It fails only when the counter is full: then it is ringing.
            drop(queue.kick.write(1));
        }
    }

    fn set_up_queue(&mut self, offset: u32, value: u32) {
        let selected = usize::try_from(self.selected).ok();
        let open = self.interrupt.status() == SETTING_UP;
        let queue = selected.and_then(|selected| self.queues.get_mut(selected));
        let Some(queue) = queue.filter(|_| open) else {
            return;
        };
        if offset == virtio_mmio::VIRTIO_MMIO_QUEUE_READY {
            queue.ready = value & 1 != 0 && queue.is_valid(&self.memory);
        } else if !queue.ready {
            queue.set(offset, value);
        }
    }

    /// A driver goes one stage on, gives up, or begins anew; anything else is as if it were not written.
    fn set_status(&mut self, value: u32) {
        if value == 0 {
            return self.reset();
        }
        let now = self.interrupt.status();
        let added = value & !now;
        let kept = now & !VIRTIO_CONFIG_S_NEEDS_RESET;
        if value & kept != kept {
            return;
        }
        if added == VIRTIO_CONFIG_S_FAILED {
            return self.interrupt.add_status(added);
        }
        if !STAGES.contains(&(added, now)) {
            return;
        }
        if added == VIRTIO_CONFIG_S_FEATURES_OK && !self.agrees() {
            return;
        }
        self.interrupt.add_status(added);
        if added == VIRTIO_CONFIG_S_DRIVER_OK {
            self.activate();
        }
    }

    /// Whether the driver has chosen from what was offered, and knows this version of virtio.
    fn agrees(&self) -> bool {
        let foreign = self.chosen & !self.offered;
        foreign == 0 && self.chosen & (1 << VIRTIO_F_VERSION_1) != 0
    }

    fn activate(&mut self) {
        self.active = true;
        let rings = self.queues.iter().enumerate();
        let rings = rings.map(|(index, queue)| self.ring_of(index, queue));
        let rings: Vec<Option<Ring>> = rings.collect();
        self.seat.activate(Activation::new(
            Arc::clone(&self.memory),
            self.chosen,
            self.interrupt.clone(),
            rings,
        ));
    }

    fn ring_of(&self, index: usize, registers: &Registers) -> Option<Ring> {
        let has = |feature: u32| self.chosen & (1 << feature) != 0;
        let mut queue = registers.queue()?;
        queue.set_event_idx(has(VIRTIO_RING_F_EVENT_IDX));
        Some(Ring::new(
            u16::try_from(index).ok()?,
            queue,
            Arc::clone(&self.memory),
            Arc::clone(&registers.kick),
            self.interrupt.clone(),
            has(VIRTIO_RING_F_INDIRECT_DESC),
        ))
    }

    fn reset(&mut self) {
        if self.active {
            self.seat.reset();
            self.active = false;
        }
        self.chosen = 0;
        self.offered_half = 0;
        self.chosen_half = 0;
        self.selected = 0;
        for queue in &mut self.queues {
            queue.clear();
        }
        self.interrupt.reset();
    }
}

impl BusDevice for Transport {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(offset) = offset.checked_sub(CONFIG) {
            return self.seat.device().read_config(offset, data);
        }
        // Registers are read whole; anything else reads as nothing.
        let offset = u32::try_from(offset).ok().filter(|offset| offset % 4 == 0);
        if let (Some(offset), Ok(data)) = (offset, <&mut [u8; 4]>::try_from(data)) {
            *data = self.register(offset).to_le_bytes();
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let Some(offset) = offset.checked_sub(CONFIG) {
            let there = self.interrupt.status() & VIRTIO_CONFIG_S_DRIVER != 0;
            let lost = VIRTIO_CONFIG_S_NEEDS_RESET | VIRTIO_CONFIG_S_FAILED;
            if there && self.interrupt.status() & lost == 0 {
                self.seat.device().write_config(offset, data);
            }
            return;
        }
        let offset = u32::try_from(offset).ok().filter(|offset| offset % 4 == 0);
        if let (Some(offset), Ok(data)) = (offset, <[u8; 4]>::try_from(data)) {
            self.set_register(offset, u32::from_le_bytes(data));
        }
    }
}

impl Registers {
    fn new(most: u16) -> io::Result<Self> {
        Ok(Self {
            most,
            size: 0,
            ready: false,
            descriptors: 0,
            driver: 0,
            device: 0,
            kick: Arc::new(EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?),
        })
    }

    fn clear(&mut self) {
        self.size = 0;
        self.ready = false;
        self.descriptors = 0;
        self.driver = 0;
        self.device = 0;
    }

    fn set(&mut self, offset: u32, value: u32) {
        match offset {
            virtio_mmio::VIRTIO_MMIO_QUEUE_NUM => self.size = value,
            virtio_mmio::VIRTIO_MMIO_QUEUE_DESC_LOW => set_low(&mut self.descriptors, value),
            virtio_mmio::VIRTIO_MMIO_QUEUE_DESC_HIGH => set_high(&mut self.descriptors, value),
            virtio_mmio::VIRTIO_MMIO_QUEUE_AVAIL_LOW => set_low(&mut self.driver, value),
            virtio_mmio::VIRTIO_MMIO_QUEUE_AVAIL_HIGH => set_high(&mut self.driver, value),
            virtio_mmio::VIRTIO_MMIO_QUEUE_USED_LOW => set_low(&mut self.device, value),
            virtio_mmio::VIRTIO_MMIO_QUEUE_USED_HIGH => set_high(&mut self.device, value),
            _ => {}
        }
    }

    /// The entries of the queue: a power of two, no more than there may be.
    fn entries(&self) -> Option<u16> {
        let size = u16::try_from(self.size).ok()?;
        (size.is_power_of_two() && size <= self.most).then_some(size)
    }

    /// Whether the three parts of the queue stand straight, and wholly in guest memory.
    fn is_valid(&self, memory: &Memory) -> bool {
        let Some(size) = self.entries().map(usize::from) else {
            return false;
        };
        let parts = [
            (self.descriptors, 16, 16 * size),
            (self.driver, 2, 6 + 2 * size),
            (self.device, 4, 6 + 8 * size),
        ];
        parts.into_iter().all(|(address, straight, length)| {
            address != 0
                && address % straight == 0
                && memory.get_slice(GuestAddress(address), length).is_ok()
        })
    }

    /// The queue, if it is set up.
    fn queue(&self) -> Option<Queue> {
        let size = self.entries().filter(|_| self.ready)?;
        let mut queue = Queue::new(self.most).ok()?;
        queue.try_set_size(size).ok()?;
        let address = GuestAddress(self.descriptors);
        queue.try_set_desc_table_address(address).ok()?;
        let address = GuestAddress(self.driver);
        queue.try_set_avail_ring_address(address).ok()?;
        let address = GuestAddress(self.device);
        queue.try_set_used_ring_address(address).ok()?;
        queue.set_ready(true);
        Some(queue)
    }
}

/// One half of a number of 64 bits; there are two.
fn half(number: u64, which: u32) -> u32 {
    let shifted = match which {
        0 => number,
        1 => number >> 32,
        _ => 0,
    };
    u32::try_from(shifted & u64::from(u32::MAX)).unwrap_or_default()
}

fn set_low(address: &mut u64, value: u32) {
    *address = (*address & !u64::from(u32::MAX)) | u64::from(value);
}

fn set_high(address: &mut u64, value: u32) {
    *address = (*address & u64::from(u32::MAX)) | (u64::from(value) << 32);
}
