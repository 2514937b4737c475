//! Gives the guest's network interfaces their names, addresses and routes.

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkAttribute;
use netlink_packet_route::link::LinkLayerType;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::route::RouteAddress;
use netlink_packet_route::route::RouteAttribute;
use netlink_packet_route::route::RouteHeader;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::route::RouteScope;
use netlink_packet_route::route::RouteType;

use crate::agent::group;
use crate::agent::wire::Failure;
use crate::agent::wire::Interface;
use crate::agent::wire::Route;
use crate::sys::Errno;
use crate::sys::interface;
use crate::sys::interface::NEW;
use crate::sys::interface::new_address;
use crate::sys::interface::raised;
use crate::sys::route::Route as Conversation;

/// Sets up all interfaces.
pub(super) fn furnish(wanted: &[Interface]) -> Result<(), Failure> {
    if wanted.is_empty() {
        return Ok(());
    }
    let opened = Conversation::open();
    let mut kernel = opened.map_err(|errno| refused("open a netlink socket", errno))?;
    for interface in wanted {
        one(&mut kernel, interface)?;
    }
    Ok(())
}

fn one(kernel: &mut Conversation, wanted: &Interface) -> Result<(), Failure> {
    let name = &wanted.name;
    let failed = |what: &str, errno| refused(&format!("{what} {name}"), errno);
    let index = find(kernel, wanted).map_err(|errno| failed("find", errno))?;
    let mut named = LinkMessage::default();
    named.header.index = index;
    named
        .attributes
        .push(LinkAttribute::IfName(name.to_owned()));
    if wanted.mtu != 0 {
        named.attributes.push(LinkAttribute::Mtu(wanted.mtu));
    }
    let changed = kernel.tell(RouteNetlinkMessage::SetLink(named), 0);
    changed.map_err(|errno| failed("name", errno))?;
    quieten(name);
    let mut orders: Vec<_> = wanted
        .addresses
        .iter()
        .map(|address| {
            (
                new_address(index, (address.addr(), address.prefix_len())),
                NEW,
            )
        })
        .collect();
    orders.push((RouteNetlinkMessage::SetLink(raised(index)), 0));
    orders.extend(wanted.routes.iter().map(|way| (new_route(index, way), NEW)));
    let told = kernel.tell_all(orders);
    told.map_err(|refusal| failed("give addresses and routes to", refusal.errno))
}

/// The interface with this hardware address, or the only one there is.
fn find(kernel: &mut Conversation, wanted: &Interface) -> Result<u32, Errno> {
    let all = kernel.list(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    let links = all.into_iter().filter_map(|answer| {
        let RouteNetlinkMessage::NewLink(link) = answer else {
            return None;
        };
        (link.header.link_layer_type == LinkLayerType::Ether).then_some(link)
    });
    let meant = |link: &LinkMessage| {
        let mac = LinkAttribute::Address(wanted.mac.to_vec());
        wanted.mac == [0; 6] || link.attributes.contains(&mac)
    };
    let mut meant = links.filter(meant);
    match (meant.next(), meant.next()) {
        (Some(link), None) => Ok(link.header.index),
        (Some(_), Some(_)) => Err(Errno::NOTUNIQ),
        (None, _) => Err(Errno::NODEV),
    }
}

/// Addresses are given from outside and are nobody else's: nothing is to be asked or waited for.
fn quieten(name: &str) {
    for setting in interface::quiet_settings(name) {
        let path = format!("/proc/sys/{setting}");
        if Path::new(&path).exists() {
            std::fs::write(&path, "0").unwrap_or_default();
        }
    }
}

fn new_route(index: u32, way: &Route) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    message.header.scope = match way.gateway {
        Some(_) => RouteScope::Universe,
        None => RouteScope::Link,
    };
    message.header.address_family = match way.to {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    };
    message.header.destination_prefix_length = way.to.prefix_len();
    if way.to.prefix_len() > 0 {
        let to = RouteAttribute::Destination(route_address(way.to.network()));
        message.attributes.push(to);
    }
    let through = way.gateway.map(|gateway| {
        // A gateway may lie outside of the networks of the addresses, as with a /32.
        message.header.flags |= netlink_packet_route::route::RouteFlags::Onlink;
        RouteAttribute::Gateway(route_address(gateway))
    });
    message.attributes.extend(through);
    let from = way
        .source
        .map(route_address)
        .map(RouteAttribute::PrefSource);
    message.attributes.extend(from);
    if way.metric != 0 {
        message
            .attributes
            .push(RouteAttribute::Priority(way.metric));
    }
    message.attributes.push(RouteAttribute::Oif(index));
    RouteNetlinkMessage::NewRoute(message)
}

fn route_address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(four) => RouteAddress::Inet(four),
        IpAddr::V6(six) => RouteAddress::Inet6(six),
    }
}

fn refused(what: &str, errno: Errno) -> Failure {
    group::refused(format!("{what} inside"), errno)
}
