//! The devices of a machine: each in a window of its own, in the order in which the document names them.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::Mutex;

use kvm_ioctls::IoEventAddress;

use crate::backend::microvm::vmm::Ending;
use crate::backend::microvm::vmm::bus::Bus;
use crate::backend::microvm::vmm::bus::Taken;
use crate::backend::microvm::vmm::config::ConfigError;
use crate::backend::microvm::vmm::config::MachineConfig;
use crate::backend::microvm::vmm::config::NicConfig;
use crate::backend::microvm::vmm::config::Source;
use crate::backend::microvm::vmm::layout;
use crate::backend::microvm::vmm::power::Power;
use crate::backend::microvm::vmm::virtio::EventLoop;
use crate::backend::microvm::vmm::virtio::Fs;
use crate::backend::microvm::vmm::virtio::Memory;
use crate::backend::microvm::vmm::virtio::Transport;
use crate::backend::microvm::vmm::virtio::VirtioDevice;
use crate::backend::microvm::vmm::virtio::balloon::Balloon;
use crate::backend::microvm::vmm::virtio::block::Block;
use crate::backend::microvm::vmm::virtio::block::BlockOptions;
use crate::backend::microvm::vmm::virtio::console::Console;
use crate::backend::microvm::vmm::virtio::net::Net;
use crate::backend::microvm::vmm::virtio::net::NetOptions;
use crate::backend::microvm::vmm::virtio::rng::Rng;
use crate::backend::microvm::vmm::virtio::vsock::Vsock;
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
    /// The document names something that cannot be opened.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What was opened is not what such a device needs.
    #[error("{field}: cannot be made a device")]
    Device {
        /// Where.
        field: &'static str,
        /// Why not.
        source: io::Error,
    },
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

/// Makes every device that the document names; those that the machine cannot go on without have a hand on its `power`.
///
/// # Errors
///
/// [`DevicesError`].
pub(super) fn attach(
    config: &MachineConfig,
    windows: &mut Windows<'_>,
    power: &Arc<Power>,
) -> Result<(), DevicesError> {
    let device = |field| move |source| DevicesError::Device { field, source };
    for disk in &config.disks {
        let file = disk.image.open("disks.image", !disk.read_only)?;
        let options = BlockOptions {
            read_only: disk.read_only,
            limit: disk.limit,
            ..BlockOptions::default()
        };
        windows.add(Block::new(file, &options).map_err(device("disks.image"))?)?;
    }
    for nic in &config.nics {
        windows.add(interface(nic)?)?;
    }
    for share in &config.shares {
        let socket = Source::Fd(share.socket).open("shares.socket", true)?;
        let power = Arc::clone(power);
        let gone = move || power.end(Ending::FilesGone);
        let made = Fs::new(&share.tag, OwnedFd::from(socket), gone);
        windows.add(made.map_err(device("shares.tag"))?)?;
    }
    if let Some(vsock) = &config.vsock {
        let listener = Source::Fd(vsock.listener).open("vsock.listener", true)?;
        let made = Vsock::new(vsock.cid, OwnedFd::from(listener));
        let (vsock, _connector) = made.map_err(device("vsock.listener"))?;
        windows.add(vsock)?;
    }
    if let Some(balloon) = config.balloon {
        // Huge pages that were given back might be somebody else's when the guest wants them again.
        let made = Balloon::new(balloon.free_page_reporting && !config.hugepages);
        let mut made = made.map_err(device("balloon"))?;
        if let Some(orders) = balloon.orders {
            made.take_orders(Source::Fd(orders).open("balloon.orders", true)?);
        }
        windows.add(made)?;
    }
    if config.rng {
        windows.add(Rng::new().map_err(device("rng"))?)?;
    }
    if let Some(console) = &config.console {
        let file: File = console.to.log("console.to")?;
        windows.add(Console::new(Some(file), console.limit))?;
    }
    Ok(())
}

fn interface(nic: &NicConfig) -> Result<Net, DevicesError> {
    let tap = Source::Fd(nic.tap).open("nics.tap", true)?;
    let options = NetOptions {
        mac: nic.address()?,
        mtu: nic.mtu,
        receive: nic.receive,
        send: nic.send,
    };
    let failed = |field| move |source| DevicesError::Device { field, source };
    let net = Net::new(OwnedFd::from(tap), &options).map_err(failed("nics.tap"))?;
    let Some(vhost) = nic.vhost else {
        return Ok(net);
    };
    let vhost = Source::Fd(vhost).open("nics.vhost", true)?;
    net.by_kernel(OwnedFd::from(vhost))
        .map_err(failed("nics.vhost"))
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
