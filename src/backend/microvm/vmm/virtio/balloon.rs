//! Memory that a guest gives back: pages that it does not use, told one by one or in long runs.
//!
//! What is given back is taken out of the file that the guest's memory is, so it costs the host nothing from then on,
//! whoever else has the file mapped. The guest may use the page again at any time: it reads as zeroes then.

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use rustix::fs::FallocateFlags;
use virtio_bindings::virtio_ids::VIRTIO_ID_BALLOON;
use vm_memory::GuestAddress;
use vm_memory::GuestMemory;
use vm_memory::GuestMemoryMmap;
use vm_memory::GuestMemoryRegion;
use vm_memory::MemoryRegionAddress;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EFD_CLOEXEC;
use vmm_sys_util::eventfd::EFD_NONBLOCK;
use vmm_sys_util::eventfd::EventFd;

use crate::backend::microvm::vmm::virtio::chain::Chain;
use crate::backend::microvm::vmm::virtio::device::Activation;
use crate::backend::microvm::vmm::virtio::device::DeviceError;
use crate::backend::microvm::vmm::virtio::device::RING_FEATURES;
use crate::backend::microvm::vmm::virtio::device::VirtioDevice;
use crate::backend::microvm::vmm::virtio::device::read_bytes;
use crate::backend::microvm::vmm::virtio::event_loop::Watch;
use crate::backend::microvm::vmm::virtio::interrupt::Interrupt;
use crate::backend::microvm::vmm::virtio::ring::Ring;
use crate::sys::scatter;

/// The balloon takes pages back when the guest runs out of memory (`VIRTIO_BALLOON_F_DEFLATE_ON_OOM`).
const F_DEFLATE_ON_OOM: u32 = 2;
/// The guest tells of free pages (`VIRTIO_BALLOON_F_REPORTING`).
const F_REPORTING: u32 = 5;
/// How many descriptors each queue has.
const ENTRIES: u16 = 128;
/// The queues. A driver counts only those that it uses; without statistics, reports are the third.
const INFLATE: usize = 0;
const DEFLATE: usize = 1;
const REPORTS: usize = 2;
/// The token of a new target.
const TARGET: u32 = 0x100;
/// The token of orders from outside.
const ORDERS: u32 = 0x101;
/// The size of a balloon's page, whatever the guest's is.
const PAGE: u64 = 4096;
/// The most page numbers in a request; a driver sends 256.
const MOST_PAGES: usize = 16 << 10;
/// How many requests are served before others have their turn.
const TURN: usize = 2 * ENTRIES as usize;
/// Where the driver writes how many pages it has put in.
const ACTUAL: u64 = 4;

/// The device.
#[derive(Debug)]
pub struct Balloon {
    handle: BalloonHandle,
    reporting: bool,
    orders: Option<File>,
    active: Option<Active>,
}

/// How the balloon is told what is wanted, from any thread. Copies are the same balloon.
#[derive(Debug, Clone)]
pub struct BalloonHandle(Arc<Wanted>);

#[derive(Debug)]
struct Wanted {
    target: AtomicU32,
    actual: AtomicU32,
    given_back: AtomicU64,
    bell: EventFd,
}

#[derive(Debug)]
struct Active {
    interrupt: Interrupt,
    inflate: Ring,
    deflate: Ring,
    reports: Option<Ring>,
}

impl BalloonHandle {
    /// Asks the guest to give so many bytes back, or fewer than before. It may take its time, or not do it.
    pub fn want(&self, bytes: u64) {
        let pages = u32::try_from(bytes / PAGE).unwrap_or(u32::MAX);
        self.0.target.store(pages, Ordering::Release);
        // It fails only when the counter is full: then it is ringing.
        self.0.bell.write(1).ok();
    }

    /// What the guest says that it has put into the balloon, in bytes.
    #[must_use]
    pub fn actual(&self) -> u64 {
        u64::from(self.0.actual.load(Ordering::Acquire)) * PAGE
    }

    /// How many bytes have been given back to the host so far, those that were given back again among them.
    #[must_use]
    pub fn given_back(&self) -> u64 {
        self.0.given_back.load(Ordering::Relaxed)
    }
}

impl Balloon {
    /// An empty balloon. With `reporting` the guest also tells of pages that are free, without being asked.
    ///
    /// # Errors
    ///
    /// Fails as `eventfd(2)` does.
    pub fn new(reporting: bool) -> io::Result<Self> {
        Ok(Self {
            handle: BalloonHandle(Arc::new(Wanted {
                target: AtomicU32::new(0),
                actual: AtomicU32::new(0),
                given_back: AtomicU64::new(0),
                bell: EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?,
            })),
            reporting,
            orders: None,
            active: None,
        })
    }

    /// Has it read from there what is wanted: bytes, each time a number of eight bytes, little endian. Reading must not wait.
    pub fn take_orders(&mut self, orders: File) {
        self.orders = Some(orders);
    }

    /// The last of the orders that have come.
    fn read_orders(&mut self) {
        let mut bytes = [0; 8];
        while let Some(Ok(8)) = self.orders.as_mut().map(|orders| orders.read(&mut bytes)) {
            let pages = u32::try_from(u64::from_le_bytes(bytes) / PAGE).unwrap_or(u32::MAX);
            self.handle.0.target.store(pages, Ordering::Release);
        }
    }

    /// How the balloon is told what is wanted.
    #[must_use]
    pub fn handle(&self) -> BalloonHandle {
        self.handle.clone()
    }

    fn count(&self, bytes: u64) {
        self.handle.0.given_back.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes the pages that a request names.
    fn inflate(&self, memory: &GuestMemoryMmap<()>, chain: &Chain) -> Result<(), DeviceError> {
        let mut reader = chain.reader(memory);
        let length = reader.left();
        if !length.is_multiple_of(4) || length / 4 > MOST_PAGES {
            return Err(DeviceError::Request("page numbers that cannot be"));
        }
        let mut bytes = vec![0; length];
        reader.read(&mut bytes)?;
        let (numbers, _) = bytes.as_chunks::<4>();
        let numbers = numbers
            .iter()
            .map(|number| u64::from(u32::from_le_bytes(*number)));
        for (first, count) in runs(numbers) {
            let start = GuestAddress(first.saturating_mul(PAGE));
            self.count(give_back(memory, start, count.saturating_mul(PAGE))?);
        }
        Ok(())
    }

    /// Takes the pages that a request consists of.
    fn report(&self, memory: &GuestMemoryMmap<()>, chain: &Chain) -> Result<(), DeviceError> {
        for segment in chain.writable() {
            self.count(give_back(memory, segment.address, segment.length.into())?);
        }
        Ok(())
    }

    fn serve(
        ring: &mut Ring,
        work: impl Fn(&GuestMemoryMmap<()>, &Chain) -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        for _ in 0..TURN {
            let Some(chain) = ring.next_request()? else {
                return Ok(ring.notify()?);
            };
            work(ring.memory(), &chain)?;
            ring.push(chain.head(), 0)?;
        }
        ring.again();
        Ok(ring.notify()?)
    }

    fn process_for(&self, active: &mut Active, token: u32) -> Result<(), DeviceError> {
        match usize::try_from(token).unwrap_or(usize::MAX) {
            INFLATE => Self::serve(&mut active.inflate, |memory, chain| {
                self.inflate(memory, chain)
            }),
            // Nothing has to be done: a page is there again as soon as it is touched.
            DEFLATE => Self::serve(&mut active.deflate, |_, _| Ok(())),
            REPORTS => match &mut active.reports {
                Some(ring) => Self::serve(ring, |memory, chain| self.report(memory, chain)),
                None => Ok(()),
            },
            _ => {
                active.interrupt.config_changed();
                Ok(())
            }
        }
    }
}

/// Numbers that follow each other, as the first and how many.
fn runs(numbers: impl Iterator<Item = u64>) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((first, count)) if *first + *count == number => *count += 1,
            Some((first, _)) if *first == number + 1 => {
                // Drivers count downwards too.
                let (_, count) = runs.pop().unwrap_or_default();
                runs.push((number, count + 1));
            }
            _ => runs.push((number, 1)),
        }
    }
    runs
}

/// Takes the whole pages of a range out of memory; gives how many bytes these are.
fn give_back(
    memory: &GuestMemoryMmap<()>,
    start: GuestAddress,
    length: u64,
) -> Result<u64, DeviceError> {
    let outside = || DeviceError::Request("pages that are not in memory");
    let end = start.0.checked_add(length).ok_or_else(outside)?;
    let region = memory.find_region(start).ok_or_else(outside)?;
    if end - region.start_addr().0 > region.len() {
        return Err(outside());
    }
    let first = start.0.next_multiple_of(PAGE);
    let last = end - end % PAGE;
    let Some(length) = last.checked_sub(first).filter(|length| *length > 0) else {
        return Ok(0);
    };
    let offset = first - region.start_addr().0;
    let done = match region.file_offset() {
        Some(place) => {
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let offset = place.start().saturating_add(offset);
            rustix::fs::fallocate(place.file(), hole, offset, length)
        }
        None => {
            let size = usize::try_from(length).unwrap_or(usize::MAX);
            let slice = region.get_slice(MemoryRegionAddress(offset), size);
            scatter::give_back(&slice.map_err(|_| outside())?)
        }
    };
    done.map_err(DeviceError::host("give pages back"))?;
    Ok(length)
}

impl VirtioDevice for Balloon {
    fn kind(&self) -> u32 {
        VIRTIO_ID_BALLOON
    }

    fn queue_sizes(&self) -> &[u16] {
        if self.reporting {
            &[ENTRIES; 3]
        } else {
            &[ENTRIES; 2]
        }
    }

    fn features(&self) -> u64 {
        let reporting = u64::from(self.reporting) << F_REPORTING;
        RING_FEATURES | (1 << F_DEFLATE_ON_OOM) | reporting
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let target = self.handle.0.target.load(Ordering::Acquire);
        let actual = self.handle.0.actual.load(Ordering::Acquire);
        let config = (u64::from(actual) << 32) | u64::from(target);
        read_bytes(&config.to_le_bytes(), offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        if let (ACTUAL, Ok(bytes)) = (offset, data.try_into()) {
            let actual = u32::from_le_bytes(bytes);
            self.handle.0.actual.store(actual, Ordering::Release);
        }
    }

    fn activate(
        &mut self,
        mut activation: Activation,
        watch: &mut Watch<'_>,
    ) -> Result<(), DeviceError> {
        let active = Active {
            inflate: activation.ring(INFLATE)?,
            deflate: activation.ring(DEFLATE)?,
            reports: activation
                .optional_ring(REPORTS)
                .filter(|_| activation.has(F_REPORTING)),
            interrupt: activation.interrupt,
        };
        let rings = [&active.inflate, &active.deflate].into_iter();
        for ring in rings.chain(&active.reports) {
            watch.ring(ring)?;
        }
        watch.add(
            TARGET,
            &self.handle.0.bell,
            EventSet::IN | EventSet::EDGE_TRIGGERED,
        )?;
        if let Some(orders) = &self.orders {
            watch.add(ORDERS, orders, EventSet::IN)?;
        }
        self.active = Some(active);
        Ok(())
    }

    fn process(&mut self, token: u32, _: EventSet, _: &mut Watch<'_>) -> Result<(), DeviceError> {
        if token == ORDERS {
            self.read_orders();
        }
        let Some(mut active) = self.active.take() else {
            return Ok(());
        };
        let done = self.process_for(&mut active, token);
        self.active = Some(active);
        done
    }

    fn reset(&mut self) {
        self.active = None;
        self.handle.0.actual.store(0, Ordering::Release);
    }
}
