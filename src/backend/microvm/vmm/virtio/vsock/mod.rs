//! The socket device: streams between programs on the host and ports in the guest, without a network.
//!
//! On the host there is one listening unix socket. A client says `CONNECT PORT` and a line feed, and hears `OK N` when
//! somebody in the guest listens at that port; otherwise its connection is closed. Then the connection is the stream: bytes
//! in order, none lost, each direction with an end of its own. A client waits until the guest has said that it is ready,
//! which it does by a connection to port 1 of the host; that is the only one that a guest can make.
//!
//! Nothing is held here but what a client does not take, at most [`ROOM`] bytes for each; a guest whose client takes
//! nothing has to wait, and so has a client whose guest takes nothing. What a guest sends that no guest sends ends the
//! stream it was sent for, or, when its very buffers cannot be, all of them.

mod channel;
mod connector;
mod hub;
mod link;
mod packet;
mod pump;
mod spill;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::OwnedFd;

use virtio_bindings::virtio_ids::VIRTIO_ID_VSOCK;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EFD_CLOEXEC;
use vmm_sys_util::eventfd::EFD_NONBLOCK;
use vmm_sys_util::eventfd::EventFd;

use crate::backend::microvm::vmm::virtio::Activation;
use crate::backend::microvm::vmm::virtio::DeviceError;
use crate::backend::microvm::vmm::virtio::RING_FEATURES;
use crate::backend::microvm::vmm::virtio::Ring;
use crate::backend::microvm::vmm::virtio::VirtioDevice;
use crate::backend::microvm::vmm::virtio::Watch;
use crate::backend::microvm::vmm::virtio::vsock::hub::Hub;
use crate::backend::microvm::vmm::virtio::vsock::pump::Left;

pub use connector::Connector;
pub use hub::HELLO;
pub use link::ROOM;

/// What the guest receives by, what it sends by, and what it would be told by that its streams are gone.
const QUEUES: [u16; 3] = [256, 256, 16];
/// The queues' numbers.
const RECEIVE: usize = 0;
const SEND: usize = 1;
/// What the kick of [`SEND`] is watched under.
const SENT: u32 = 1;
/// What is watched beside the queues.
const CLIENTS: u32 = 16;
const AGAIN: u32 = 17;

/// The socket device of a machine.
#[derive(Debug)]
pub struct Vsock {
    hub: Hub,
    /// Wakes the device for what it had no time for.
    again: EventFd,
    rings: Option<Rings>,
}

#[derive(Debug)]
struct Rings {
    receive: Ring,
    send: Ring,
    /// The guest has sent more than there was time for.
    behind: bool,
}

impl Vsock {
    /// The device of the guest `cid`, with the unix socket that clients connect to, and how to connect from within.
    ///
    /// # Errors
    ///
    /// Fails as `epoll_create1(2)`, `epoll_ctl(2)` and `eventfd(2)` do.
    pub fn new(cid: u64, listener: OwnedFd) -> io::Result<(Self, Connector)> {
        let (hub, connector) = Hub::new(cid, listener)?;
        let device = Self {
            hub,
            again: EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?,
            rings: None,
        };
        Ok((device, connector))
    }

    fn work(&mut self, token: u32) -> Result<(), DeviceError> {
        if token == CLIENTS {
            let looked = self.hub.look();
            looked.map_err(DeviceError::host("look at the clients"))?;
        }
        let Some(rings) = &mut self.rings else {
            return Ok(());
        };
        let mut left = Left::Nothing;
        if token == SENT || rings.behind {
            left = pump::take(&mut self.hub, &mut rings.send)?;
            rings.behind = left == Left::More;
        }
        let given = pump::give(&mut self.hub, &mut rings.receive)?;
        if left == Left::More || given == Left::More {
            // It fails only when the counter is full: then the device is woken.
            self.again.write(1).ok();
        }
        Ok(())
    }
}

impl VirtioDevice for Vsock {
    fn kind(&self) -> u32 {
        VIRTIO_ID_VSOCK
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUES
    }

    fn features(&self) -> u64 {
        RING_FEATURES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let cid = self.hub.cid().to_le_bytes();
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = cid.get(from..).unwrap_or_default();
        for (place, byte) in data.iter_mut().zip(bytes) {
            *place = *byte;
        }
    }

    fn activate(
        &mut self,
        mut activation: Activation,
        watch: &mut Watch<'_>,
    ) -> Result<(), DeviceError> {
        let rings = Rings {
            receive: activation.ring(RECEIVE)?,
            send: activation.ring(SEND)?,
            behind: false,
        };
        watch.ring(&rings.receive)?;
        watch.ring(&rings.send)?;
        watch.add(CLIENTS, self.hub.ready(), EventSet::IN)?;
        let again = EventSet::IN | EventSet::EDGE_TRIGGERED;
        watch.add(AGAIN, &self.again, again)?;
        self.rings = Some(rings);
        Ok(())
    }

    fn process(
        &mut self,
        token: u32,
        _ready: EventSet,
        _watch: &mut Watch<'_>,
    ) -> Result<(), DeviceError> {
        let worked = self.work(token);
        if worked.is_err() {
            self.hub.shut();
        }
        worked
    }

    fn reset(&mut self) {
        self.rings = None;
        self.hub.driver_gone();
    }
}
