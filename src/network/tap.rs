//! Leads what arrives at a namespace's interfaces into a machine, and what the machine sends out of them.
//!
//! Whoever made the network namespace (this runtime, podman, CNI) has given its interfaces addresses and routes. Each of
//! them is joined to a tap by `tc`: frames go from one to the other without being looked at, and the guest takes on the
//! interface's name, hardware address, packet size, addresses and routes. Nothing of the interface itself is changed, so
//! it is found as it was when the machine has gone; the tap goes with its descriptor.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::address::AddressScope;
use netlink_packet_route::link::LinkAttribute;
use netlink_packet_route::link::LinkFlags;
use netlink_packet_route::link::LinkLayerType;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::route::RouteAddress;
use netlink_packet_route::route::RouteAttribute;
use netlink_packet_route::route::RouteHeader;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::route::RouteType;
use netlink_packet_route::tc::TcHandle;

use crate::network::error::NetworkError;
use crate::network::shape;
use crate::sys::Errno;
use crate::sys::interface;
use crate::sys::interface::NEW;
use crate::sys::route::Route;
use crate::sys::tap;

/// What the names of taps begin with.
pub const NAME: &str = "machine";
/// Where frames arrive (`TC_H_MIN_INGRESS`).
const ARRIVING: TcHandle = TcHandle {
    major: u16::MAX,
    minor: 0xfff2,
};

type Result<T, E = NetworkError> = std::result::Result<T, E>;

/// An interface that a guest takes on, and the tap that leads to it.
#[derive(Debug)]
pub struct Carried {
    /// What it is called.
    pub name: String,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// Its largest packet.
    pub mtu: u32,
    /// Its addresses, each with the length of its network.
    pub addresses: Vec<IpNet>,
    /// The routes through it, those that follow from its addresses aside; what is on the link comes first.
    pub routes: Vec<Way>,
    /// The tap, up, for the machine.
    pub tap: OwnedFd,
}

/// A route through an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// To where; a length of 0 is the default.
    pub to: IpNet,
    /// Through which neighbour; none means that the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The address that packets are sent from, where that is said.
    pub source: Option<IpAddr>,
    /// Smaller is preferred; 0 is the kernel's own choice.
    pub metric: u32,
}

/// Joins every interface of this process's network namespace to a tap of its own; loopback and tunnels are left alone.
///
/// # Errors
///
/// [`NetworkError`] with what the kernel refused.
pub fn carry_over() -> Result<Vec<Carried>> {
    let mut route = Route::open().map_err(NetworkError::kernel("ask about the network"))?;
    let links = list(
        &mut route,
        RouteNetlinkMessage::GetLink(LinkMessage::default()),
    )?;
    let found: Vec<Interface> = links.iter().filter_map(Interface::of).collect();
    let addresses = of_both(&mut route, |family| {
        let mut question = AddressMessage::default();
        question.header.family = family;
        RouteNetlinkMessage::GetAddress(question)
    })?;
    let routes = of_both(&mut route, |family| {
        let mut question = RouteMessage::default();
        question.header.address_family = family;
        RouteNetlinkMessage::GetRoute(question)
    })?;
    let carried = found.into_iter().enumerate().map(|(number, interface)| {
        let tap = join(&mut route, &interface, number)?;
        let mut ways: Vec<Way> = routes
            .iter()
            .filter_map(|answer| way(answer, interface.index))
            .collect();
        ways.sort_by_key(|way| way.gateway.is_some());
        Ok(Carried {
            addresses: addresses
                .iter()
                .filter_map(|answer| address(answer, interface.index))
                .collect(),
            routes: ways,
            name: interface.name,
            mac: interface.mac,
            mtu: interface.mtu,
            tap,
        })
    });
    carried.collect()
}

fn list(route: &mut Route, question: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>> {
    match route.list(question) {
        // Without IPv6 nobody knows anything of it.
        Err(Errno::OPNOTSUPP | Errno::AFNOSUPPORT) => Ok(Vec::new()),
        answers => answers.map_err(NetworkError::kernel("ask about the network")),
    }
}

fn of_both(
    route: &mut Route,
    question: impl Fn(AddressFamily) -> RouteNetlinkMessage,
) -> Result<Vec<RouteNetlinkMessage>> {
    let mut found = list(route, question(AddressFamily::Inet))?;
    found.extend(list(route, question(AddressFamily::Inet6))?);
    Ok(found)
}

/// An interface with a wire behind it.
struct Interface {
    index: u32,
    name: String,
    mac: [u8; 6],
    mtu: u32,
}

impl Interface {
    fn of(answer: &RouteNetlinkMessage) -> Option<Self> {
        let RouteNetlinkMessage::NewLink(link) = answer else {
            return None;
        };
        let ether = link.header.link_layer_type == LinkLayerType::Ether;
        if !ether || !link.header.flags.contains(LinkFlags::Up) {
            return None;
        }
        let mut interface = Self {
            index: link.header.index,
            name: String::new(),
            mac: [0; 6],
            mtu: 0,
        };
        for attribute in &link.attributes {
            if let LinkAttribute::IfName(name) = attribute {
                interface.name.clone_from(name);
            }
            if let LinkAttribute::Address(mac) = attribute {
                interface.mac = mac.as_slice().try_into().ok()?;
            }
            if let LinkAttribute::Mtu(mtu) = attribute {
                interface.mtu = *mtu;
            }
        }
        Some(interface)
    }
}

/// Makes the tap of an interface and leads each into the other.
fn join(route: &mut Route, interface: &Interface, number: usize) -> Result<OwnedFd> {
    let name = format!("{NAME}{number}");
    let failed = |what: &str| NetworkError::kernel(format!("{what} for {}", interface.name));
    let tap = tap::open(&name).map_err(failed("make a tap"))?;
    let index = route.index_of(&name).map_err(failed("find the tap"))?;
    let mut up = interface::raised(index);
    up.attributes.push(LinkAttribute::Mtu(interface.mtu));
    let mut orders = vec![(RouteNetlinkMessage::SetLink(up), 0)];
    for (from, to) in [(interface.index, index), (index, interface.index)] {
        orders.extend([
            (
                RouteNetlinkMessage::NewQueueDiscipline(shape::hooks(from)),
                NEW,
            ),
            (
                RouteNetlinkMessage::NewTrafficFilter(shape::redirect(from, ARRIVING, to)),
                NEW,
            ),
        ]);
    }
    let joined = route.tell_all(orders);
    joined.map_err(|refused| failed("lead frames into the machine")(refused.errno))?;
    Ok(tap)
}

/// An address of the interface; what a kernel makes for itself is left to the guest's.
fn address(answer: &RouteNetlinkMessage, index: u32) -> Option<IpNet> {
    let RouteNetlinkMessage::NewAddress(message) = answer else {
        return None;
    };
    if message.header.index != index || message.header.scope == AddressScope::Link {
        return None;
    }
    let (mut own, mut whole) = (None, None);
    for attribute in &message.attributes {
        if let AddressAttribute::Local(address) = attribute {
            own = Some(*address);
        }
        if let AddressAttribute::Address(address) = attribute {
            whole = Some(*address);
        }
    }
    IpNet::new(own.or(whole)?, message.header.prefix_len).ok()
}

/// A route through the interface that does not follow from its addresses.
fn way(answer: &RouteNetlinkMessage, index: u32) -> Option<Way> {
    let RouteNetlinkMessage::NewRoute(message) = answer else {
        return None;
    };
    let header = &message.header;
    let plain = header.kind == RouteType::Unicast
        && header.table == RouteHeader::RT_TABLE_MAIN
        && header.protocol != RouteProtocol::Kernel;
    let nowhere = if header.address_family == AddressFamily::Inet6 {
        IpAddr::from([0u16; 8])
    } else {
        IpAddr::from([0u8; 4])
    };
    let (mut to, mut gateway, mut source, mut metric, mut through) = (nowhere, None, None, 0, None);
    for attribute in &message.attributes {
        if let RouteAttribute::Destination(address) = attribute {
            to = plain_address(address)?;
        }
        if let RouteAttribute::Gateway(address) = attribute {
            gateway = plain_address(address);
        }
        if let RouteAttribute::PrefSource(address) = attribute {
            source = plain_address(address);
        }
        if let RouteAttribute::Priority(number) = attribute {
            metric = *number;
        }
        if let RouteAttribute::Oif(number) = attribute {
            through = Some(*number);
        }
    }
    let to = IpNet::new(to, header.destination_prefix_length).ok()?;
    (plain && through == Some(index)).then_some(Way {
        to,
        gateway,
        source,
        metric,
    })
}

fn plain_address(address: &RouteAddress) -> Option<IpAddr> {
    if let RouteAddress::Inet(four) = address {
        return Some(IpAddr::V4(*four));
    }
    if let RouteAddress::Inet6(six) = address {
        return Some(IpAddr::V6(*six));
    }
    None
}
