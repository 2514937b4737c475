//! What machines are made of: KVM, and the devices of the kernel beside it.

use crate::host::machines::Machines;
use crate::host::survey::Finding;

const AREA: &str = "machine";

pub(super) fn findings() -> Vec<Finding> {
    vec![
        kvm(),
        device("/dev/vhost-vsock", "modprobe vhost_vsock"),
        device("/dev/vhost-net", "modprobe vhost_net"),
        device("/dev/net/tun", "modprobe tun"),
    ]
}

fn kvm() -> Finding {
    let machines = Machines::try_out();
    if machines.usable {
        Finding::yes(AREA, "KVM", machines.found)
    } else {
        Finding::no(AREA, "KVM", machines.found, machines.remedy)
    }
}

fn device(path: &str, remedy: &str) -> Finding {
    let there = std::fs::exists(path).unwrap_or_default();
    Finding::of(AREA, path, there, remedy)
}
