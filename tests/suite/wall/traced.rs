//! What the host's side of a machine executes and opens, from the first call to the last, with a bundle that would like
//! to be asked.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::bundle;
use super::guests;
use crate::both;
use crate::need;

/// Programs that other runtimes start on the host, and what they might start them with.
const LURES: [&str; 9] = [
    "passt",
    "virtiofsd",
    "qemu-system-x86_64",
    "bulkhead",
    "newuidmap",
    "modprobe",
    "tc",
    "nft",
    "mount",
];

/// Devices of the host that a machine may be made with.
const DEVICES: [&str; 6] = [
    "/dev/null",
    "/dev/kvm",
    "/dev/net/tun",
    "/dev/vhost-net",
    "/dev/urandom",
    "/dev/full",
];

/// A call as it was traced: who made it, its name, the path in it, and the rest.
struct Call<'a> {
    pid: &'a str,
    name: &'a str,
    path: &'a str,
    rest: &'a str,
}

fn call(line: &str) -> Option<Call<'_>> {
    let (pid, rest) = line.split_once(char::is_whitespace)?;
    let (name, rest) = rest.trim_start().split_once('(')?;
    let (_, quoted) = rest.split_once('"').unwrap_or(("", ""));
    let (path, _) = quoted.split_once('"').unwrap_or(("", ""));
    Some(Call {
        pid,
        name,
        path,
        rest,
    })
}

/// Runs a bundle in a machine under `strace`, with its programs first in the path; gives what was traced.
fn traced(bundle: &Path) -> String {
    let home = both::home();
    let log = home.beside("trace");
    let calls = "trace=execve,execveat,open,openat,openat2,landlock_restrict_self";
    let run = home.command();
    let path = format!(
        "{}:/usr/bin:/bin:/usr/sbin:/sbin",
        bundle.join("rootfs/bin").display()
    );
    let ran = Command::new("/usr/bin/strace")
        .args(["-f", "--seccomp-bpf", "-s", "4096", "-e", calls, "-o"])
        .arg(&log)
        .arg(run.get_program())
        .args(run.get_args())
        .args(["run", "-b"])
        .arg(bundle)
        .arg(home.id())
        .env("PATH", path)
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert_eq!(ran.status.code(), Some(7), "{words}");
    std::fs::read_to_string(log).unwrap()
}

#[test]
fn nothing_of_a_bundle_is_executed_on_the_host_and_no_disk_is_opened() {
    need!(machine, kvm, strace);
    let bundle = bundle("exit 7");
    for lure in LURES {
        let place = bundle.rootfs("bin").join(lure);
        std::fs::remove_file(&place).ok();
        std::fs::write(&place, "#!/bin/sh\necho got out >/tmp/got-out\n").unwrap();
        std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let text = traced(bundle.path());
    let calls: Vec<Call<'_>> = text.lines().filter_map(call).collect();
    let own = env!("CARGO_BIN_EXE_bulkhead");
    // By a descriptor alone the program executes itself, from a mount or a file that cannot be written to.
    let executed = calls
        .iter()
        .filter(|call| call.name == "execve" || (call.name == "execveat" && !call.path.is_empty()));
    let strange: Vec<_> = executed
        .map(|call| call.path)
        .filter(|path| *path != own && !path.starts_with("/proc/self/"))
        .collect();
    assert!(strange.is_empty(), "executed: {strange:?}");
    let opened = calls.iter().filter(|call| call.name.starts_with("open"));
    let (mut disks, mut written) = (Vec::new(), Vec::new());
    let store = guests().display().to_string();
    for call in opened {
        if call.path.starts_with("/dev/") && !DEVICES.contains(&call.path) {
            disks.push(call.path);
        }
        let image = call.path.starts_with(&store) || call.path.contains("@data/guests");
        if image && (call.rest.contains("O_WRONLY") || call.rest.contains("O_RDWR")) {
            written.push(call.path);
        }
    }
    assert!(disks.is_empty(), "devices of the host: {disks:?}");
    assert!(written.is_empty(), "opened to be written to: {written:?}");
    nothing_after_the_jail(&calls);
}

/// Who has Landlock around them opens and executes nothing more: the VMM has.
fn nothing_after_the_jail(calls: &[Call<'_>]) {
    let mut closed: BTreeMap<&str, bool> = BTreeMap::new();
    for call in calls {
        let jailed = closed.get(call.pid) == Some(&true);
        assert!(
            !jailed,
            "{} of {} after the jail closed",
            call.name, call.path
        );
        if call.name == "landlock_restrict_self" {
            assert!(call.rest.contains("= 0"), "{}", call.rest);
            closed.insert(call.pid, true);
        }
    }
    assert_eq!(closed.len(), 1, "one VMM has closed its jail");
}
