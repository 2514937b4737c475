//! Moves network interfaces of the host into a workspace, with their names and addresses.
//!
//! The kernel takes an interface's addresses away when it changes its namespace, so they are read before and given
//! back after (runtime-spec `config-linux.md`, "Network devices").

use std::os::fd::AsFd;

use netlink_packet_core::NLM_F_ACK;
use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_core::NLM_F_EXCL;
use netlink_packet_core::NLM_F_REQUEST;
use netlink_packet_core::NetlinkHeader;
use netlink_packet_core::NetlinkMessage;
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::address::AddressHeaderFlags;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::address::AddressScope;
use netlink_packet_route::link::LinkAttribute;
use netlink_packet_route::link::LinkFlags;
use netlink_packet_route::link::LinkMessage;
use netlink_sys::Socket;
use netlink_sys::SocketAddr;
use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::fs::Mode;
use rustix::fs::OFlags;

use crate::backend::BackendError;
use crate::plan::namespaces;
use crate::sys::Errno;
use crate::sys::Result;
use crate::sys::namespace;

/// Moves `name` into the network namespace of `pid`, where it is called `inside`, is up, and has the addresses it had.
pub(super) fn move_in(pid: i32, name: &str, inside: &str) -> std::result::Result<(), BackendError> {
    let failed = |what: &str| BackendError::kernel(format!("linux.netDevices.{name}: {what}"));
    let mut here = Route::open().map_err(failed("open a netlink socket"))?;
    let index = here.index_of(name).map_err(failed("find the interface"))?;
    let addresses = here
        .addresses_of(index)
        .map_err(failed("read its addresses"))?;
    here.send_away(index, pid, inside)
        .map_err(failed(&format!("move it into the container as {inside}")))?;
    let mut there = open_in(pid).map_err(failed("enter the network namespace"))?;
    let index = there
        .index_of(inside)
        .map_err(failed("find it in the container"))?;
    for address in addresses {
        there
            .give(index, address)
            .map_err(failed("give its addresses back"))?;
    }
    there.bring_up(index).map_err(failed("bring it up"))
}

/// A route socket of the network namespace of another process: made there, used from here.
fn open_in(pid: i32) -> Result<Route> {
    let open =
        |path: String| rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let own = open("/proc/self/ns/net".to_owned())?;
    let theirs = open(format!("/proc/{pid}/ns/net"))?;
    namespace::enter(theirs.as_fd(), namespaces::NETWORK)?;
    let socket = Route::open();
    namespace::enter(own.as_fd(), namespaces::NETWORK)?;
    socket
}

/// A conversation with the kernel about links and addresses (`rtnetlink(7)`).
struct Route {
    socket: Socket,
    sequence: u32,
}

impl Route {
    fn open() -> Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(|error| errno_of(&error))?;
        socket.bind_auto().map_err(|error| errno_of(&error))?;
        socket
            .connect(&SocketAddr::new(0, 0))
            .map_err(|error| errno_of(&error))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    fn index_of(&mut self, name: &str) -> Result<u32> {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        let found = self.ask(RouteNetlinkMessage::GetLink(message), NLM_F_ACK)?;
        let mut links = found.into_iter().filter_map(|answer| {
            let RouteNetlinkMessage::NewLink(link) = answer else {
                return None;
            };
            Some(link.header.index)
        });
        links.next_back().ok_or(Errno::NODEV)
    }

    /// The lasting addresses of global scope.
    fn addresses_of(&mut self, index: u32) -> Result<Vec<AddressMessage>> {
        let question = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let found = self.ask(question, NLM_F_DUMP)?;
        let addresses = found.into_iter().filter_map(|answer| {
            let RouteNetlinkMessage::NewAddress(address) = answer else {
                return None;
            };
            Some(address)
        });
        let lasting = |address: &AddressMessage| {
            address.header.index == index
                && address.header.scope == AddressScope::Universe
                && address.header.flags.contains(AddressHeaderFlags::Permanent)
        };
        Ok(addresses.filter(lasting).collect())
    }

    fn send_away(&mut self, index: u32, pid: i32, name: &str) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message
            .attributes
            .push(LinkAttribute::NetNsPid(pid.unsigned_abs()));
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        self.ask(RouteNetlinkMessage::SetLink(message), NLM_F_ACK)
            .map(drop)
    }

    fn give(&mut self, index: u32, mut address: AddressMessage) -> Result<()> {
        address.header.index = index;
        // The label repeats the interface's old name.
        address
            .attributes
            .retain(|attribute| !matches!(attribute, AddressAttribute::Label(_)));
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        match self.ask(RouteNetlinkMessage::NewAddress(address), flags) {
            Err(Errno::EXIST) => Ok(()),
            other => other.map(drop),
        }
    }

    fn bring_up(&mut self, index: u32) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.ask(RouteNetlinkMessage::SetLink(message), NLM_F_ACK)
            .map(drop)
    }

    /// Sends a question and reads until the kernel says that this was all.
    fn ask(
        &mut self,
        question: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(question));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket
            .send(&bytes, 0)
            .map_err(|error| errno_of(&error))?;
        let mut answers = Vec::new();
        loop {
            let (bytes, _) = self
                .socket
                .recv_from_full()
                .map_err(|error| errno_of(&error))?;
            if take_answers(&bytes, &mut answers)? {
                return Ok(answers);
            }
        }
    }
}

/// Takes the messages of one datagram; gives whether it held the end.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "what is no answer, end or error is of no interest here"
)]
fn take_answers(bytes: &[u8], answers: &mut Vec<RouteNetlinkMessage>) -> Result<bool> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let message =
            NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(|_| Errno::BADMSG)?;
        let length = usize::try_from(message.header.length).map_err(|_| Errno::BADMSG)?;
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
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_raw_os_error(error.raw_os_error().unwrap_or(libc::EIO))
}
