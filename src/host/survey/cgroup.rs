//! Control groups: which generation has which controller, and what can be had of the second.

use crate::host::Kernel;
use crate::host::cgroup::Cgroups;
use crate::host::cgroup::Mode;
use crate::host::survey::Finding;
use crate::sys::bpf;

const AREA: &str = "cgroup";

/// The controllers that limits are set with, and the fields that need them.
const CONTROLLERS: [(&str, &str); 8] = [
    ("cpu", "cpu.shares, quota, period, burst, idle"),
    ("cpuset", "cpu.cpus, cpu.mems"),
    ("memory", "memory"),
    ("io", "blockIO"),
    ("pids", "pids"),
    ("hugetlb", "hugepageLimits"),
    ("rdma", "rdma"),
    ("misc", "unified[\"misc.max\"]"),
];

const UNIFY: &str = "boot with systemd.unified_cgroup_hierarchy=1, or cgroup_no_v1=all";

/// The root has no such file, so it is told by the version.
const KILLS_SINCE: Kernel = Kernel {
    major: 5,
    minor: 14,
};

/// `mov r0, 1; exit`.
const LET_EVERYTHING_THROUGH: [u64; 2] = [0x1_0000_00b7, 0x95];

pub(super) fn findings(cgroups: &Cgroups, kernel: Kernel) -> Vec<Finding> {
    let mut found = vec![layout(cgroups)];
    found.extend(
        CONTROLLERS
            .iter()
            .map(|(name, fields)| controller(cgroups, name, fields)),
    );
    found.push(Finding::of(
        AREA,
        "cgroup.kill",
        cgroups.mount.is_some() && kernel >= KILLS_SINCE,
        "Linux 5.14; processes are killed singly else",
    ));
    found.push(filter());
    found.push(Finding::of(
        AREA,
        "systemd manager",
        cgroups.systemd,
        "systemd as init; the cgroupfs manager needs none",
    ));
    found
}

fn layout(cgroups: &Cgroups) -> Finding {
    let place = cgroups
        .mount
        .as_ref()
        .map(|mount| mount.display().to_string())
        .unwrap_or_default();
    match (cgroups.mode, cgroups.read_only) {
        (Mode::Unified, false) => Finding::yes(AREA, "layout", format!("unified, at {place}")),
        (Mode::Hybrid, false) => {
            let found = format!("hybrid, cgroup2 at {place}");
            Finding {
                remedy: Some(UNIFY.to_owned()),
                ..Finding::yes(AREA, "layout", found)
            }
        }
        (Mode::Unified | Mode::Hybrid, true) => Finding::no(
            AREA,
            "layout",
            format!("read-only, at {place}"),
            &format!("mount -o remount,rw {place}"),
        ),
        (Mode::Legacy, _) => Finding::no(
            AREA,
            "layout",
            "cgroup v1 alone",
            "mount -t cgroup2 cgroup2 DIRECTORY for tracking and killing; for limits as well: \
             boot with systemd.unified_cgroup_hierarchy=1",
        ),
        (Mode::None, _) => {
            let remedy = "mount -t cgroup2 cgroup2 /sys/fs/cgroup";
            Finding::no(AREA, "layout", "nothing mounted", remedy)
        }
    }
}

fn controller(cgroups: &Cgroups, name: &str, fields: &str) -> Finding {
    let title = format!("{name} controller");
    if cgroups.controllers.contains(name) {
        return Finding::yes(AREA, &title, "cgroup v2");
    }
    match cgroups.legacy_place(name) {
        Some(place) => {
            let found = format!("cgroup v1, at {}", place.display());
            let remedy = format!("{UNIFY}; until then linux.resources.{fields} is refused");
            Finding::no(AREA, &title, found, &remedy)
        }
        None => {
            let remedy = format!(
                "a kernel that has it, or a parent group that delegates it; until then \
                 linux.resources.{fields} is refused"
            );
            Finding::no(AREA, &title, "no", &remedy)
        }
    }
}

fn filter() -> Finding {
    let name = "device filter";
    match bpf::load_device_filter(&LET_EVERYTHING_THROUGH, *b"bulkhead_probe\0\0") {
        Ok(_) => Finding::yes(AREA, name, "yes"),
        Err(errno) => Finding::no(
            AREA,
            name,
            errno.to_string(),
            "CAP_BPF in the first user namespace, and a kernel with CONFIG_CGROUP_BPF",
        ),
    }
}
