//! What the network of a workspace will be: names, hardware address, rates and ports, from what was asked and its id.
//!
//! Every name on the host is a pure function of the state root and of the network's or the workspace's name, so that
//! what a dead command left is found again without any memory of it. Which addresses it gets is known only where the
//! leases are kept, by `network`.

use std::net::IpAddr;
use std::path::Path;

use serde::Deserialize;
use serde::Serialize;
use sha2::Digest;
use sha2::Sha256;

pub use crate::spec::asked::Bridged;
pub use crate::spec::asked::Publish;
pub use crate::spec::asked::Rate;
pub use crate::spec::asked::Transport;

use crate::spec::Spec;
use crate::spec::asked;
use crate::spec::asked::Asked;
use crate::spec::linux::NamespaceKind;

/// What the interface of a workspace is called inside.
pub const INSIDE: &str = "eth0";
/// What all bridges begin with.
pub const BRIDGES: &str = "bhb";
/// The largest packet where nobody asks for another.
const MTU: u32 = 1500;
/// The annotation that asks for a network.
const FIELD: &str = "annotations.dev.bulkhead.network";

/// What the network of a workspace will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPlan {
    /// The workspace.
    pub id: String,
    /// What it is called inside, and by the others of its network.
    pub hostname: String,
    /// The network.
    pub network: String,
    /// The host's side of its link.
    pub link: Link,
    /// Its names on the host that belong to the whole network.
    pub names: Names,
    /// The hardware address of its interface.
    pub mac: [u8; 6],
    /// The largest packet.
    pub mtu: u32,
    /// Addresses that it must have; a kind of which there is none is chosen.
    pub addresses: Vec<IpAddr>,
    /// Ports of the host that lead to it.
    pub publish: Vec<Publish>,
    /// What it may receive.
    pub inward: Rate,
    /// What it may send.
    pub outward: Rate,
    /// What all of its network together may receive and send: where the administrator has said so, or where some of it
    /// is promised.
    pub capacity: Option<Capacity>,
}

/// What a network carries in each direction, seen from its workspaces, in bits per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// Whether the administrator has said so. Else it is in force only while somebody was promised some of it.
    pub said: bool,
    /// Towards the workspaces.
    pub in_bps: u64,
    /// From the workspaces.
    pub out_bps: u64,
}

/// The host's side of a workspace's link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The interface: at most 15 bytes, which is what the kernel takes.
    pub name: String,
    /// What `ip link` says about it.
    pub alias: String,
}

/// The names of a network on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The bridge.
    pub bridge: String,
    /// What `ip link` says about it.
    pub alias: String,
    /// The table of nftables.
    pub table: String,
    /// The interface through which shaped traffic to workspaces goes.
    pub towards: String,
    /// The interface through which shaped traffic from workspaces goes.
    pub from: String,
}

/// What is asked of the network does not fit the namespaces of the bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkPlanError {
    /// There would be no namespace to put it in.
    #[error(
        "{FIELD}: {asked} needs a network namespace of its own; add {{\"type\": \"network\"}} to linux.namespaces"
    )]
    NoNamespace {
        /// What was asked for.
        asked: String,
    },
    /// The namespace is somebody else's.
    #[error(
        "{FIELD}: {asked} needs a network namespace of its own, and linux.namespaces[{index}].path names one that exists; leave out one of the two"
    )]
    Given {
        /// What was asked for.
        asked: String,
        /// Which namespace.
        index: usize,
    },
    /// The host's network was asked for, and a namespace of its own too.
    #[error(
        "{FIELD}: host is the host's own network, and linux.namespaces[{index}] asks for another; leave out one of the two"
    )]
    NotTheHosts {
        /// Which namespace.
        index: usize,
    },
    /// Only root may make links.
    #[error(
        "{FIELD}: {asked} needs the rights of root on the host; ask for none or host, or run as root"
    )]
    Rootless {
        /// What was asked for.
        asked: String,
    },
    /// A port is asked for twice.
    #[error("{FIELD}.publish: {port} is there twice")]
    Twice {
        /// Which.
        port: String,
    },
}

/// Checks that what is asked of the network fits the namespaces of the bundle. A bundle without our annotation is left
/// alone: its network is its caller's.
///
/// # Errors
///
/// [`NetworkPlanError`] names the field.
pub fn check(asked: &Asked, spec: &Spec, rootless: bool) -> Result<(), NetworkPlanError> {
    let Some(network) = &asked.network else {
        return Ok(());
    };
    let namespaces = spec.linux.namespaces.iter().enumerate();
    let own = namespaces
        .filter(|(_, namespace)| namespace.kind == NamespaceKind::Network)
        .map(|(index, namespace)| (index, namespace.is_new()))
        .next();
    let asked = match network {
        asked::Network::Host => {
            return match own {
                None => Ok(()),
                Some((index, _)) => Err(NetworkPlanError::NotTheHosts { index }),
            };
        }
        asked::Network::None => "none".to_owned(),
        asked::Network::Bridge(bridged) => {
            twice(bridged)?;
            format!("network {:?}", bridged.bridge)
        }
    };
    match own {
        None => Err(NetworkPlanError::NoNamespace { asked }),
        Some((index, false)) => Err(NetworkPlanError::Given { asked, index }),
        Some((_, true)) if rootless && matches!(network, asked::Network::Bridge(_)) => {
            Err(NetworkPlanError::Rootless { asked })
        }
        Some((_, true)) => Ok(()),
    }
}

fn twice(bridged: &Bridged) -> Result<(), NetworkPlanError> {
    let ports = &bridged.publish;
    let again = ports.iter().enumerate().find(|(index, port)| {
        let mut before = ports[..*index].iter();
        before.any(|other| collide(other, port))
    });
    again.map_or(Ok(()), |(_, port)| {
        Err(NetworkPlanError::Twice {
            port: port.to_string(),
        })
    })
}

/// Whether two published ports cannot be there at once: the same port of the same transport, on one address or on all.
#[must_use]
pub fn collide(one: &Publish, other: &Publish) -> bool {
    let apart = matches!((one.address, other.address), (Some(a), Some(b)) if a != b);
    one.host_port == other.host_port && one.transport == other.transport && !apart
}

impl NetworkPlan {
    /// The plan of workspace `id` in the state root at `root`, whose name inside is `hostname`.
    #[must_use]
    pub fn of(bridged: &Bridged, id: &str, hostname: &str, root: &Path) -> Self {
        Self {
            id: id.to_owned(),
            hostname: hostname.to_owned(),
            network: bridged.bridge.clone(),
            link: Link::of(root, id),
            names: Names::of(root, &bridged.bridge),
            mac: mac(root, id),
            mtu: bridged.mtu.unwrap_or(MTU),
            addresses: bridged.addresses.clone(),
            publish: bridged.publish.clone(),
            inward: bridged.inward,
            outward: bridged.outward,
            capacity: None,
        }
    }
}

impl Link {
    /// The host's side of workspace `id` in the state root at `root`.
    #[must_use]
    pub fn of(root: &Path, id: &str) -> Self {
        Self {
            name: format!("bhv{}", short(root, "link", id)),
            alias: format!("bulkhead workspace {id} of {}", root.display()),
        }
    }
}

impl Names {
    /// The names of a network in the state root at `root`.
    #[must_use]
    pub fn of(root: &Path, network: &str) -> Self {
        let short = short(root, "network", network);
        Self {
            bridge: format!("{BRIDGES}{short}"),
            alias: format!("bulkhead network {network} of {}", root.display()),
            table: format!("bulkhead_{short}"),
            towards: format!("bhi{short}"),
            from: format!("bho{short}"),
        }
    }
}

/// Bytes that are the same for the same state root, kind and name, and else not in the lifetime of a host.
#[must_use]
pub fn digest(root: &Path, kind: &str, name: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [
        root.as_os_str().as_encoded_bytes(),
        kind.as_bytes(),
        name.as_bytes(),
    ] {
        hash.update(part);
        hash.update([0]);
    }
    hash.finalize().into()
}

/// Twelve digits: with a prefix of three they make a name as long as the kernel takes.
fn short(root: &Path, kind: &str, name: &str) -> String {
    let bytes = digest(root, kind, name);
    let digits = bytes.iter().take(6).map(|byte| format!("{byte:02x}"));
    digits.collect()
}

/// The hardware address of a workspace: locally administered, for one station.
#[must_use]
pub fn mac(root: &Path, id: &str) -> [u8; 6] {
    let bytes = digest(root, "mac", id);
    [0x02, bytes[1], bytes[2], bytes[3], bytes[4], bytes[5]]
}

/// The hardware address of a network's bridge: set, since the kernel would change it with every workspace.
#[must_use]
pub fn bridge_mac(root: &Path, network: &str) -> [u8; 6] {
    let bytes = digest(root, "bridge mac", network);
    [0x06, bytes[1], bytes[2], bytes[3], bytes[4], bytes[5]]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(network: &str) -> Asked {
        let key = "dev.bulkhead.network".to_owned();
        Asked::of(&[(key, network.to_owned())].into()).unwrap()
    }

    fn spec(namespaces: &str) -> Spec {
        let text = format!(
            "{{\"ociVersion\":\"1.3.0\",\"root\":{{\"path\":\"r\"}},\"process\":{{\"cwd\":\"/\",\"args\":[\"a\"],\
             \"user\":{{\"uid\":0,\"gid\":0}}}},\"linux\":{{\"namespaces\":[{namespaces}]}}}}"
        );
        Spec::parse(text.as_bytes()).unwrap()
    }

    const OWN: &str = "{\"type\":\"network\"}";
    const GIVEN: &str = "{\"type\":\"pid\"},{\"type\":\"network\",\"path\":\"/run/netns/a\"}";

    fn refused(network: &str, namespaces: &str) -> String {
        let error = check(&asked(network), &spec(namespaces), false).unwrap_err();
        error.to_string()
    }

    #[test]
    fn a_bundle_that_asks_for_no_network_keeps_its_own() {
        for namespaces in ["", OWN, GIVEN] {
            assert_eq!(check(&Asked::default(), &spec(namespaces), false), Ok(()));
        }
    }

    #[test]
    fn a_bridge_and_none_need_a_new_namespace() {
        for network in ["net", "none"] {
            assert_eq!(check(&asked(network), &spec(OWN), false), Ok(()));
            assert!(refused(network, "").contains("add {\"type\": \"network\"}"));
            assert!(refused(network, GIVEN).contains("linux.namespaces[1].path"));
        }
    }

    #[test]
    fn the_hosts_network_is_refused_with_a_namespace() {
        assert_eq!(check(&asked("host"), &spec(""), false), Ok(()));
        assert!(refused("host", OWN).contains("linux.namespaces[0]"));
    }

    #[test]
    fn a_bridge_is_refused_without_the_rights_of_root() {
        assert!(check(&asked("net"), &spec(OWN), true).is_err());
        assert_eq!(check(&asked("none"), &spec(OWN), true), Ok(()));
    }

    #[test]
    fn names_fit_the_kernel_and_differ_by_root_and_name() {
        let here = Path::new("/run/bulkhead");
        let one = Names::of(here, "default");
        for name in [
            &one.bridge,
            &one.towards,
            &one.from,
            &Link::of(here, "a").name,
        ] {
            assert_eq!(name.len(), 15);
        }
        assert_eq!(one, Names::of(here, "default"));
        assert_ne!(one.bridge, Names::of(here, "other").bridge);
        assert_ne!(one.bridge, Names::of(Path::new("/tmp/x"), "default").bridge);
    }

    #[test]
    fn hardware_addresses_are_local_and_of_one_station() {
        let of = |id: &str| mac(Path::new("/run/bulkhead"), id);
        assert_eq!(of("a")[0] & 3, 2);
        assert_ne!(of("a"), of("b"));
    }

    #[test]
    fn a_port_on_all_addresses_collides_with_the_same_on_one() {
        let port = |text: &str| text.parse::<Publish>().unwrap();
        assert!(collide(&port("80:1"), &port("127.0.0.1:80:2")));
        assert!(!collide(&port("80:1"), &port("80:1/udp")));
        assert!(!collide(&port("127.0.0.2:80:1"), &port("127.0.0.1:80:1")));
    }
}
