//! The network interface: its queues and its configuration, before a tap that leads to nobody.

use std::os::fd::OwnedFd;
use std::process::Command;

use bulkhead::backend::microvm::vmm::virtio::net::Net;
use bulkhead::backend::microvm::vmm::virtio::net::NetOptions;
use bulkhead::sys::namespace;
use bulkhead::sys::tap;

use super::devices;
use super::source::Source;

/// `CLONE_NEWNET`.
const NETWORK: u64 = 0x4000_0000;

thread_local! {
    /// A tap in a network of this thread's own; none without the right to one.
    static TAP: Option<OwnedFd> = made();
}

fn made() -> Option<OwnedFd> {
    namespace::leave(NETWORK).ok()?;
    // Frames of the host's own would be other ones each time.
    std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").ok();
    let tap = tap::open("fuzz").ok()?;
    let up = Command::new("ip")
        .args(["link", "set", "fuzz", "up"])
        .status();
    up.is_ok_and(|status| status.success()).then_some(tap)
}

/// Lets these bytes at an interface; gives whether there could be one.
pub fn run(bytes: &[u8]) -> bool {
    let tap = TAP.with(|tap| tap.as_ref().map(|tap| tap.try_clone().unwrap()));
    let Some(tap) = tap else { return false };
    let options = NetOptions {
        mac: [2, 0, 0, 0, 0, 7],
        ..NetOptions::default()
    };
    devices::drive(Net::new(tap, &options).unwrap(), Source::new(bytes));
    true
}
