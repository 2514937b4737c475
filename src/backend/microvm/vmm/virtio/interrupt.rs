//! How a device tells its driver that something has happened.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_DRIVER_OK;
use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_NEEDS_RESET;
use virtio_bindings::virtio_mmio::VIRTIO_MMIO_INT_CONFIG;
use virtio_bindings::virtio_mmio::VIRTIO_MMIO_INT_VRING;
use vmm_sys_util::eventfd::EFD_CLOEXEC;
use vmm_sys_util::eventfd::EFD_NONBLOCK;
use vmm_sys_util::eventfd::EventFd;

/// The interrupt of one device, and the two registers that say why it was raised. Copies are the same interrupt.
#[derive(Debug, Clone)]
pub struct Interrupt {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// `InterruptStatus`.
    causes: AtomicU32,
    /// `Status`: what the driver has said, and whether the device needs a reset.
    status: AtomicU32,
    /// `ConfigGeneration`.
    generation: AtomicU32,
    line: EventFd,
}

impl Interrupt {
    /// An interrupt that was never raised, of a device that no driver has found yet.
    ///
    /// # Errors
    ///
    /// Fails as `eventfd(2)` does.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            shared: Arc::new(Shared {
                causes: AtomicU32::new(0),
                status: AtomicU32::new(0),
                generation: AtomicU32::new(0),
                line: EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?,
            }),
        })
    }

    /// What is written to when the interrupt is raised: the irqfd.
    #[must_use]
    pub fn line(&self) -> &EventFd {
        &self.shared.line
    }

    /// Buffers have been used.
    pub fn used(&self) {
        self.raise(VIRTIO_MMIO_INT_VRING);
    }

    /// The configuration has changed; the change is made before this is called.
    pub fn config_changed(&self) {
        self.shared.generation.fetch_add(1, Ordering::AcqRel);
        self.raise(VIRTIO_MMIO_INT_CONFIG);
    }

    /// The device cannot go on until it is reset.
    pub fn needs_reset(&self) {
        let bit = VIRTIO_CONFIG_S_NEEDS_RESET;
        let before = self.shared.status.fetch_or(bit, Ordering::AcqRel);
        if before & VIRTIO_CONFIG_S_DRIVER_OK != 0 {
            self.raise(VIRTIO_MMIO_INT_CONFIG);
        }
    }

    fn raise(&self, cause: u32) {
        self.shared.causes.fetch_or(cause, Ordering::AcqRel);
        // It fails only when the counter is full: then the interrupt is raised already.
        drop(self.shared.line.write(1));
    }

    /// Why the interrupt was raised since that was last acknowledged.
    pub(super) fn causes(&self) -> u32 {
        self.shared.causes.load(Ordering::Acquire)
    }

    pub(super) fn acknowledge(&self, causes: u32) {
        self.shared.causes.fetch_and(!causes, Ordering::AcqRel);
    }

    pub(super) fn generation(&self) -> u32 {
        self.shared.generation.load(Ordering::Acquire)
    }

    pub(super) fn status(&self) -> u32 {
        self.shared.status.load(Ordering::Acquire)
    }

    /// Adds what the driver has said.
    pub(super) fn add_status(&self, bits: u32) {
        self.shared.status.fetch_or(bits, Ordering::AcqRel);
    }

    /// Back to the beginning. The generation goes on: a driver that comes later must not take it for the old one.
    pub(super) fn reset(&self) {
        self.shared.status.store(0, Ordering::Release);
        self.shared.causes.store(0, Ordering::Release);
    }
}
