//! Chooses addresses: the subnets of a network, away from all that the host leads elsewhere, and places in them.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::path::Path;

use ipnet::IpNet;
use ipnet::Ipv4Net;
use ipnet::Ipv6Net;

use crate::network::error::NetworkError;
use crate::network::lease::Register;
use crate::plan::network;
use crate::plan::network::NetworkPlan;
use crate::sys::interface::Prefixed;

/// The length of an IPv4 subnet: as many addresses as a bridge has ports.
const LENGTH: u8 = 22;
/// How many such subnets are in `10.0.0.0/8`.
const SUBNETS: u32 = 1 << (LENGTH - 8);
/// The length of an IPv6 subnet.
const LENGTH6: u8 = 64;
/// The first place that a workspace may have; the one before is the bridge's.
const FIRST: u32 = 2;
/// The last.
pub(super) const LAST: u32 = (1 << (32 - LENGTH)) - 2;

/// What is in use already: by whom.
pub(super) type InUse = Vec<(IpNet, String)>;

/// The ways of the host, as what is in use.
pub(super) fn ways(destinations: &[Prefixed]) -> InUse {
    let nets = destinations
        .iter()
        .filter_map(|(address, length)| IpNet::new(*address, *length).ok());
    nets.map(|net| {
        (
            net.trunc(),
            format!("a route of the host to {}", net.trunc()),
        )
    })
    .collect()
}

/// The subnets of a new network: those of the addresses that are asked for, else the first free after the one that the
/// name leads to.
pub(super) fn subnets(
    plan: &NetworkPlan,
    root: &Path,
    with_ipv6: bool,
    used: &InUse,
) -> Result<(Ipv4Net, Option<Ipv6Net>), NetworkError> {
    let asked = plan.addresses.iter();
    let mut four = None;
    let mut six = None;
    for address in asked {
        match *address {
            IpAddr::V4(address) => four = Some(around(address, LENGTH)?),
            IpAddr::V6(address) => six = Some(around6(address)?),
        }
    }
    for address in &plan.addresses {
        let (wanted, length) = match address {
            IpAddr::V4(_) => (four.map(IpNet::V4), LENGTH),
            IpAddr::V6(_) => (six.map(IpNet::V6), LENGTH6),
        };
        let holder = wanted.and_then(|wanted| holder_of(wanted, used));
        if let Some(holder) = holder {
            return Err(NetworkError::Used {
                address: *address,
                network: plan.network.clone(),
                subnet: IpNet::new(*address, length)
                    .map_or_else(|_| address.to_string(), |net| net.trunc().to_string()),
                holder: holder.to_owned(),
            });
        }
    }
    let four = match four {
        Some(four) => four,
        None => free(plan, root, used)?,
    };
    let six = six.or_else(|| local(plan, root).filter(|_| with_ipv6));
    Ok((four, six))
}

fn around(address: Ipv4Addr, length: u8) -> Result<Ipv4Net, NetworkError> {
    let bits = u32::from(address) & (u32::MAX << (32 - u32::from(length)));
    net(Ipv4Addr::from(bits), length)
}

fn around6(address: Ipv6Addr) -> Result<Ipv6Net, NetworkError> {
    let bits = u128::from(address) >> 64 << 64;
    net6(Ipv6Addr::from(bits))
}

fn net(address: Ipv4Addr, length: u8) -> Result<Ipv4Net, NetworkError> {
    Ipv4Net::new(address, length).map_err(|_| impossible())
}

fn net6(address: Ipv6Addr) -> Result<Ipv6Net, NetworkError> {
    Ipv6Net::new(address, LENGTH6).map_err(|_| impossible())
}

/// The lengths of prefixes are constants that fit.
fn impossible() -> NetworkError {
    NetworkError::kernel("choose a subnet")(crate::sys::Errno::INVAL)
}

fn holder_of(wanted: IpNet, used: &InUse) -> Option<&str> {
    let mut used = used.iter();
    let found = used.find(|(net, _)| net.contains(&wanted) || wanted.contains(net));
    found.map(|(_, holder)| holder.as_str())
}

fn free(plan: &NetworkPlan, root: &Path, used: &InUse) -> Result<Ipv4Net, NetworkError> {
    let bytes = network::digest(root, "subnet", &plan.network);
    let start = u32::from_be_bytes([0, 0, bytes[0], bytes[1]]);
    for step in 0..SUBNETS {
        let number = (start + step) % SUBNETS;
        let address = Ipv4Addr::from((10 << 24) | (number << (32 - LENGTH)));
        let candidate = net(address, LENGTH)?;
        if holder_of(IpNet::V4(candidate), used).is_none() {
            return Ok(candidate);
        }
    }
    Err(NetworkError::NoSubnet {
        network: plan.network.clone(),
    })
}

/// A unique local subnet (RFC 4193): forty bits that are the state root's, sixteen that are the network's.
fn local(plan: &NetworkPlan, root: &Path) -> Option<Ipv6Net> {
    let site = network::digest(root, "site", "");
    let own = network::digest(root, "subnet", &plan.network);
    let mut bytes = [0; 16];
    bytes[0] = 0xfd;
    bytes[1..6].copy_from_slice(&site[..5]);
    bytes[6..8].copy_from_slice(&own[2..4]);
    net6(Ipv6Addr::from(bytes)).ok()
}

/// Chooses a workspace's place and addresses in a network.
pub(super) fn choose(
    plan: &NetworkPlan,
    register: &Register,
) -> Result<(u32, Vec<IpAddr>), NetworkError> {
    let asked = |four: bool| {
        let mut asked = plan.addresses.iter();
        asked.find(|address| address.is_ipv4() == four).copied()
    };
    for address in &plan.addresses {
        check(*address, plan, register)?;
    }
    let four = asked(true);
    let six = asked(false).filter(|_| register.subnet6.is_some());
    let made = |place: u32| {
        let six = six.or_else(|| Some(address6(register.subnet6?, place)));
        let four = four.unwrap_or_else(|| address4(register.subnet, place));
        std::iter::once(four).chain(six).collect::<Vec<_>>()
    };
    let free = |place: &u32| {
        let unused = register.leases.values().all(|lease| lease.place != *place);
        let nobodys = |address: &IpAddr| register.holder(*address).is_none();
        unused && made(*place).iter().all(nobodys)
    };
    let fixed = four.and_then(|address| place_of(address, register.subnet));
    let mut candidates: Box<dyn Iterator<Item = u32>> = match fixed {
        Some(place) => Box::new(std::iter::once(place).chain(FIRST..=LAST)),
        None => Box::new((register.last + 1..=LAST).chain(FIRST..=LAST)),
    };
    let place = candidates.find(|place| *place >= FIRST && free(place));
    let place = place.ok_or_else(|| NetworkError::Full {
        network: plan.network.clone(),
        subnet: register.subnet.to_string(),
    })?;
    Ok((place, made(place)))
}

/// An address that is asked for must be one of the network, and nobody's.
fn check(address: IpAddr, plan: &NetworkPlan, register: &Register) -> Result<(), NetworkError> {
    let (inside, subnet) = match address {
        IpAddr::V4(four) => {
            let place = place_of(address, register.subnet);
            let usable = place.is_some_and(|place| (FIRST..=LAST).contains(&place));
            (
                register.subnet.contains(&four) && usable,
                register.subnet.to_string(),
            )
        }
        IpAddr::V6(six) => {
            let subnet = register.subnet6;
            let inside = subnet.is_some_and(|subnet| {
                subnet.contains(&six) && u128::from(six) - u128::from(subnet.network()) > 1
            });
            let words = subnet.map_or_else(|| "no IPv6".to_owned(), |subnet| subnet.to_string());
            (inside, words)
        }
    };
    if !inside {
        return Err(NetworkError::Outside {
            address,
            network: plan.network.clone(),
            subnet,
        });
    }
    register.holder(address).map_or(Ok(()), |holder| {
        Err(NetworkError::Taken {
            address,
            network: plan.network.clone(),
            holder: holder.to_owned(),
        })
    })
}

fn place_of(address: IpAddr, subnet: Ipv4Net) -> Option<u32> {
    match address {
        IpAddr::V4(four) => u32::from(four).checked_sub(u32::from(subnet.network())),
        IpAddr::V6(_) => None,
    }
}

fn address4(subnet: Ipv4Net, place: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(u32::from(subnet.network()) | place))
}

fn address6(subnet: Ipv6Net, place: u32) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(
        u128::from(subnet.network()) | u128::from(place),
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::network::lease::Lease;
    use crate::plan::network::Bridged;

    use super::*;

    fn plan(id: &str, addresses: &[&str]) -> NetworkPlan {
        let bridged = Bridged {
            bridge: "net".to_owned(),
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            ..Bridged::default()
        };
        NetworkPlan::of(&bridged, id, id, Path::new("/run/bulkhead"))
    }

    fn register() -> Register {
        Register {
            network: "net".to_owned(),
            boot: String::new(),
            subnet: "10.1.4.0/22".parse().unwrap(),
            subnet6: Some("fd00:1::/64".parse().unwrap()),
            made: true,
            firewall: false,
            shaped: false,
            capacity: None,
            filter: None,
            last: 1,
            leases: BTreeMap::new(),
        }
    }

    fn texts(addresses: &[IpAddr]) -> Vec<String> {
        addresses.iter().map(ToString::to_string).collect()
    }

    fn take(register: &mut Register, id: &str, addresses: &[&str]) -> Vec<String> {
        let (place, addresses) = choose(&plan(id, addresses), register).unwrap();
        let texts = texts(&addresses);
        register.last = place;
        let lease = Lease {
            place,
            addresses,
            ..Lease::default()
        };
        register.leases.insert(id.to_owned(), lease);
        texts
    }

    #[test]
    fn addresses_are_given_in_turn_and_used_again_last() {
        let mut register = register();
        assert_eq!(take(&mut register, "a", &[]), ["10.1.4.2", "fd00:1::2"]);
        assert_eq!(take(&mut register, "b", &[]), ["10.1.4.3", "fd00:1::3"]);
        register.leases.remove("a");
        assert_eq!(take(&mut register, "c", &[])[0], "10.1.4.4");
        register.last = LAST;
        assert_eq!(take(&mut register, "d", &[])[0], "10.1.4.2");
    }

    #[test]
    fn a_full_network_says_so() {
        let mut register = register();
        for number in FIRST..=LAST {
            take(&mut register, &number.to_string(), &[]);
        }
        let error = choose(&plan("more", &[]), &register).unwrap_err();
        assert!(error.to_string().contains("no address of 10.1.4.0/22"));
    }

    #[test]
    fn an_address_that_is_asked_for_is_given_once() {
        let mut register = register();
        let asked = ["10.1.5.9", "fd00:1::abc"];
        assert_eq!(take(&mut register, "a", &asked), asked);
        let error = choose(&plan("b", &asked), &register).unwrap_err();
        assert!(
            error.to_string().contains("10.1.5.9 belongs to a"),
            "{error}"
        );
    }

    #[test]
    fn an_address_of_elsewhere_is_refused() {
        for address in [
            "10.2.0.1",
            "10.1.4.0",
            "10.1.4.1",
            "10.1.7.255",
            "fd00:2::1",
            "fd00:1::1",
        ] {
            let error = choose(&plan("a", &[address]), &register()).unwrap_err();
            assert!(matches!(error, NetworkError::Outside { .. }), "{address}");
        }
    }

    #[test]
    fn subnets_stay_away_from_what_the_host_knows() {
        let root = Path::new("/run/bulkhead");
        let (first, six) = subnets(&plan("a", &[]), root, true, &Vec::new()).unwrap();
        assert!(first.to_string().starts_with("10.") && six.is_some());
        let used = ways(&[(IpAddr::V4(first.network()), 16)]);
        let (second, _) = subnets(&plan("a", &[]), root, true, &used).unwrap();
        assert!(holder_of(IpNet::V4(second), &used).is_none());
        let all = ways(&[("10.0.0.0".parse().unwrap(), 8)]);
        let none = subnets(&plan("a", &[]), root, true, &all);
        assert!(matches!(none, Err(NetworkError::NoSubnet { .. })));
    }

    #[test]
    fn the_first_to_ask_for_an_address_chooses_the_subnet() {
        let root = Path::new("/run/bulkhead");
        let wanted = plan("a", &["192.168.7.9", "fd11::9"]);
        let (four, six) = subnets(&wanted, root, true, &Vec::new()).unwrap();
        assert_eq!(four.to_string(), "192.168.4.0/22");
        assert_eq!(six.unwrap().to_string(), "fd11::/64");
        let used = ways(&[("192.168.7.0".parse().unwrap(), 24)]);
        let error = subnets(&wanted, root, true, &used).unwrap_err().to_string();
        assert!(
            error.contains("192.168.4.0/22 is used by a route of the host"),
            "{error}"
        );
    }
}
