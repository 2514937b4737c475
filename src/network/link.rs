//! Bridges, veth pairs and what is inside: links, addresses and routes, by messages to the kernel.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::path::Path;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::InfoBridge;
use netlink_packet_route::link::InfoBridgePort;
use netlink_packet_route::link::InfoData;
use netlink_packet_route::link::InfoKind;
use netlink_packet_route::link::InfoPortData;
use netlink_packet_route::link::InfoPortKind;
use netlink_packet_route::link::InfoVeth;
use netlink_packet_route::link::LinkAttribute;
use netlink_packet_route::link::LinkFlags;
use netlink_packet_route::link::LinkInfo;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::route::RouteAddress;
use netlink_packet_route::route::RouteAttribute;
use netlink_packet_route::route::RouteHeader;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::route::RouteScope;
use netlink_packet_route::route::RouteType;

use crate::network::error::NetworkError;
use crate::plan::network::INSIDE;
use crate::plan::network::NetworkPlan;
use crate::sys::Errno;
use crate::sys::Result;
use crate::sys::interface;
use crate::sys::interface::NEW;
use crate::sys::interface::Prefixed;
use crate::sys::interface::new_address;
use crate::sys::interface::raised;
use crate::sys::route;
use crate::sys::route::Refused;
use crate::sys::route::Route;
use crate::sys::vanish;
use crate::sys::vanish::Remains;

/// The number of the loopback interface in every network (`LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;
/// Queues of each end of a link and each way. A pair has no lock that more would share, and passes packets on through the
/// processor that sends them; but each has its entries in sysfs, and since Linux 5.15 there are as many as processors.
const QUEUES: u32 = 1;

/// Makes the bridge of a network: with addresses of its own, up, deaf to routers that a workspace plays.
pub(super) fn make_bridge(
    route: &mut Route,
    plan: &NetworkPlan,
    mac: [u8; 6],
    addresses: &[Prefixed],
) -> std::result::Result<(), NetworkError> {
    let name = &plan.names.bridge;
    let failed = |what: &str| NetworkError::kernel(format!("{what} bridge {name}"));
    let mut bridge = named(name);
    bridge.attributes.extend([
        LinkAttribute::Address(mac.to_vec()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Bridge),
            LinkInfo::Data(InfoData::Bridge(vec![
                InfoBridge::ForwardDelay(0),
                InfoBridge::MulticastSnooping(false),
            ])),
        ]),
    ]);
    route
        .tell(RouteNetlinkMessage::NewLink(bridge), NEW)
        .map_err(failed("make"))?;
    let index = route.index_of(name).map_err(failed("find"))?;
    if has_ipv6() {
        write_setting(&format!("net/ipv6/conf/{name}/accept_ra"), "0")?;
    }
    let mut orders: Vec<_> = addresses
        .iter()
        .map(|address| (new_address(index, *address), NEW))
        .collect();
    let mut up = raised(index);
    up.attributes
        .push(LinkAttribute::IfAlias(plan.names.alias.clone()));
    orders.push((RouteNetlinkMessage::SetLink(up), 0));
    route
        .tell_all(orders)
        .map_err(|refused| failed("give addresses to")(refused.errno))
}

/// Makes the pair: one end on the bridge, the other in the namespace `network`, with its name, address and packet size.
pub(super) fn make_pair(
    route: &mut Route,
    plan: &NetworkPlan,
    bridge: u32,
    network: BorrowedFd<'_>,
) -> std::result::Result<(), NetworkError> {
    let name = &plan.link.name;
    let mut peer = named(INSIDE);
    peer.attributes.extend([
        LinkAttribute::Address(plan.mac.to_vec()),
        LinkAttribute::Mtu(plan.mtu),
        LinkAttribute::NetNsFd(network.as_raw_fd()),
        LinkAttribute::NumTxQueues(QUEUES),
        LinkAttribute::NumRxQueues(QUEUES),
    ]);
    let mut near = named(name);
    near.header.flags = LinkFlags::Up;
    near.header.change_mask = LinkFlags::Up;
    near.attributes.extend([
        LinkAttribute::Mtu(plan.mtu),
        LinkAttribute::NumTxQueues(QUEUES),
        LinkAttribute::NumRxQueues(QUEUES),
        LinkAttribute::Controller(bridge),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ]);
    let mut words = named(name);
    words
        .attributes
        .push(LinkAttribute::IfAlias(plan.link.alias.clone()));
    let mut orders = vec![
        (RouteNetlinkMessage::NewLink(near), NEW),
        (RouteNetlinkMessage::SetLink(words), 0),
    ];
    if !plan.publish.is_empty() {
        // Where bridges pass packets to the tables of IP, a workspace that comes to its own published port is led back
        // through the end of the link that it came from.
        let mut back = named(name);
        back.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(
                true,
            )])),
        ]));
        orders.push((RouteNetlinkMessage::NewLink(back), 0));
    }
    route.tell_all(orders).map_err(|Refused { index, errno }| {
        let what = [
            "make the link",
            "describe the link",
            "set the bridge's end of the link",
        ][index.min(2)];
        NetworkError::kernel(format!("{what} {name} to {INSIDE} of {}", plan.id))(errno)
    })
}

/// Gives the inner end its addresses and routes, and brings it up, and the loopback interface.
pub(super) fn furnish(
    network: BorrowedFd<'_>,
    addresses: &[Prefixed],
    gateways: &[IpAddr],
) -> std::result::Result<(), NetworkError> {
    let failed = |what: &str| NetworkError::kernel(format!("{what} {INSIDE} inside"));
    // Written from inside: the kernel shows each process the settings of its own network.
    let opened = route::within(network, || {
        if has_ipv6() {
            for setting in interface::quiet_settings(INSIDE) {
                write_setting(&setting, "0")?;
            }
        }
        Route::open().map_err(NetworkError::kernel("open a netlink socket inside"))
    });
    let mut inside = opened.map_err(failed("enter the network of"))??;
    let index = inside.index_of(INSIDE).map_err(failed("find"))?;
    let mut orders: Vec<_> = addresses
        .iter()
        .map(|address| (new_address(index, *address), NEW))
        .collect();
    for index in [LOOPBACK, index] {
        orders.push((RouteNetlinkMessage::SetLink(raised(index)), 0));
    }
    let routes = gateways
        .iter()
        .map(|gateway| (default_by(index, *gateway), NEW));
    orders.extend(routes);
    inside
        .tell_all(orders)
        .map_err(|refused| failed("give addresses and routes to")(refused.errno))
}

/// Makes an interface that queues what is sent to it (`ifb`), up.
pub(super) fn make_queue(
    route: &mut Route,
    name: &str,
    alias: &str,
) -> std::result::Result<(), NetworkError> {
    let mut queue = named(name);
    queue.header.flags = LinkFlags::Up;
    queue.header.change_mask = LinkFlags::Up;
    queue
        .attributes
        .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Ifb)]));
    let mut words = named(name);
    words
        .attributes
        .push(LinkAttribute::IfAlias(alias.to_owned()));
    let orders = vec![
        (RouteNetlinkMessage::NewLink(queue), NEW),
        (RouteNetlinkMessage::SetLink(words), 0),
    ];
    route
        .tell_all(orders)
        .map_err(|refused| NetworkError::kernel(format!("make the queue {name}"))(refused.errno))
}

/// Removes an interface; one that is not there is removed already.
pub(super) fn remove(
    route: &Route,
    name: &str,
    remains: &mut Remains,
) -> std::result::Result<(), NetworkError> {
    // Mostly it is not there, which is found out in one call.
    let there = route.index_of(name);
    let leaving = there.and_then(|_| vanish::begin(name));
    match leaving.and_then(|leaving| leaving.finish(remains)) {
        Ok(()) | Err(Errno::NODEV) => Ok(()),
        Err(errno) => Err(NetworkError::kernel(format!("remove the interface {name}"))(errno)),
    }
}

/// Removes the interfaces that are on a bridge of ours, whoever made them.
pub(super) fn remove_users(
    route: &mut Route,
    bridge: &str,
) -> std::result::Result<(), NetworkError> {
    let failed = || NetworkError::kernel(format!("find what is on bridge {bridge}"));
    let index = match route.index_of(bridge) {
        Err(Errno::NODEV) => return Ok(()),
        answer => answer.map_err(failed())?,
    };
    let all = route.list(RouteNetlinkMessage::GetLink(LinkMessage::default()));
    for message in all.map_err(failed())? {
        let RouteNetlinkMessage::NewLink(link) = message else {
            continue;
        };
        if link.attributes.contains(&LinkAttribute::Controller(index)) {
            let mut gone = LinkMessage::default();
            gone.header.index = link.header.index;
            route
                .tell(RouteNetlinkMessage::DelLink(gone), 0)
                .map_err(NetworkError::kernel(format!("empty bridge {bridge}")))?;
        }
    }
    Ok(())
}

/// The names of all bridges of the host.
pub(super) fn bridges(route: &mut Route) -> Result<Vec<String>> {
    let all = route.list(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    let names = all.iter().filter_map(|message| {
        let RouteNetlinkMessage::NewLink(link) = message else {
            return None;
        };
        let kind = |info: &LinkInfo| *info == LinkInfo::Kind(InfoKind::Bridge);
        let mut is_bridge = false;
        let mut name = None;
        for attribute in &link.attributes {
            if let LinkAttribute::LinkInfo(infos) = attribute {
                is_bridge |= infos.iter().any(kind);
            }
            if let LinkAttribute::IfName(text) = attribute {
                name = Some(text.clone());
            }
        }
        name.filter(|_| is_bridge)
    });
    Ok(names.collect())
}

/// The destinations that the host knows a way to, but for the default.
pub(super) fn destinations(route: &mut Route) -> Result<Vec<Prefixed>> {
    let mut found = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut question = RouteMessage::default();
        question.header.address_family = family;
        let answers = match route.list(RouteNetlinkMessage::GetRoute(question)) {
            // Without IPv6 nobody knows its routes.
            Err(Errno::OPNOTSUPP | Errno::AFNOSUPPORT) => continue,
            answers => answers?,
        };
        found.extend(answers.iter().filter_map(destination));
    }
    Ok(found)
}

fn destination(answer: &RouteNetlinkMessage) -> Option<Prefixed> {
    let RouteNetlinkMessage::NewRoute(message) = answer else {
        return None;
    };
    let length = message.header.destination_prefix_length;
    let address = message.attributes.iter().find_map(|attribute| {
        if let RouteAttribute::Destination(RouteAddress::Inet(four)) = attribute {
            return Some(IpAddr::V4(*four));
        }
        if let RouteAttribute::Destination(RouteAddress::Inet6(six)) = attribute {
            return Some(IpAddr::V6(*six));
        }
        None
    })?;
    (length > 0).then_some((address, length))
}

/// A message about the interface of this name.
fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::IfName(name.to_owned()));
    message
}

fn default_by(index: u32, gateway: IpAddr) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    let (family, address) = match gateway {
        IpAddr::V4(four) => (AddressFamily::Inet, RouteAddress::Inet(four)),
        IpAddr::V6(six) => (AddressFamily::Inet6, RouteAddress::Inet6(six)),
    };
    message.header.address_family = family;
    message.attributes = vec![RouteAttribute::Gateway(address), RouteAttribute::Oif(index)];
    RouteNetlinkMessage::NewRoute(message)
}

/// Whether this kernel has IPv6 at all.
pub(super) fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").is_dir()
}

/// Writes one of the kernel's settings of this process's network.
pub(super) fn write_setting(name: &str, value: &str) -> std::result::Result<(), NetworkError> {
    let path = Path::new("/proc/sys").join(name);
    std::fs::write(&path, value).map_err(NetworkError::file("write", path))
}

/// Reads one of the kernel's settings; nothing when there is none.
pub(super) fn read_setting(name: &str) -> Option<String> {
    let text = std::fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?;
    Some(text.trim().to_owned())
}

/// The first address of a network, which is its bridge's.
pub(super) fn first_of(network: IpAddr) -> IpAddr {
    match network {
        IpAddr::V4(four) => IpAddr::V4(Ipv4Addr::from(u32::from(four) | 1)),
        IpAddr::V6(six) => IpAddr::V6(Ipv6Addr::from(u128::from(six) | 1)),
    }
}
