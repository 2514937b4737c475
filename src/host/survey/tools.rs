//! Programs and services of others that some commands need.

use std::path::PathBuf;

use crate::host::Host;
use crate::host::survey::Finding;
use crate::sys::Errno;
use crate::sys::probe;

const AREA: &str = "tools";

/// Programs, what for, and the package of Debian that has them.
const PROGRAMS: [(&str, &str); 4] = [
    ("criu", "apt install criu, for checkpoint and restore"),
    ("newuidmap", "apt install uidmap, for running without root"),
    ("newgidmap", "apt install uidmap, for running without root"),
    ("nft", "apt install nftables, to look at rules"),
];

pub(super) fn findings(host: &Host) -> Vec<Finding> {
    let mut found: Vec<Finding> = PROGRAMS
        .iter()
        .map(|(name, remedy)| program(name, remedy))
        .collect();
    found.push(nftables());
    if host.caller.host_uid != 0 {
        found.push(user_bus());
    }
    found
}

fn program(name: &str, remedy: &str) -> Finding {
    match in_path(name) {
        Some(path) => Finding::yes(AREA, name, path.display().to_string()),
        None => Finding::no(AREA, name, "not in $PATH", remedy),
    }
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

fn nftables() -> Finding {
    match probe::nftables() {
        Ok(()) => Finding::yes(AREA, "nftables", "yes"),
        Err(Errno::PERM) => Finding::no(
            AREA,
            "nftables",
            "no right to ask",
            "CAP_NET_ADMIN in this network namespace",
        ),
        Err(errno) => Finding::no(AREA, "nftables", errno.to_string(), "modprobe nf_tables"),
    }
}

/// The bus on which a user's own systemd can be asked for scopes.
fn user_bus() -> Finding {
    let directory = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let there = directory.is_some_and(|directory| directory.join("bus").exists());
    let remedy = "apt install dbus-user-session, and log in; or loginctl enable-linger";
    Finding::of(AREA, "bus of the user", there, remedy)
}
