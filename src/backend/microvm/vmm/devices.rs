//! The devices of a machine: each in a window of its own, in the order in which the document names them.

use std::io;
use std::sync::Arc;
use std::sync::Mutex;

use kvm_ioctls::IoEventAddress;

use crate::backend::microvm::vmm::bus::Bus;
use crate::backend::microvm::vmm::bus::Taken;
use crate::backend::microvm::vmm::layout;
use crate::backend::microvm::vmm::virtio::EventLoop;
use crate::backend::microvm::vmm::virtio::Memory;
use crate::backend::microvm::vmm::virtio::Transport;
use crate::backend::microvm::vmm::virtio::VirtioDevice;
use crate::sys::Errno;
use crate::sys::kvm::Vm;
use crate::sys::kvm::errno;

/// Why a device cannot be put into a machine.
#[derive(Debug, thiserror::Error)]
pub enum DevicesError {
    /// There are more devices than interrupts for them.
    #[error(
        "disks, nics, shares: more devices than a machine's {} windows",
        layout::WINDOWS_MAX
    )]
    TooMany,
    /// Its registers cannot be made.
    #[error("device {kind}: no descriptor for its registers")]
    Transport {
        /// The kind of device (`VIRTIO_ID_*`).
        kind: u32,
        /// Why not.
        source: io::Error,
    },
    /// Its doorbells or its interrupt cannot be joined to the machine.
    #[error("device {kind}: {call} is refused")]
    Joined {
        /// The kind of device (`VIRTIO_ID_*`).
        kind: u32,
        /// What was asked for.
        call: &'static str,
        /// Why not.
        source: Errno,
    },
    /// Two windows in one place.
    #[error(transparent)]
    Taken(#[from] Taken),
}

/// The windows of a machine, filled one after another.
pub(super) struct Windows<'a> {
    vm: &'a Vm,
    memory: Memory,
    bus: &'a mut Bus,
    events: &'a mut EventLoop,
    count: u32,
}

impl<'a> Windows<'a> {
    /// All windows are free.
    pub(super) fn new(vm: &'a Vm, bus: &'a mut Bus, events: &'a mut EventLoop) -> Self {
        Self {
            vm,
            memory: Arc::new(vm.memory().clone()),
            bus,
            events,
            count: 0,
        }
    }

    /// How many are filled.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Puts a device into the next one: its registers on the bus, its doorbells and its interrupt into the kernel.
    ///
    /// # Errors
    ///
    /// [`DevicesError`].
    pub(super) fn add(&mut self, device: impl VirtioDevice + 'static) -> Result<(), DevicesError> {
        if self.count == layout::WINDOWS_MAX {
            return Err(DevicesError::TooMany);
        }
        let kind = device.kind();
        let joined = |call| {
            move |error| DevicesError::Joined {
                kind,
                call,
                source: errno(error),
            }
        };
        let base = layout::WINDOWS + u64::from(self.count) * layout::WINDOW;
        let seat = self.events.seat(device);
        let transport = Transport::new(seat, self.memory.clone())
            .map_err(|source| DevicesError::Transport { kind, source })?;
        let doorbell = IoEventAddress::Mmio(base + layout::QUEUE_NOTIFY);
        for (number, kick) in (0u32..).zip(transport.kicks()) {
            let registered = self.vm.fd().register_ioevent(kick, &doorbell, number);
            registered.map_err(joined("KVM_IOEVENTFD"))?;
        }
        let gsi = layout::WINDOW_GSI + self.count;
        let registered = self.vm.fd().register_irqfd(transport.line(), gsi);
        registered.map_err(joined("KVM_IRQFD"))?;
        let transport = Arc::new(Mutex::new(transport));
        self.bus.add(base, layout::WINDOW, transport)?;
        self.count += 1;
        Ok(())
    }
}
