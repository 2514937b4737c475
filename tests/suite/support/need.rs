//! What a test needs of the machine. Outside the test machine a test without it says `SKIP` and why; inside it fails,
//! so that a skip cannot hide.

use std::path::Path;

/// What a test asks for, and what is missing.
pub(crate) type Need = Result<(), String>;

/// Leaves the test when the machine lacks something: `need!(root)`, `need!(root, cgroup2)`.
#[macro_export]
macro_rules! need {
    ($($what:ident),+ $(,)?) => {
        if let Some(why) = $crate::support::wall::excused() {
            return $crate::support::wall::passed_over(why);
        }
        $(
            if let Err(why) = $crate::support::need::$what() {
                return $crate::support::need::missing(&why);
            }
        )+
    };
}

/// Says that the running test is left out; in the test machine, where nothing may be missing, fails it.
#[expect(clippy::print_stdout, reason = "a skip that nobody sees would hide")]
pub(crate) fn missing(why: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    assert!(
        !in_machine(),
        "{test} needs more than the test machine has: {why}"
    );
    println!("SKIP {test}: {why}");
}

/// Whether this is the test machine.
pub(crate) fn in_machine() -> bool {
    std::env::var_os("BULKHEAD_IN_MACHINE").is_some_and(|value| value == "1")
}

/// The rights of root.
pub(crate) fn root() -> Need {
    let privileged = rustix::process::geteuid().is_root();
    privileged
        .then_some(())
        .ok_or_else(|| "not run by root".to_owned())
}

/// The machine's own network: the kernel tells of the ends of processes only there (`NETLINK_CONNECTOR`).
pub(crate) fn first_network() -> Need {
    let of = |process: &str| std::fs::read_link(Path::new("/proc").join(process).join("ns/net"));
    let same = of("self").is_ok_and(|own| of("1").is_ok_and(|first| own == first));
    same.then_some(())
        .ok_or_else(|| "in a network namespace of its own".to_owned())
}

/// A cgroup2 file system to track processes in.
pub(crate) fn cgroup2() -> Need {
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .iter()
        .any(|path| Path::new(path).join("cgroup.controllers").exists())
        .then_some(())
        .ok_or_else(|| "no cgroup2 file system is mounted".to_owned())
}

/// Controllers in cgroup2, so that limits are in force.
pub(crate) fn limits() -> Need {
    let present = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    let has = |name: &str| {
        present
            .split_ascii_whitespace()
            .any(|controller| controller == name)
    };
    (has("memory") && has("cpu") && has("pids"))
        .then_some(())
        .ok_or_else(|| "cgroup2 has no memory, cpu and pids controllers here".to_owned())
}

/// CRIU, on a machine whose processes it may freeze and stop as it likes.
pub(crate) fn criu() -> Need {
    machine()
}

/// runc.
pub(crate) fn runc() -> Need {
    program("runc")
}

/// crun, and the right to raise limits, without which it loads no device filter.
pub(crate) fn crun() -> Need {
    program("crun")?;
    let raised = std::process::Command::new("sh")
        .args(["-c", "ulimit -l unlimited"])
        .stderr(std::process::Stdio::null())
        .status();
    raised
        .is_ok_and(|status| status.success())
        .then_some(())
        .ok_or_else(|| "limits cannot be raised here, as crun must".to_owned())
}

fn program(name: &str) -> Need {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .any(|folder| folder.join(name).is_file())
        .then_some(())
        .ok_or_else(|| format!("no {name} is installed"))
}

/// The test machine itself: what a test does would disturb any other host.
pub(crate) fn machine() -> Need {
    in_machine()
        .then_some(())
        .ok_or_else(|| "only in the test machine".to_owned())
}

/// A systemd that may be asked for scopes and reloaded, which would disturb any host but the test machine.
pub(crate) fn systemd() -> Need {
    (in_machine() && Path::new("/run/systemd/system").is_dir())
        .then_some(())
        .ok_or_else(|| "only in the test machine with systemd as its init".to_owned())
}

/// nftables, for published ports and for what lies between networks.
pub(crate) fn nft() -> Need {
    let there = ["/usr/sbin/nft", "/usr/bin/nft"];
    there
        .iter()
        .any(|path| Path::new(path).exists())
        .then_some(())
        .ok_or_else(|| "no nft (Debian's nftables) here".to_owned())
}

/// iperf3, to measure rates.
pub(crate) fn iperf3() -> Need {
    Path::new("/usr/bin/iperf3")
        .exists()
        .then_some(())
        .ok_or_else(|| "iperf3 is not installed".to_owned())
}

/// File systems that are served by a process.
pub(crate) fn fuse() -> Need {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let there = known.contains("\tfuse\n") && Path::new("/dev/fuse").exists();
    there.then_some(()).ok_or_else(|| "no FUSE here".to_owned())
}

/// strace, to end a process at a system call of its own.
pub(crate) fn strace() -> Need {
    let found = ["/usr/bin/strace", "/usr/local/bin/strace"]
        .iter()
        .any(|path| Path::new(path).exists());
    found
        .then_some(())
        .ok_or_else(|| "strace is not installed".to_owned())
}

/// The right to raise limits and to be spared when memory is short.
pub(crate) fn raising() -> Need {
    const SYS_RESOURCE: u32 = 24;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let held = line.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    held.is_some_and(|held| held & (1 << SYS_RESOURCE) != 0)
        .then_some(())
        .ok_or_else(|| "CAP_SYS_RESOURCE is not held".to_owned())
}

/// What lets a user map more than the own number (`newuidmap(1)`).
pub(crate) fn uidmap() -> Need {
    let present = ["/usr/bin/newuidmap", "/etc/subuid", "/etc/subgid"];
    present
        .iter()
        .all(|path| Path::new(path).exists())
        .then_some(())
        .ok_or_else(|| "no newuidmap (Debian's uidmap) here".to_owned())
}

/// Real-time scheduling: with `RT_GROUP_SCHED` and cgroup v1 a group must have been given a share of it.
pub(crate) fn real_time() -> Need {
    let status = std::process::Command::new("chrt")
        .args(["--fifo", "1", "true"])
        .stderr(std::process::Stdio::null())
        .status();
    status
        .is_ok_and(|status| status.success())
        .then_some(())
        .ok_or_else(|| "real-time scheduling is refused here, or chrt is missing".to_owned())
}

/// KVM; where stock guests do not run, a few instructions do.
pub(crate) fn kvm() -> Need {
    if in_machine() {
        let loaded = std::process::Command::new("modprobe")
            .arg("kvm_amd")
            .status();
        loaded.map_err(|error| format!("modprobe: {error}"))?;
    }
    let opened = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm");
    opened
        .map(drop)
        .map_err(|error| format!("/dev/kvm: {error}"))
}
