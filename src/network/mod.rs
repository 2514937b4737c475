//! The network of a workspace: bridge, veth pair, addresses, shaping, published ports; made and undone by name.
//!
//! Everything happens under the lock of the leases, so a bridge cannot go while somebody comes to it. A lease is
//! written before anything is made for it and goes last; undoing needs the names and the lease, or the names alone.

mod address;
mod error;
mod firewall;
mod guard;
mod lease;
mod link;
mod port;
mod regrant;
mod shape;
mod switch;
pub mod tap;
mod wire;

use std::net::IpAddr;
use std::path::PathBuf;

use netlink_packet_route::link::LinkAttribute;

pub use error::NetworkError;
pub use lease::Lease;
pub use lease::Register;
pub use regrant::regrant;
pub use wire::collect;
pub use wire::connect;
pub use wire::detach;
pub use wire::inspect;
pub use wire::list;
pub use wire::prepare_to_detach;
pub use wire::remove;
pub use wire::renew;

use crate::plan::network::Link;
use crate::sys::route::Route;

/// Where the networks of a state root are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The state root: all names are made from it.
    pub root: PathBuf,
    /// The directory of the leases.
    pub leases: PathBuf,
}

/// What a workspace was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The host's address on the bridge, of each kind.
    pub gateways: Vec<IpAddr>,
    /// The others of its network: what they are called, and their addresses.
    pub neighbours: Vec<(String, Vec<IpAddr>)>,
    /// What could not be had and was done without.
    pub remarks: Vec<String>,
}

/// What has gone over a workspace's link, seen from the workspace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Bytes received.
    pub in_bytes: u64,
    /// Packets received.
    pub in_packets: u64,
    /// Packets that were to be received and were dropped.
    pub in_drops: u64,
    /// Bytes sent.
    pub out_bytes: u64,
    /// Packets sent.
    pub out_packets: u64,
    /// Packets that were sent and were dropped.
    pub out_drops: u64,
}

/// Reads the counters of a workspace's link on the host's side; nothing when it is not there.
#[must_use]
pub fn counters(link: &Link) -> Option<LinkCounters> {
    let found = Route::open().ok()?.link(&link.name).ok()?;
    found.attributes.iter().find_map(|attribute| {
        let LinkAttribute::Stats64(stats) = attribute else {
            return None;
        };
        // What the host's end receives is what the workspace has sent.
        Some(LinkCounters {
            in_bytes: stats.tx_bytes,
            in_packets: stats.tx_packets,
            in_drops: stats.tx_dropped,
            out_bytes: stats.rx_bytes,
            out_packets: stats.rx_packets,
            out_drops: stats.rx_dropped,
        })
    })
}
