//! Everything on the host's side: the socket that clients connect to, the clients, and who of them is whose.
//!
//! A guest opens no streams but one kind: to the port [`HELLO`], by which it says that somebody listens in it. Clients
//! that came before wait for that. What else the guest addresses to a stream that is not there is answered by a reset.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::sync::mpsc;

use rustix::net::Shutdown;
use rustix::net::SocketFlags;
use vm_memory::VolatileSlice;
use vmm_sys_util::epoll::ControlOperation;
use vmm_sys_util::epoll::Epoll;
use vmm_sys_util::epoll::EpollEvent;
use vmm_sys_util::epoll::EventSet;

use crate::backend::microvm::vmm::virtio::vsock::channel::Channel;
use crate::backend::microvm::vmm::virtio::vsock::channel::Request;
use crate::backend::microvm::vmm::virtio::vsock::channel::Stage;
use crate::backend::microvm::vmm::virtio::vsock::connector::Bell;
use crate::backend::microvm::vmm::virtio::vsock::connector::Call;
use crate::backend::microvm::vmm::virtio::vsock::connector::Connector;
use crate::backend::microvm::vmm::virtio::vsock::link::Link;
use crate::backend::microvm::vmm::virtio::vsock::link::Taken;
use crate::backend::microvm::vmm::virtio::vsock::packet::HOST_CID;
use crate::backend::microvm::vmm::virtio::vsock::packet::Header;
use crate::backend::microvm::vmm::virtio::vsock::packet::Op;
use crate::backend::microvm::vmm::virtio::vsock::packet::STREAM;
use crate::sys::Errno;

/// The host's port that a guest connects to when it is ready.
pub const HELLO: u32 = 1;

/// The most clients at once; further ones wait to be accepted.
pub(super) const MOST_CHANNELS: usize = 512;
/// The most resets that wait for a guest to make room for them; the guest does without further ones.
pub(super) const MOST_STRAYS: usize = 128;

/// The host's ends of streams have ports from here to twice that.
const FIRST_PORT: u32 = 1 << 30;
/// How many events are taken at once.
const BATCH: usize = 64;
/// How many times that is done before the guest has its turn: clients who never stop are ready for ever.
const MOST_LOOKS: usize = 8;
/// The marks of what is watched beside clients, which are known by their ports.
const LISTENER: u64 = 0;
const BELL: u64 = 1;

/// The clients of one guest.
#[derive(Debug)]
pub(super) struct Hub {
    cid: u64,
    epoll: Epoll,
    listener: OwnedFd,
    /// The listener has clients that there was no room for.
    behind: bool,
    bell: Bell,
    calls: Option<mpsc::Receiver<Call>>,
    channels: BTreeMap<u32, Channel>,
    next_port: u32,
    /// Those that have something for the guest, in the order of their turns.
    row: VecDeque<u32>,
    strays: VecDeque<Header>,
    heard: bool,
}

impl Hub {
    /// The host's side for the guest `cid`, whose clients connect to `listener`, and how to connect from within.
    ///
    /// # Errors
    ///
    /// Fails as `epoll_create1(2)`, `epoll_ctl(2)` and `eventfd(2)` do.
    pub(super) fn new(cid: u64, listener: OwnedFd) -> io::Result<(Self, Connector)> {
        rustix::io::ioctl_fionbio(&listener, true)?;
        let (connector, bell, calls) = Connector::new()?;
        let hub = Self {
            cid,
            epoll: Epoll::new()?,
            listener,
            behind: false,
            bell,
            calls: Some(calls),
            channels: BTreeMap::new(),
            next_port: FIRST_PORT,
            row: VecDeque::new(),
            strays: VecDeque::new(),
            heard: false,
        };
        let new = EventSet::IN | EventSet::EDGE_TRIGGERED;
        hub.watch(hub.listener.as_raw_fd(), LISTENER, new)?;
        hub.watch(hub.bell.as_raw_fd(), BELL, new)?;
        Ok((hub, connector))
    }

    fn watch(&self, fd: RawFd, mark: u64, what: EventSet) -> io::Result<()> {
        let event = EpollEvent::new(what, mark);
        self.epoll.ctl(ControlOperation::Add, fd, event)
    }

    /// The guest's number.
    #[must_use]
    pub(super) fn cid(&self) -> u64 {
        self.cid
    }

    /// What is ready when a client has done something.
    #[must_use]
    pub(super) fn ready(&self) -> &impl AsRawFd {
        &self.epoll
    }

    /// Looks what clients have done.
    ///
    /// # Errors
    ///
    /// Fails as `epoll_wait(2)` does.
    pub(super) fn look(&mut self) -> io::Result<()> {
        let mut events = [EpollEvent::default(); BATCH];
        for _ in 0..MOST_LOOKS {
            let count = match self.epoll.wait(0, &mut events) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                count => count?,
            };
            for event in events.iter().take(count) {
                match event.data() {
                    LISTENER => self.accept(),
                    BELL => self.answer(),
                    mark => self.wake(mark, event.event_set()),
                }
            }
            if count == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Takes in the clients that wait at the listener.
    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        loop {
            self.behind = self.channels.len() >= MOST_CHANNELS;
            if self.behind {
                return;
            }
            match rustix::net::accept_with(&self.listener, flags) {
                Ok(socket) => self.admit(Channel::greeting, socket),
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    self.behind = true;
                    return;
                }
            }
        }
    }

    /// Takes in the clients from within this process.
    fn answer(&mut self) {
        self.bell.hush();
        while let Some(Ok(call)) = self.calls.as_ref().map(mpsc::Receiver::try_recv) {
            self.admit(|socket| Channel::inside(socket, call.port), call.socket);
        }
    }

    /// Gives a client a port. One whose socket cannot be watched is closed.
    fn admit(&mut self, channel: impl FnOnce(OwnedFd) -> Channel, socket: OwnedFd) {
        let port = self.free_port();
        let what = EventSet::IN | EventSet::OUT | EventSet::EDGE_TRIGGERED;
        if self
            .watch(socket.as_raw_fd(), u64::from(port), what)
            .is_ok()
        {
            self.channels.insert(port, channel(socket));
            self.advance(port);
        }
    }

    fn free_port(&mut self) -> u32 {
        loop {
            let port = self.next_port;
            self.next_port = FIRST_PORT | port.wrapping_add(1);
            if !self.channels.contains_key(&port) {
                return port;
            }
        }
    }

    fn wake(&mut self, mark: u64, ready: EventSet) {
        let Ok(port) = u32::try_from(mark) else {
            return;
        };
        let Some(channel) = self.channels.get_mut(&port) else {
            return;
        };
        let left = ready.intersects(EventSet::HANG_UP | EventSet::ERROR);
        channel.woken(
            ready.contains(EventSet::IN),
            ready.contains(EventSet::OUT),
            left,
        );
        self.advance(port);
        if left && self.stage_is(port, |stage| !matches!(stage, Stage::Linked(_))) {
            self.remove(port);
        }
        self.settle(port);
    }

    fn stage_is(&self, port: u32, is: impl FnOnce(&Stage) -> bool) -> bool {
        self.channels
            .get(&port)
            .is_some_and(|channel| is(&channel.stage))
    }

    /// Takes a client on its way to a stream as far as it can go now.
    fn advance(&mut self, port: u32) {
        let Some(channel) = self.channels.get_mut(&port) else {
            return;
        };
        if matches!(channel.stage, Stage::Greeting) {
            match channel.request() {
                Request::Incomplete => return,
                Request::Wrong => return self.remove(port),
                Request::Port(wanted) => {
                    channel.guest_port = wanted;
                    channel.stage = Stage::Waiting;
                }
            }
        }
        if self.heard && matches!(channel.stage, Stage::Waiting) {
            channel.stage = Stage::Linked(Box::new(Link::asking()));
        }
        self.settle(port);
    }

    /// A packet of the guest's; gives the port of whoever gets the bytes in it.
    pub(super) fn take(&mut self, packet: &Header) -> Option<u32> {
        let port = packet.dst_port;
        if packet.src_cid != self.cid || packet.dst_cid != HOST_CID {
            self.bounce(packet);
            return None;
        }
        let taken = self.link_of(packet).map(|link| link.take(packet));
        match taken {
            None | Some(Taken::Stray) => self.stray(packet),
            Some(Taken::Payload) => return Some(port),
            Some(Taken::Granted) => {
                if let Some(channel) = self.channels.get_mut(&port) {
                    channel.granted(port);
                }
            }
            Some(Taken::Nothing | Taken::Ended | Taken::Over) => {}
        }
        self.settle(port);
        None
    }

    /// The stream that a packet belongs to.
    fn link_of(&mut self, packet: &Header) -> Option<&mut Link> {
        let channel = self.channels.get_mut(&packet.dst_port)?;
        if channel.guest_port != packet.src_port {
            return None;
        }
        channel.link_mut()
    }

    /// Gives a client the bytes of packets that [`Hub::take`] has taken for it.
    pub(super) fn deliver(&mut self, port: u32, slices: &[VolatileSlice<'_>], length: u32) {
        if let Some(channel) = self.channels.get_mut(&port) {
            channel.deliver(slices, length);
        }
        self.settle(port);
    }

    /// A packet whose bytes are not all there: its stream is over.
    pub(super) fn refuse(&mut self, packet: &Header) {
        match self.link_of(packet) {
            Some(link) if !link.is_closed() => link.reset(),
            _ => self.bounce(packet),
        }
        self.settle(packet.dst_port);
    }

    /// A packet of no stream.
    fn stray(&mut self, packet: &Header) {
        let asks = packet.op() == Some(Op::Request) && packet.kind == STREAM;
        if asks && packet.dst_port == HELLO && !self.channels.contains_key(&HELLO) {
            self.hello(packet);
        } else {
            self.bounce(packet);
        }
    }

    /// The guest is ready: those who wait are linked, in the order in which they came.
    fn hello(&mut self, packet: &Header) {
        let link = Link::granting(packet);
        self.channels
            .insert(HELLO, Channel::nobody(packet.src_port, link));
        self.settle(HELLO);
        self.heard = true;
        let waiting = |(_, channel): &(&u32, &Channel)| matches!(channel.stage, Stage::Waiting);
        let ports: Vec<u32> = self
            .channels
            .iter()
            .filter(waiting)
            .map(|(port, _)| *port)
            .collect();
        for port in ports {
            self.advance(port);
        }
    }

    /// Answers a packet by a reset, unless it is one itself.
    fn bounce(&mut self, packet: &Header) {
        if packet.op() == Some(Op::Reset) || self.strays.len() >= MOST_STRAYS {
            return;
        }
        self.strays.push_back(Header {
            src_cid: packet.dst_cid,
            dst_cid: self.cid,
            src_port: packet.dst_port,
            dst_port: packet.src_port,
            kind: packet.kind,
            op: Op::Reset.number(),
            ..Header::default()
        });
    }

    /// Puts a client where it belongs after something has happened to it: in the row, or away.
    pub(super) fn settle(&mut self, port: u32) {
        let Some(channel) = self.channels.get_mut(&port) else {
            return;
        };
        channel.settle();
        if channel.is_done() {
            self.remove(port);
        } else if channel.has_something() && !channel.queued {
            channel.queued = true;
            self.row.push_back(port);
        }
    }

    fn remove(&mut self, port: u32) {
        if let Some(channel) = self.channels.remove(&port) {
            channel.close();
        }
        if self.behind {
            self.accept();
        }
    }

    /// Whether there is something for the guest.
    #[must_use]
    pub(super) fn has_something(&self) -> bool {
        !self.strays.is_empty() || !self.row.is_empty()
    }

    /// Whether there are answers to packets of no stream.
    #[must_use]
    pub(super) fn has_strays(&self) -> bool {
        !self.strays.is_empty()
    }

    /// Takes the next answer to a packet of no stream.
    pub(super) fn next_stray(&mut self) -> Option<Header> {
        self.strays.pop_front()
    }

    /// Takes the next in the row. It is put back by [`Hub::settle`] when it has more.
    pub(super) fn next_in_row(&mut self) -> Option<(u32, &mut Channel)> {
        while let Some(port) = self.row.pop_front() {
            // One that has left since is not there any more.
            if self.channels.contains_key(&port) {
                let channel = self.channels.get_mut(&port)?;
                channel.queued = false;
                return Some((port, channel));
            }
        }
        None
    }

    /// The driver is gone, and with it every stream. Clients that had none yet wait for the next.
    pub(super) fn driver_gone(&mut self) {
        self.heard = false;
        self.row.clear();
        self.strays.clear();
        for (port, mut channel) in std::mem::take(&mut self.channels) {
            if channel.link().is_some() {
                channel.abandon();
            } else {
                channel.queued = false;
                self.channels.insert(port, channel);
            }
        }
    }

    /// Closes everything: no client is to wait for a guest that nobody serves.
    pub(super) fn shut(&mut self) {
        self.calls = None;
        for (_, channel) in std::mem::take(&mut self.channels) {
            channel.abandon();
        }
        self.row.clear();
        self.strays.clear();
        // A listener that is shut refuses; who is in its queue already is let go.
        rustix::net::shutdown(&self.listener, Shutdown::Both).ok();
        while rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC).is_ok() {}
    }
}
