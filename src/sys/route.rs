//! A conversation with the kernel about links, addresses, routes and queues (`rtnetlink(7)`), in the network namespace
//! of this process or of another.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;

use netlink_packet_core::NLM_F_ACK;
use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_core::NLM_F_REQUEST;
use netlink_packet_core::NetlinkHeader;
use netlink_packet_core::NetlinkMessage;
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkAttribute;
use netlink_packet_route::link::LinkMessage;
use netlink_sys::Socket;
use netlink_sys::SocketAddr;
use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::buffer::spare_capacity;
use rustix::net::RecvFlags;

use crate::sys::Errno;
use crate::sys::Result;
use crate::sys::namespace;

/// Bytes that one datagram of the kernel may have: lists come in pieces of 32 KiB (`netlink_dump`), and what is said of one
/// interface is far less.
pub(super) const ROOM: usize = 64 << 10;

/// One socket; questions are answered in their order.
#[derive(Debug)]
pub struct Route {
    socket: Socket,
    sequence: u32,
    /// What was heard last.
    heard: Vec<u8>,
}

/// Which of several orders the kernel refused, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Its place among those that were sent together.
    pub index: usize,
    /// The kernel's reason.
    pub errno: Errno,
}

/// Does `work` in another network namespace.
///
/// # Errors
///
/// Fails as `setns(2)` does; what `work` gives is inside.
pub fn within<T>(network: BorrowedFd<'_>, work: impl FnOnce() -> T) -> Result<T> {
    let go = || namespace::enter(network, namespace::NETWORK);
    namespace::in_other_network(go, work)
}

impl Route {
    /// A socket of this process's network namespace; it stays there when the process leaves.
    ///
    /// # Errors
    ///
    /// Fails as `socket(2)` does.
    pub fn open() -> Result<Self> {
        Ok(Self {
            socket: connected()?,
            sequence: 0,
            heard: Vec::with_capacity(ROOM),
        })
    }

    /// A socket of the network namespace of another process: made there, used from here.
    ///
    /// # Errors
    ///
    /// Fails as [`within`] and [`Route::open`] do.
    pub fn open_in(pid: i32) -> Result<Self> {
        within(namespace::network_of(pid)?.as_fd(), Self::open)?
    }

    /// The interface of this name, with all that the kernel says about it.
    ///
    /// # Errors
    ///
    /// `ENODEV` when there is none.
    pub fn link(&mut self, name: &str) -> Result<LinkMessage> {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        self.one_link(message)
    }

    fn one_link(&mut self, message: LinkMessage) -> Result<LinkMessage> {
        let found = self.ask(RouteNetlinkMessage::GetLink(message))?;
        let mut links = found.into_iter().filter_map(|answer| {
            let RouteNetlinkMessage::NewLink(link) = answer else {
                return None;
            };
            Some(link)
        });
        links.next_back().ok_or(Errno::NODEV)
    }

    /// The interface of this number, with all that the kernel says about it.
    ///
    /// # Errors
    ///
    /// `ENODEV` when there is none.
    pub fn link_at(&mut self, index: u32) -> Result<LinkMessage> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.one_link(message)
    }

    /// The number of the interface of this name (`SIOCGIFINDEX`, `netdevice(7)`): unlike [`Route::link`] it waits for nobody
    /// who changes networks.
    ///
    /// # Errors
    ///
    /// `ENODEV` when there is none.
    pub fn index_of(&self, name: &str) -> Result<u32> {
        rustix::net::netdevice::name_to_index(&self.socket, name)
    }

    /// Asks about one thing.
    ///
    /// # Errors
    ///
    /// The kernel's reason.
    pub fn ask(&mut self, question: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>> {
        self.talk(question, NLM_F_ACK)
    }

    /// Asks for everything of a kind.
    ///
    /// # Errors
    ///
    /// The kernel's reason.
    pub fn list(&mut self, question: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>> {
        self.talk(question, NLM_F_DUMP)
    }

    /// Gives one order; `flags` say whether something is made or replaced.
    ///
    /// # Errors
    ///
    /// The kernel's reason.
    pub fn tell(&mut self, order: RouteNetlinkMessage, flags: u16) -> Result<()> {
        self.talk(order, NLM_F_ACK | flags).map(drop)
    }

    /// Gives several orders in one call; those after one that was refused are carried out too.
    ///
    /// # Errors
    ///
    /// [`Refused`] tells of the first that was refused.
    pub fn tell_all(
        &mut self,
        orders: Vec<(RouteNetlinkMessage, u16)>,
    ) -> std::result::Result<(), Refused> {
        let count = orders.len();
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        for (order, flags) in orders {
            let start = bytes.len();
            let message = self.numbered(order, NLM_F_ACK | flags);
            bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
            message.serialize(&mut bytes[start..]);
        }
        self.send(&bytes)
            .map_err(|errno| Refused { index: 0, errno })?;
        let mut refused = None;
        for index in 0..count {
            let number = first.wrapping_add(u32::try_from(index).unwrap_or_default());
            let answered = self.hear(number, &mut Vec::new());
            if let (Err(errno), None) = (answered, refused) {
                refused = Some(Refused { index, errno });
            }
        }
        refused.map_or(Ok(()), Err)
    }

    fn talk(&mut self, order: RouteNetlinkMessage, flags: u16) -> Result<Vec<RouteNetlinkMessage>> {
        let message = self.numbered(order, flags);
        let number = self.sequence;
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.send(&bytes)?;
        let mut answers = Vec::new();
        self.hear(number, &mut answers)?;
        Ok(answers)
    }

    fn numbered(
        &mut self,
        order: RouteNetlinkMessage,
        flags: u16,
    ) -> NetlinkMessage<RouteNetlinkMessage> {
        self.sequence = self.sequence.wrapping_add(1);
        numbered(order, flags, self.sequence)
    }

    fn send(&self, bytes: &[u8]) -> Result<()> {
        let sent = self.socket.send(bytes, 0);
        sent.map(drop).map_err(|error| errno_of(&error))
    }

    /// Reads until the kernel says that the answer to question `number` is complete.
    fn hear(&mut self, number: u32, answers: &mut Vec<RouteNetlinkMessage>) -> Result<()> {
        loop {
            receive(&self.socket, &mut self.heard)?;
            if take_answers(&self.heard, number, answers)? {
                return Ok(());
            }
        }
    }
}

/// Receives one datagram in place of what `buffer` holds.
///
/// # Errors
///
/// Fails as `recv(2)` does; `EMSGSIZE` when there is not enough room for it.
pub(super) fn receive(socket: &Socket, buffer: &mut Vec<u8>) -> Result<()> {
    buffer.clear();
    let (_, length) = rustix::net::recv(socket, spare_capacity(buffer), RecvFlags::TRUNC)?;
    if length > buffer.len() {
        return Err(Errno::MSGSIZE);
    }
    Ok(())
}

/// A socket to the kernel, to send whole messages by.
pub(super) fn connected() -> Result<Socket> {
    let connected = || {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(socket)
    };
    connected().map_err(|error| errno_of(&error))
}

/// One order that wants an answer, as it is sent.
pub(super) fn bytes_of(order: RouteNetlinkMessage) -> Vec<u8> {
    let message = numbered(order, NLM_F_ACK, 1);
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn numbered(
    order: RouteNetlinkMessage,
    flags: u16,
    sequence: u32,
) -> NetlinkMessage<RouteNetlinkMessage> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(order));
    message.finalize();
    message
}

/// Takes the messages of one datagram; gives whether it held the end.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "what is no answer, end or error is of no interest here"
)]
fn take_answers(bytes: &[u8], number: u32, answers: &mut Vec<RouteNetlinkMessage>) -> Result<bool> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let message =
            NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(|_| Errno::BADMSG)?;
        let length = usize::try_from(message.header.length).map_err(|_| Errno::BADMSG)?;
        if message.header.sequence_number == number {
            match message.payload {
                NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                NetlinkPayload::Done(_) => return Ok(true),
                NetlinkPayload::Error(error) => {
                    return match error.code {
                        None => Ok(true),
                        Some(code) => Err(Errno::from_raw_os_error(code.get().abs())),
                    };
                }
                _ => {}
            }
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

pub(super) fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_raw_os_error(error.raw_os_error().unwrap_or(libc::EIO))
}
