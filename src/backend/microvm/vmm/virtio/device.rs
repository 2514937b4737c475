//! What a device is to those around it.

use std::io;

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;
use vmm_sys_util::epoll::EventSet;

use crate::backend::microvm::vmm::virtio::Memory;
use crate::backend::microvm::vmm::virtio::chain::ChainError;
use crate::backend::microvm::vmm::virtio::event_loop::Watch;
use crate::backend::microvm::vmm::virtio::interrupt::Interrupt;
use crate::backend::microvm::vmm::virtio::ring::Ring;
use crate::backend::microvm::vmm::virtio::ring::RingError;

/// The features that every device has whose rings are walked by [`Ring`].
pub const RING_FEATURES: u64 =
    (1 << VIRTIO_F_VERSION_1) | (1 << VIRTIO_RING_F_EVENT_IDX) | (1 << VIRTIO_RING_F_INDIRECT_DESC);

/// A device behind a [`Transport`](crate::backend::microvm::vmm::virtio::Transport).
///
/// The configuration is read and written by the thread of the vCPU that asks; everything else happens on the thread of
/// the event loop. Never two at once.
pub trait VirtioDevice: Send {
    /// What kind of device it is (`VIRTIO_ID_*`).
    fn kind(&self) -> u32;

    /// How many entries each queue may have at most: powers of two.
    fn queue_sizes(&self) -> &[u16];

    /// What is offered, [`RING_FEATURES`] among it. The same for as long as the device is.
    fn features(&self) -> u64;

    /// The guest reads the configuration. `data` is zero before, and what lies behind the configuration stays so.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// The guest writes the configuration; for most devices nothing in it can be written.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    /// Whether somebody else than this process raises the device's interrupts, so that nobody here knows why.
    fn is_driven_outside(&self) -> bool {
        false
    }

    /// The driver is ready (`DRIVER_OK`): take the rings, and watch what wakes the device. The kick of a ring counts from
    /// the moment it is watched, also when it came before.
    ///
    /// # Errors
    ///
    /// After any error the device needs a reset, which the guest is told.
    fn activate(
        &mut self,
        activation: Activation,
        watch: &mut Watch<'_>,
    ) -> Result<(), DeviceError>;

    /// Something that is watched has happened: `token` is what it was watched under, `ready` what it is ready for.
    ///
    /// # Errors
    ///
    /// As for [`VirtioDevice::activate`].
    fn process(
        &mut self,
        token: u32,
        ready: EventSet,
        watch: &mut Watch<'_>,
    ) -> Result<(), DeviceError>;

    /// The driver is gone: forget it. When this returns no guest memory is touched any more. Nothing is watched by then.
    fn reset(&mut self);
}

/// What a driver has set up.
#[derive(Debug)]
pub struct Activation {
    /// The guest's memory.
    pub memory: Memory,
    /// The features that driver and device agreed on.
    pub features: u64,
    /// How the guest is told of something.
    pub interrupt: Interrupt,
    rings: Vec<Option<Ring>>,
}

impl Activation {
    /// Puts together what a driver has set up; `rings` has a place for each queue, empty where the driver left it out.
    #[must_use]
    pub fn new(
        memory: Memory,
        features: u64,
        interrupt: Interrupt,
        rings: Vec<Option<Ring>>,
    ) -> Self {
        Self {
            memory,
            features,
            interrupt,
            rings,
        }
    }

    /// Whether driver and device agreed on a feature, given as the number of its bit.
    #[must_use]
    pub fn has(&self, feature: u32) -> bool {
        self.features & (1 << feature) != 0
    }

    /// Takes a ring that the device cannot be without.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NoRing`] when the driver has not set it up.
    pub fn ring(&mut self, index: usize) -> Result<Ring, DeviceError> {
        self.optional_ring(index).ok_or(DeviceError::NoRing(index))
    }

    /// Takes a ring that the driver may leave out.
    pub fn optional_ring(&mut self, index: usize) -> Option<Ring> {
        self.rings.get_mut(index)?.take()
    }
}

/// Why a device stands still until it is reset.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The driver did not set up a queue.
    #[error("queue {0} is not set up")]
    NoRing(usize),
    /// The driver has put something into a ring that cannot be.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// A request that no driver makes.
    #[error("{0}")]
    Request(&'static str),
    /// A request with fewer bytes than it must have, or with a buffer that is not in memory.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// This host failed.
    #[error("{what}")]
    Host {
        /// What was to be done.
        what: &'static str,
        /// Why it was not.
        source: io::Error,
    },
}

impl DeviceError {
    /// For `map_err`: this host failed at `what`.
    pub fn host<E: Into<io::Error>>(what: &'static str) -> impl Fn(E) -> Self {
        move |source| Self::Host {
            what,
            source: source.into(),
        }
    }
}

/// Answers a read of a configuration that is these bytes; behind them is nothing.
pub fn read_bytes(config: &[u8], offset: u64, data: &mut [u8]) {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let there = config.get(start..).unwrap_or_default();
    for (to, from) in data.iter_mut().zip(there) {
        *to = *from;
    }
}
