//! Whether this machine can run machines: KVM, and of which kind.
//!
//! The processor's flags tell hardware virtualisation. Where KVM answers and the processor has neither of the two, the
//! kernel may run guests in software (PVM), which takes guests made for it only.

use std::os::fd::AsFd;

use rustix::fs::Mode;
use rustix::fs::OFlags;

use crate::host::survey::Finding;
use crate::host::survey::text;
use crate::sys::Errno;
use crate::sys::probe;

const AREA: &str = "machine";

/// Of which kind KVM is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Intel's VT-x.
    Vmx,
    /// AMD's SVM.
    Svm,
    /// Neither, and it answers all the same.
    Software,
}

pub(super) fn findings() -> Vec<Finding> {
    vec![
        kvm(),
        device("/dev/vhost-vsock", "modprobe vhost_vsock"),
        device("/dev/vhost-net", "modprobe vhost_net"),
        device("/dev/net/tun", "modprobe tun"),
    ]
}

fn kvm() -> Finding {
    let flags = text("/proc/cpuinfo").unwrap_or_default();
    let kind = kind(&flags);
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let answer = rustix::fs::open("/dev/kvm", flags, Mode::empty())
        .and_then(|device| probe::kvm_version(device.as_fd()));
    match (answer, kind) {
        (Ok(_), Kind::Vmx) => Finding::yes(AREA, "KVM", "VT-x"),
        (Ok(_), Kind::Svm) => Finding::yes(AREA, "KVM", "SVM"),
        (Ok(_), Kind::Software) => {
            let remedy = "a processor with VT-x or SVM, or nesting switched on outside";
            Finding::no(AREA, "KVM", pvm(), remedy)
        }
        (Err(Errno::ACCESS), _) => Finding::no(
            AREA,
            "KVM",
            "no right to /dev/kvm",
            "be root, or in the group kvm",
        ),
        (Err(errno), Kind::Vmx) => {
            Finding::no(AREA, "KVM", errno.to_string(), "modprobe kvm_intel")
        }
        (Err(errno), Kind::Svm) => Finding::no(AREA, "KVM", errno.to_string(), "modprobe kvm_amd"),
        (Err(errno), Kind::Software) => Finding::no(
            AREA,
            "KVM",
            errno.to_string(),
            "switch virtualisation on in the firmware, or nesting in the machine outside",
        ),
    }
}

fn pvm() -> &'static str {
    if std::fs::exists("/sys/module/kvm_pvm").unwrap_or_default() {
        "PVM: in software, for guests made for it"
    } else {
        "neither VT-x nor SVM: perhaps PVM"
    }
}

/// What the flags of the first processor say.
fn kind(cpuinfo: &str) -> Kind {
    let flags = cpuinfo
        .lines()
        .find(|line| line.starts_with("flags"))
        .unwrap_or_default();
    let has = |name: &str| flags.split_whitespace().any(|flag| flag == name);
    match (has("vmx"), has("svm")) {
        (true, _) => Kind::Vmx,
        (false, true) => Kind::Svm,
        (false, false) => Kind::Software,
    }
}

fn device(path: &str, remedy: &str) -> Finding {
    let there = std::fs::exists(path).unwrap_or_default();
    Finding::of(AREA, path, there, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_shows_in_the_flags_of_the_processor() {
        assert_eq!(kind("model\nflags\t\t: fpu vmx sse\n"), Kind::Vmx);
        assert_eq!(kind("flags\t\t: fpu svm_lock svm\n"), Kind::Svm);
        assert_eq!(kind("flags\t\t: fpu svm_lock\n"), Kind::Software);
    }
}
