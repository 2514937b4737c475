//! What every interface that is set up here is given in the same way, on the host and in a guest.

use std::net::IpAddr;

use ipnet::Ipv4Net;
use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_core::NLM_F_EXCL;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::address::AddressFlags;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::address::AddressScope;
use netlink_packet_route::link::LinkFlags;
use netlink_packet_route::link::LinkMessage;

/// What makes something new, and refuses when it is there.
pub const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;

/// An address with the length of its network's prefix.
pub type Prefixed = (IpAddr, u8);

/// Settings of the kernel that are 0 for an interface whose addresses are given to it and are nobody else's: nothing is to
/// be learnt from routers, nor waited for (`ip-sysctl.rst` of the kernel).
const QUIET: [&str; 2] = ["accept_ra", "accept_dad"];

/// The settings of an interface that are to be 0, as names below `/proc/sys`; there are none without IPv6.
pub fn quiet_settings(name: &str) -> impl Iterator<Item = String> {
    QUIET
        .map(|setting| format!("net/ipv6/conf/{name}/{setting}"))
        .into_iter()
}

/// A message that brings an interface up.
#[must_use]
pub fn raised(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message
}

/// An order that gives an interface an address. Those of IPv6 are used at once: whoever gives them sees to it that nobody
/// else has them.
#[must_use]
pub fn new_address(index: u32, (address, length): Prefixed) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = length;
    message.header.scope = AddressScope::Universe;
    message.attributes = vec![
        AddressAttribute::Local(address),
        AddressAttribute::Address(address),
    ];
    match address {
        IpAddr::V4(four) => {
            message.header.family = AddressFamily::Inet;
            // Two of a link have nobody else to call (RFC 3021).
            let network = Ipv4Net::new(four, length).ok();
            let others = network.filter(|network| network.prefix_len() < 31);
            let all = others.map(|network| AddressAttribute::Broadcast(network.broadcast()));
            message.attributes.extend(all);
        }
        IpAddr::V6(_) => {
            message.header.family = AddressFamily::Inet6;
            let at_once = AddressAttribute::Flags(AddressFlags::Nodad);
            message.attributes.push(at_once);
        }
    }
    RouteNetlinkMessage::NewAddress(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether everybody of its network is called at once by this address.
    fn calls(address: &str, length: u8, all: [u8; 4]) -> bool {
        let order = new_address(1, (address.parse().unwrap(), length));
        let RouteNetlinkMessage::NewAddress(message) = order else {
            return false;
        };
        let all = AddressAttribute::Broadcast(all.into());
        message.attributes.contains(&all)
    }

    #[test]
    fn an_address_comes_with_that_of_everybody_unless_two_are_alone() {
        assert!(calls("10.0.0.2", 22, [10, 0, 3, 255]));
        assert!(!calls("10.0.0.2", 31, [10, 0, 0, 3]));
        assert!(!calls("10.0.0.2", 32, [10, 0, 0, 2]));
    }
}
