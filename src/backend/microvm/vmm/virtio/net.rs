//! A network interface: frames go between the guest's buffers and a tap, without a copy in this process.
//!
//! The tap speaks the same head before each frame as virtio does (`IFF_VNET_HDR`, 12 bytes), so what one side leaves
//! undone, checksums and the cutting of large segments, is done by the other or by the network card.

mod outside;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::VIRTIO_NET_F_CSUM;
use virtio_bindings::virtio_net::VIRTIO_NET_F_GUEST_CSUM;
use virtio_bindings::virtio_net::VIRTIO_NET_F_GUEST_ECN;
use virtio_bindings::virtio_net::VIRTIO_NET_F_GUEST_TSO4;
use virtio_bindings::virtio_net::VIRTIO_NET_F_GUEST_TSO6;
use virtio_bindings::virtio_net::VIRTIO_NET_F_HOST_ECN;
use virtio_bindings::virtio_net::VIRTIO_NET_F_HOST_TSO4;
use virtio_bindings::virtio_net::VIRTIO_NET_F_HOST_TSO6;
use virtio_bindings::virtio_net::VIRTIO_NET_F_MAC;
use virtio_bindings::virtio_net::VIRTIO_NET_F_MRG_RXBUF;
use virtio_bindings::virtio_net::VIRTIO_NET_F_MTU;
use virtio_bindings::virtio_net::VIRTIO_NET_F_STATUS;
use virtio_bindings::virtio_net::VIRTIO_NET_S_LINK_UP;
use vmm_sys_util::epoll::EventSet;

use crate::backend::microvm::vmm::config::Limit;
use crate::backend::microvm::vmm::virtio::Memory;
use crate::backend::microvm::vmm::virtio::chain::Chain;
use crate::backend::microvm::vmm::virtio::device::Activation;
use crate::backend::microvm::vmm::virtio::device::DeviceError;
use crate::backend::microvm::vmm::virtio::device::RING_FEATURES;
use crate::backend::microvm::vmm::virtio::device::VirtioDevice;
use crate::backend::microvm::vmm::virtio::device::read_bytes;
use crate::backend::microvm::vmm::virtio::event_loop::Watch;
use crate::backend::microvm::vmm::virtio::interrupt::Interrupt;
use crate::backend::microvm::vmm::virtio::limiter::Throttle;
use crate::backend::microvm::vmm::virtio::net::outside::Outside;
use crate::backend::microvm::vmm::virtio::ring::Ring;
use crate::sys::Errno;
use crate::sys::scatter;
use crate::sys::tap;
use crate::sys::tap::Offloads;

/// How many descriptors each queue has.
const ENTRIES: u16 = 256;
/// The queues.
const RECEIVE: usize = 0;
const SEND: usize = 1;
/// Tokens beyond those of the rings.
const TAP: u32 = 0x100;
const MAY_RECEIVE: u32 = 0x101;
const MAY_SEND: u32 = 0x102;
/// The head before each frame.
const HEAD: usize = tap::HEAD;
/// Where in the head the number of buffers is.
const BUFFERS: usize = 10;
/// An Ethernet header, with a tag.
const FRAME: usize = 18;
/// The shortest frame that means anything, and the longest: a segment of 64 KiB with its headers.
const SHORTEST: usize = HEAD + 14;
const LONGEST: usize = HEAD + 65_536 + FRAME;
/// The packet size of Ethernet.
const USUAL_MTU: u16 = 1500;
/// As many pieces as `readv(2)` takes.
const PIECES: usize = 1024;
/// How many frames go one way before others have their turn.
const TURN: usize = 2 * ENTRIES as usize;

/// What there is to say about an interface besides its frames.
#[derive(Debug, Clone, Copy, Default)]
pub struct NetOptions {
    /// Its address.
    pub mac: [u8; 6],
    /// The largest packet; 0 is the usual 1500.
    pub mtu: u16,
    /// How much may come in.
    pub receive: Option<Limit>,
    /// How much may go out.
    pub send: Option<Limit>,
}

/// A network interface.
#[derive(Debug)]
pub struct Net {
    tap: File,
    mac: [u8; 6],
    mtu: u16,
    up: bool,
    receive: Throttle,
    send: Throttle,
    outside: Option<Outside>,
    active: Option<Active>,
}

#[derive(Debug)]
struct Active {
    memory: Memory,
    interrupt: Interrupt,
    receive: Ring,
    send: Ring,
    /// Whether a frame may be spread over several requests.
    mergeable: bool,
    /// The longest frame that may come, its head included.
    longest: usize,
    /// Requests that wait for frames, and how many bytes they have room for.
    stock: VecDeque<Chain>,
    room: usize,
}

impl Net {
    /// An interface on a tap, which must be one with heads (`IFF_VNET_HDR`).
    ///
    /// # Errors
    ///
    /// Fails as the calls that set a tap up do, and as `timerfd_create(2)`.
    pub fn new(tap: OwnedFd, options: &NetOptions) -> io::Result<Self> {
        tap::set_head(&tap)?;
        rustix::io::ioctl_fionbio(&tap, true)?;
        Ok(Self {
            tap: File::from(tap),
            mac: options.mac,
            mtu: options.mtu,
            up: true,
            receive: Throttle::new(options.receive)?,
            send: Throttle::new(options.send)?,
            outside: None,
            active: None,
        })
    }

    /// Lets the kernel move the frames, by an open `/dev/vhost-net`, unless there is a limit to be kept: it keeps none.
    ///
    /// # Errors
    ///
    /// Fails as `VHOST_SET_OWNER` does.
    pub fn by_kernel(mut self, vhost: OwnedFd) -> io::Result<Self> {
        if !self.receive.is_limited() && !self.send.is_limited() {
            self.outside = Some(Outside::new(vhost)?);
        }
        Ok(self)
    }

    /// Brings frames to the guest.
    fn bring(&mut self, active: &mut Active, watch: &mut Watch<'_>) -> Result<(), DeviceError> {
        for _ in 0..TURN {
            if !self.up || !self.receive.passes()? || !active.stock_up()? {
                return Ok(active.receive.notify()?);
            }
            match active.take_frame(&self.tap)? {
                Ok(length) => {
                    self.receive.charge((length - HEAD) as u64);
                }
                Err(Errno::AGAIN) => return Ok(active.receive.notify()?),
                Err(Errno::INTR) => {}
                Err(_) => {
                    // The tap is gone, and will not come back.
                    self.up = false;
                    watch.forget(TAP);
                    active.interrupt.config_changed();
                }
            }
        }
        active.receive.again();
        Ok(active.receive.notify()?)
    }

    /// Takes frames from the guest.
    fn take(&mut self, active: &mut Active) -> Result<(), DeviceError> {
        active.send.mute()?;
        for _ in 0..TURN {
            if !self.send.passes()? {
                return Ok(active.send.notify()?);
            }
            let Some(chain) = active.send.next_request()? else {
                return Ok(active.send.notify()?);
            };
            let length = active.give_frame(&self.tap, &chain)?;
            self.send.charge(length as u64);
            active.send.push(chain.head(), 0)?;
        }
        active.send.again();
        Ok(active.send.notify()?)
    }

    fn process_for(
        &mut self,
        active: &mut Active,
        token: u32,
        watch: &mut Watch<'_>,
    ) -> Result<(), DeviceError> {
        let send = token == MAY_SEND || usize::try_from(token) == Ok(SEND);
        if send {
            self.take(active)
        } else {
            self.bring(active, watch)
        }
    }
}

impl Active {
    /// Takes requests until the longest frame has room; gives whether it has.
    fn stock_up(&mut self) -> Result<bool, DeviceError> {
        while self.room < self.longest && (self.mergeable || self.stock.is_empty()) {
            let Some(chain) = self.receive.next_request()? else {
                return Ok(false);
            };
            let room = chain.writer(&self.memory).left();
            if room <= HEAD || !self.mergeable && room < self.longest {
                return Err(DeviceError::Request("too little room for a frame"));
            }
            self.room += room;
            self.stock.push_back(chain);
        }
        Ok(true)
    }

    /// Reads a frame into the requests that are in stock, and answers those that it takes.
    fn take_frame(&mut self, tap: &File) -> Result<Result<usize, Errno>, DeviceError> {
        let mut slices = Vec::new();
        let mut room = 0;
        // A frame that does not fit into the pieces of one call is cut off: nobody but the driver made them so small.
        for chain in &self.stock {
            let mut writer = chain.writer(&self.memory);
            while let Some(slice) = writer.next_slice(usize::MAX)? {
                room += slice.len();
                slices.push(slice);
            }
            if room >= self.longest || slices.len() > PIECES {
                break;
            }
        }
        slices.truncate(PIECES);
        let length = match scatter::receive(tap, &slices) {
            Ok(length) if length > HEAD => length,
            Ok(_) => return Ok(Err(Errno::INTR)),
            Err(errno) => return Ok(Err(errno)),
        };
        drop(slices);
        self.answer(length)?;
        Ok(Ok(length))
    }

    fn answer(&mut self, length: usize) -> Result<(), DeviceError> {
        let mut left = length;
        let mut taken = Vec::new();
        while left > 0 {
            let Some(chain) = self.stock.pop_front() else {
                break;
            };
            let room = chain.writer(&self.memory).left();
            let used = left.min(room);
            self.room = self.room.saturating_sub(room);
            left -= used;
            taken.push((chain, u32::try_from(used).unwrap_or(u32::MAX)));
        }
        if let Some((first, _)) = taken.first() {
            let mut head = first.writer(&self.memory);
            head.skip(BUFFERS)?;
            let count = u16::try_from(taken.len()).unwrap_or(u16::MAX);
            head.write(&count.to_le_bytes())?;
        }
        for (chain, used) in taken {
            self.receive.push(chain.head(), used)?;
        }
        Ok(())
    }

    /// Sends what a request holds, if it can be a frame; gives its length without the head. What the kernel does not
    /// take is lost, as on any wire.
    fn give_frame(&self, tap: &File, chain: &Chain) -> Result<usize, DeviceError> {
        let mut reader = chain.reader(&self.memory);
        let length = reader.left();
        if !(SHORTEST..=LONGEST).contains(&length) {
            return Ok(0);
        }
        let slices = reader.slices(length)?;
        scatter::send(tap, &slices).ok();
        Ok(length - HEAD)
    }
}

impl VirtioDevice for Net {
    fn kind(&self) -> u32 {
        VIRTIO_ID_NET
    }

    fn queue_sizes(&self) -> &[u16] {
        &[ENTRIES, ENTRIES]
    }

    fn features(&self) -> u64 {
        let bits = [
            VIRTIO_NET_F_CSUM,
            VIRTIO_NET_F_GUEST_CSUM,
            VIRTIO_NET_F_MAC,
            VIRTIO_NET_F_GUEST_TSO4,
            VIRTIO_NET_F_GUEST_TSO6,
            VIRTIO_NET_F_GUEST_ECN,
            VIRTIO_NET_F_HOST_TSO4,
            VIRTIO_NET_F_HOST_TSO6,
            VIRTIO_NET_F_HOST_ECN,
            VIRTIO_NET_F_MRG_RXBUF,
            VIRTIO_NET_F_STATUS,
        ];
        let mtu = u64::from(self.mtu != 0) << VIRTIO_NET_F_MTU;
        let all = bits
            .iter()
            .fold(RING_FEATURES | mtu, |all, bit| all | (1 << bit));
        let outside = self.outside.as_ref();
        outside.map_or(all, |outside| {
            outside.features(all, 1 << VIRTIO_NET_F_MRG_RXBUF)
        })
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut config = [0; 12];
        let status = if self.up { VIRTIO_NET_S_LINK_UP } else { 0 };
        let [low, ..] = status.to_le_bytes();
        config[..6].copy_from_slice(&self.mac);
        config[6] = low;
        config[10..].copy_from_slice(&self.mtu.to_le_bytes());
        read_bytes(&config, offset, data);
    }

    fn is_driven_outside(&self) -> bool {
        self.outside.is_some()
    }

    fn activate(
        &mut self,
        mut activation: Activation,
        watch: &mut Watch<'_>,
    ) -> Result<(), DeviceError> {
        let offloads = Offloads {
            checksum: activation.has(VIRTIO_NET_F_GUEST_CSUM),
            tso4: activation.has(VIRTIO_NET_F_GUEST_TSO4),
            tso6: activation.has(VIRTIO_NET_F_GUEST_TSO6),
            ecn: activation.has(VIRTIO_NET_F_GUEST_ECN),
        };
        let set = tap::set_offloads(&self.tap, offloads);
        set.map_err(DeviceError::host("set the offloads of the tap"))?;
        if let Some(outside) = &mut self.outside {
            let rings = vec![activation.ring(RECEIVE)?, activation.ring(SEND)?];
            let started = outside.start(activation.features, activation.memory, rings, &self.tap);
            return started.map_err(DeviceError::host("hand the rings to the kernel"));
        }
        let mtu = if self.mtu == 0 { USUAL_MTU } else { self.mtu };
        let active = Active {
            receive: activation.ring(RECEIVE)?,
            send: activation.ring(SEND)?,
            mergeable: activation.has(VIRTIO_NET_F_MRG_RXBUF),
            longest: if offloads.tso4 || offloads.tso6 {
                LONGEST
            } else {
                HEAD + FRAME + usize::from(mtu)
            },
            memory: activation.memory,
            interrupt: activation.interrupt,
            stock: VecDeque::new(),
            room: 0,
        };
        watch.ring(&active.receive)?;
        watch.ring(&active.send)?;
        watch.add(TAP, &self.tap, EventSet::IN | EventSet::EDGE_TRIGGERED)?;
        self.receive.watch(watch, MAY_RECEIVE)?;
        self.send.watch(watch, MAY_SEND)?;
        self.active = Some(active);
        Ok(())
    }

    fn process(
        &mut self,
        token: u32,
        _: EventSet,
        watch: &mut Watch<'_>,
    ) -> Result<(), DeviceError> {
        let Some(mut active) = self.active.take() else {
            return Ok(());
        };
        let done = self.process_for(&mut active, token, watch);
        self.active = Some(active);
        done
    }

    fn reset(&mut self) {
        self.active = None;
        let stopped = self.outside.as_mut().map(Outside::stop);
        if let Some(Err(_)) = stopped {
            // The kernel may go on as long as the descriptor is there.
            self.outside = None;
        }
    }
}
