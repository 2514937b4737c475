//! Shared directories: the device that a guest sees belongs to a file server outside (vhost-user).
//!
//! This process only introduces the two. The server maps the guest's memory, is told where the rings are, and hears the
//! guest's doorbells and raises its interrupt by descriptors of its own; not a byte of a file passes through here.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use vhost::VhostBackend;
use vhost::VhostUserMemoryRegionInfo;
use vhost::VringConfigData;
use vhost::vhost_user::Frontend;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::VhostUserProtocolFeatures;
use vhost::vhost_user::VhostUserVirtioFeatures;
use vhost::vhost_user::message::VhostUserHeaderFlag;
use virtio_bindings::virtio_ids::VIRTIO_ID_FS;
use virtio_queue::QueueT;
use vm_memory::GuestAddress;
use vm_memory::GuestMemory;
use vmm_sys_util::epoll::EventSet;

use crate::backend::microvm::files::QUEUE_SIZE;
use crate::backend::microvm::files::QUEUES;
use crate::backend::microvm::vmm::virtio::Memory;
use crate::backend::microvm::vmm::virtio::device::Activation;
use crate::backend::microvm::vmm::virtio::device::DeviceError;
use crate::backend::microvm::vmm::virtio::device::RING_FEATURES;
use crate::backend::microvm::vmm::virtio::device::VirtioDevice;
use crate::backend::microvm::vmm::virtio::event_loop::Watch;
use crate::backend::microvm::vmm::virtio::ring::Ring;

/// The longest tag: the room in the configuration for it.
const TAG: usize = 36;
/// The tag, and the number of request queues.
const CONFIG: usize = TAG + 4;
/// The server's connection, among what the device watches. The rings are not watched: their doorbells are the server's.
#[expect(clippy::cast_possible_truncation, reason = "there are two queues")]
const SERVER: u32 = QUEUES as u32;

/// What is done when a server has gone that is still needed.
type Gone = Box<dyn FnMut() + Send>;

/// A directory of a file server's, under a tag.
pub struct Fs {
    config: [u8; CONFIG],
    server: Frontend,
    connection: UnixStream,
    gone: Gone,
    introduced: bool,
    rings: usize,
}

impl std::fmt::Debug for Fs {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Fs")
            .field("rings", &self.rings)
            .finish_non_exhaustive()
    }
}

impl Fs {
    /// The device of the server at the other end of `connection`. The server need not answer yet: it is spoken to when
    /// the guest's driver is ready.
    ///
    /// `gone` is called when the server has ended while the guest uses it: no request would ever be answered again.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a tag that is empty or longer than 36 bytes; else as `dup(2)`.
    pub fn new(
        tag: &str,
        connection: OwnedFd,
        gone: impl FnMut() + Send + 'static,
    ) -> io::Result<Self> {
        let mut config = [0; CONFIG];
        let (name, number) = config.split_at_mut(TAG);
        let name = name.get_mut(..tag.len()).filter(|_| !tag.is_empty());
        name.ok_or(io::ErrorKind::InvalidInput)?
            .copy_from_slice(tag.as_bytes());
        // One queue for requests, beside the one for what must not wait.
        number.copy_from_slice(&1u32.to_le_bytes());
        let connection = UnixStream::from(connection);
        let server = Frontend::from_stream(connection.try_clone()?, QUEUES as u64);
        Ok(Self {
            config,
            server,
            connection,
            gone: Box::new(gone),
            introduced: false,
            rings: 0,
        })
    }

    /// The first words, once in the life of a connection.
    fn introduce(&mut self) -> Result<(), vhost::Error> {
        if self.introduced {
            return Ok(());
        }
        self.server.set_owner()?;
        self.server.get_features()?;
        self.server.get_protocol_features()?;
        let wanted = VhostUserProtocolFeatures::REPLY_ACK | VhostUserProtocolFeatures::RESET_DEVICE;
        self.server.set_protocol_features(wanted)?;
        self.server.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        self.introduced = true;
        Ok(())
    }

    /// Tells the server of the guest: its features, its memory, its rings.
    fn hand_over(&mut self, features: u64, memory: &Memory) -> Result<(), vhost::Error> {
        self.introduce()?;
        let features = features | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        self.server.set_features(features)?;
        let regions: Result<Vec<_>, _> = memory
            .iter()
            .map(VhostUserMemoryRegionInfo::from_guest_region)
            .collect();
        self.server.set_mem_table(&regions?)
    }

    fn hand_over_ring(&mut self, ring: &Ring) -> Result<(), vhost::Error> {
        let index = usize::from(ring.index());
        let queue = ring.queue();
        // The server looks them up in its own mapping of the same memory.
        let here = |address: u64| {
            let address = ring.memory().get_host_address(GuestAddress(address));
            address
                .map(|address| address as u64)
                .map_err(|_| vhost::Error::InvalidGuestMemory)
        };
        let places = VringConfigData {
            queue_max_size: QUEUE_SIZE,
            queue_size: queue.size(),
            flags: 0,
            desc_table_addr: here(queue.desc_table())?,
            used_ring_addr: here(queue.used_ring())?,
            avail_ring_addr: here(queue.avail_ring())?,
            log_addr: None,
        };
        self.server.set_vring_num(index, queue.size())?;
        self.server.set_vring_addr(index, &places)?;
        self.server.set_vring_base(index, queue.next_avail())?;
        self.server.set_vring_call(index, ring.interrupt().line())?;
        self.server.set_vring_kick(index, ring.kick())?;
        self.server.set_vring_enable(index, true)
    }

    /// Takes the rings back. When the server has answered, it touches no memory of the guest any more.
    fn take_back(&mut self) -> Result<(), vhost::Error> {
        for index in 0..std::mem::take(&mut self.rings) {
            self.server.get_vring_base(index)?;
        }
        self.server.reset_device()
    }

    fn lost(&mut self, source: io::Error) -> DeviceError {
        (self.gone)();
        DeviceError::Host {
            what: "speak with the file server",
            source,
        }
    }
}

impl VirtioDevice for Fs {
    fn kind(&self) -> u32 {
        VIRTIO_ID_FS
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE; QUEUES]
    }

    fn features(&self) -> u64 {
        RING_FEATURES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let known = usize::try_from(offset)
            .ok()
            .and_then(|offset| self.config.get(offset..))
            .unwrap_or_default();
        for (to, from) in data.iter_mut().zip(known) {
            *to = *from;
        }
    }

    fn is_driven_outside(&self) -> bool {
        true
    }

    fn activate(
        &mut self,
        mut activation: Activation,
        watch: &mut Watch<'_>,
    ) -> Result<(), DeviceError> {
        let rings = [activation.ring(0)?, activation.ring(1)?];
        let mut done = self.hand_over(activation.features, &activation.memory);
        for ring in &rings {
            done = done.and_then(|()| self.hand_over_ring(ring));
        }
        match done {
            Ok(()) => self.rings = rings.len(),
            Err(error) => return Err(self.lost(io::Error::other(error.to_string()))),
        }
        watch.add(SERVER, &self.connection, EventSet::READ_HANG_UP)
    }

    fn process(
        &mut self,
        _token: u32,
        _ready: EventSet,
        watch: &mut Watch<'_>,
    ) -> Result<(), DeviceError> {
        watch.forget(SERVER);
        Err(self.lost(io::ErrorKind::ConnectionReset.into()))
    }

    fn reset(&mut self) {
        if self.rings > 0 && self.take_back().is_err() {
            // A server that is gone touches no memory either; and without it the machine has no files.
            (self.gone)();
        }
    }
}
