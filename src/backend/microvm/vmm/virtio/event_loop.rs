//! The thread on which all devices do their work: one wait for everything that any of them watches.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::mpsc;

use vmm_sys_util::epoll::ControlOperation;
use vmm_sys_util::epoll::Epoll;
use vmm_sys_util::epoll::EpollEvent;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EFD_CLOEXEC;
use vmm_sys_util::eventfd::EFD_NONBLOCK;
use vmm_sys_util::eventfd::EventFd;

use crate::backend::microvm::vmm::virtio::device::Activation;
use crate::backend::microvm::vmm::virtio::device::DeviceError;
use crate::backend::microvm::vmm::virtio::device::VirtioDevice;
use crate::backend::microvm::vmm::virtio::interrupt::Interrupt;
use crate::backend::microvm::vmm::virtio::ring::Ring;

/// How many events are taken at once.
const BATCH: usize = 64;
/// The mark of the bell; no device has this number.
const BELL: u64 = u64::MAX;
/// How many troubles of a device are told: a guest can make as many as it likes.
const TOLD: u32 = 10;

/// What is told when a device needs a reset: its kind, and why.
type Tell = Box<dyn FnMut(u32, &DeviceError) + Send>;

/// A device, as it is shared by the thread of the event loop and those of the vCPUs.
pub(super) type Shared = Arc<Mutex<dyn VirtioDevice>>;

/// Everything that devices wait for, and the devices.
pub struct EventLoop {
    epoll: Epoll,
    places: Vec<Place>,
    inbox: mpsc::Receiver<Order>,
    orders: Orders,
    tell: Tell,
}

/// One device in the event loop.
struct Place {
    device: Shared,
    kind: u32,
    watched: BTreeMap<u32, RawFd>,
    interrupt: Option<Interrupt>,
    troubles: u32,
}

/// What the event loop is asked to do by other threads.
#[derive(Debug)]
enum Order {
    Activate(usize, Box<Activation>),
    Reset(usize, mpsc::SyncSender<()>),
    Stop,
}

/// Orders to the event loop, from any thread.
#[derive(Debug, Clone)]
pub struct Orders {
    outbox: mpsc::Sender<Order>,
    bell: Arc<EventFd>,
}

/// The place of one device in the event loop: what its transport needs to know.
pub struct Seat {
    place: usize,
    device: Shared,
    orders: Orders,
}

/// What a device watches. It stays watched until it is forgotten, or the device is reset.
pub struct Watch<'a> {
    epoll: &'a Epoll,
    place: usize,
    watched: &'a mut BTreeMap<u32, RawFd>,
}

impl std::fmt::Debug for EventLoop {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kinds: Vec<u32> = self.places.iter().map(|place| place.kind).collect();
        formatter
            .debug_struct("EventLoop")
            .field("kinds", &kinds)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Seat")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Watch<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Watch")
            .field("watched", &self.watched)
            .finish_non_exhaustive()
    }
}

/// Nobody goes on after a panic, so a lock is never left by one.
pub(super) fn locked(device: &Shared) -> MutexGuard<'_, dyn VirtioDevice + 'static> {
    device.lock().unwrap_or_else(PoisonError::into_inner)
}

impl EventLoop {
    /// An event loop without devices. `tell` hears of devices that need a reset, a few times for each.
    ///
    /// # Errors
    ///
    /// Fails as `epoll_create1(2)` and `eventfd(2)` do.
    pub fn new(tell: impl FnMut(u32, &DeviceError) + Send + 'static) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let bell = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?;
        let event = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, BELL);
        epoll.ctl(ControlOperation::Add, bell.as_raw_fd(), event)?;
        let (outbox, inbox) = mpsc::channel();
        Ok(Self {
            epoll,
            places: Vec::new(),
            inbox,
            orders: Orders {
                outbox,
                bell: Arc::new(bell),
            },
            tell: Box::new(tell),
        })
    }

    /// Takes a device in.
    pub fn seat(&mut self, device: impl VirtioDevice + 'static) -> Seat {
        let kind = device.kind();
        let device: Shared = Arc::new(Mutex::new(device));
        self.places.push(Place {
            device: Arc::clone(&device),
            kind,
            watched: BTreeMap::new(),
            interrupt: None,
            troubles: 0,
        });
        Seat {
            place: self.places.len() - 1,
            device,
            orders: self.orders(),
        }
    }

    /// How the event loop is talked to from other threads.
    #[must_use]
    pub fn orders(&self) -> Orders {
        self.orders.clone()
    }

    /// Works until [`Orders::stop`], once.
    ///
    /// # Errors
    ///
    /// Fails as `epoll_wait(2)` does.
    pub fn run(&mut self) -> io::Result<()> {
        let worked = self.work_on();
        // Whoever still waits for an order, or gives one now, is told that nobody hears it.
        self.inbox = mpsc::channel().1;
        worked
    }

    fn work_on(&mut self) -> io::Result<()> {
        while self.turn(-1)? {}
        Ok(())
    }

    /// Waits `timeout` milliseconds at most, without end for -1, and works for what is ready then. Gives whether to go
    /// on: whether it was not told to stop.
    ///
    /// # Errors
    ///
    /// Fails as `epoll_wait(2)` does.
    pub fn turn(&mut self, timeout: i32) -> io::Result<bool> {
        let mut events = [EpollEvent::default(); BATCH];
        let count = match self.epoll.wait(timeout, &mut events) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            count => count?,
        };
        let mut events = events.iter().take(count);
        Ok(!events.any(|event| self.take(*event)))
    }

    /// Does what an event is for; gives whether that was to stop.
    fn take(&mut self, event: EpollEvent) -> bool {
        if event.data() == BELL {
            return self.obey();
        }
        self.wake(event.data(), event.event_set());
        false
    }

    /// Does what was ordered; gives whether that was to stop.
    fn obey(&mut self) -> bool {
        while let Ok(order) = self.inbox.try_recv() {
            match order {
                Order::Activate(place, activation) => self.activate(place, *activation),
                Order::Reset(place, done) => {
                    self.reset(place);
                    // Whoever asked has gone when nobody hears it.
                    done.send(()).ok();
                }
                Order::Stop => return true,
            }
        }
        false
    }

    fn activate(&mut self, index: usize, activation: Activation) {
        let Some(place) = self.places.get_mut(index) else {
            return;
        };
        place.interrupt = Some(activation.interrupt.clone());
        self.work(index, |device, watch| device.activate(activation, watch));
    }

    fn reset(&mut self, index: usize) {
        if let Some(place) = self.places.get_mut(index) {
            place.forget_all(&self.epoll);
            place.interrupt = None;
            locked(&place.device).reset();
        }
    }

    /// A device's descriptor is ready, unless it was forgotten since.
    fn wake(&mut self, data: u64, ready: EventSet) {
        let (index, token) = split(data);
        let watched = self.places.get(index).map(|place| &place.watched);
        if watched.is_some_and(|watched| watched.contains_key(&token)) {
            self.work(index, |device, watch| device.process(token, ready, watch));
        }
    }

    /// Lets a device work. One that fails is not called again before it is reset.
    fn work(
        &mut self,
        index: usize,
        work: impl FnOnce(&mut dyn VirtioDevice, &mut Watch<'_>) -> Result<(), DeviceError>,
    ) {
        let Some(place) = self.places.get_mut(index) else {
            return;
        };
        let mut watch = Watch {
            epoll: &self.epoll,
            place: index,
            watched: &mut place.watched,
        };
        let done = work(&mut *locked(&place.device), &mut watch);
        let Err(error) = done else {
            return;
        };
        place.forget_all(&self.epoll);
        place.troubles = place.troubles.saturating_add(1);
        if place.troubles <= TOLD {
            (self.tell)(place.kind, &error);
        }
        if let Some(interrupt) = &place.interrupt {
            interrupt.needs_reset();
        }
    }
}

impl Place {
    fn forget_all(&mut self, epoll: &Epoll) {
        for (_, fd) in std::mem::take(&mut self.watched) {
            // One that is closed already is not watched any more.
            drop(epoll.ctl(ControlOperation::Delete, fd, EpollEvent::default()));
        }
    }
}

impl Orders {
    /// Ends [`EventLoop::run`].
    pub fn stop(&self) {
        self.give(Order::Stop);
    }

    fn give(&self, order: Order) {
        // Without an event loop there is nothing to do, and a bell that is full is ringing.
        drop(self.outbox.send(order));
        drop(self.bell.write(1));
    }
}

impl Seat {
    pub(super) fn device(&self) -> MutexGuard<'_, dyn VirtioDevice + 'static> {
        locked(&self.device)
    }

    /// Hands over what the driver has set up.
    pub(super) fn activate(&self, activation: Activation) {
        let order = Order::Activate(self.place, Box::new(activation));
        self.orders.give(order);
    }

    /// Resets the device, and waits until that is done: the driver may use the memory for something else then.
    pub(super) fn reset(&self) {
        let (done, wait) = mpsc::sync_channel(1);
        self.orders.give(Order::Reset(self.place, done));
        // An event loop that is gone touches no memory either.
        wait.recv().ok();
    }
}

impl Watch<'_> {
    /// Watches the doorbell of a ring, under the ring's own number. It need not be read.
    ///
    /// # Errors
    ///
    /// Fails as `epoll_ctl(2)` does.
    pub fn ring(&mut self, ring: &Ring) -> Result<(), DeviceError> {
        let what = EventSet::IN | EventSet::EDGE_TRIGGERED;
        self.add(u32::from(ring.index()), ring.kick(), what)
    }

    /// Watches a descriptor under `token`, which is the device's own choice beyond the numbers of its rings.
    ///
    /// # Errors
    ///
    /// Fails as `epoll_ctl(2)` does.
    pub fn add(
        &mut self,
        token: u32,
        fd: &impl AsRawFd,
        what: EventSet,
    ) -> Result<(), DeviceError> {
        self.control(ControlOperation::Add, token, fd.as_raw_fd(), what)?;
        self.watched.insert(token, fd.as_raw_fd());
        Ok(())
    }

    /// Watches a descriptor for something else than before.
    ///
    /// # Errors
    ///
    /// Fails as `epoll_ctl(2)` does.
    pub fn change(
        &mut self,
        token: u32,
        fd: &impl AsRawFd,
        what: EventSet,
    ) -> Result<(), DeviceError> {
        self.control(ControlOperation::Modify, token, fd.as_raw_fd(), what)
    }

    /// Watches what is under `token` no longer. To be called before the descriptor is closed.
    pub fn forget(&mut self, token: u32) {
        if let Some(fd) = self.watched.remove(&token) {
            // One that is closed already is not watched any more.
            drop(self.control(ControlOperation::Delete, token, fd, EventSet::empty()));
        }
    }

    fn control(
        &self,
        operation: ControlOperation,
        token: u32,
        fd: RawFd,
        what: EventSet,
    ) -> Result<(), DeviceError> {
        let event = EpollEvent::new(what, joined(self.place, token));
        let done = self.epoll.ctl(operation, fd, event);
        done.map_err(DeviceError::host("watch a descriptor"))
    }
}

fn joined(place: usize, token: u32) -> u64 {
    let place = u32::try_from(place).unwrap_or(u32::MAX - 1);
    (u64::from(place) << 32) | u64::from(token)
}

fn split(data: u64) -> (usize, u32) {
    let place = usize::try_from(data >> 32).unwrap_or(usize::MAX);
    let token = u32::try_from(data & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    (place, token)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::backend::microvm::vmm::virtio::EventLoop;
    use crate::backend::microvm::vmm::virtio::rng::Rng;

    #[test]
    fn nobody_waits_for_an_event_loop_that_has_ended() {
        let mut event_loop = EventLoop::new(|_, _| {}).unwrap();
        let seat = event_loop.seat(Rng::new().unwrap());
        let (done, wait) = std::sync::mpsc::channel();
        event_loop.orders().stop();
        let asking = std::thread::spawn(move || {
            seat.reset();
            seat.reset();
            done.send(()).unwrap();
        });
        event_loop.run().unwrap();
        wait.recv_timeout(Duration::from_secs(20)).unwrap();
        asking.join().unwrap();
    }
}
