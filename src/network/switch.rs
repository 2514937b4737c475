//! The host's own switches that let it pass packets on: what of them was changed for our networks is put back after the
//! last one.
//!
//! ```text
//! ROOT/@networks/.switches  the kernel's id of the uptime, then each setting and what it was, in the order of change
//! ```
//!
//! Others may have come to rely on them meanwhile, and nobody says so. A host that has another bridge, ours or not, is
//! left as it is.

use std::fmt::Write as _;
use std::path::Path;

use crate::network::error::NetworkError;
use crate::network::link;
use crate::sys::route::Route;
use crate::sys::uptime;

/// The switch that lets the host pass on IPv4.
const FORWARD: &str = "net/ipv4/ip_forward";
/// The switch that lets the host pass on IPv6.
const FORWARD6: &str = "net/ipv6/conf/all/forwarding";
/// The file that keeps what was before.
const BEFORE: &str = ".switches";

/// Lets the host pass packets on, where it does not yet. A host that learns its IPv6 routes from routers would stop to
/// listen to them then, unless it is told to go on (`accept_ra` 2).
pub(super) fn forward(leases: &Path, boot: &str) -> Result<(), NetworkError> {
    let mut changes = Vec::new();
    if link::read_setting(FORWARD).as_deref() == Some("0") {
        changes.push((FORWARD.to_owned(), "0", "1"));
    }
    if link::read_setting(FORWARD6).as_deref() == Some("0") {
        let interfaces = std::fs::read_dir("/proc/sys/net/ipv6/conf");
        for interface in interfaces.into_iter().flatten().flatten() {
            let name = interface.file_name();
            let setting = format!("net/ipv6/conf/{}/accept_ra", name.to_string_lossy());
            if name != "all" && link::read_setting(&setting).as_deref() == Some("1") {
                changes.push((setting, "1", "2"));
            }
        }
        changes.push((FORWARD6.to_owned(), "0", "1"));
    }
    if changes.is_empty() {
        return Ok(());
    }
    // Written down first: what is put back and was never changed is no harm.
    let path = leases.join(BEFORE);
    let mut text = match std::fs::read_to_string(&path) {
        Ok(text) if text.lines().next() == Some(boot) => text,
        _ => format!("{boot}\n"),
    };
    for (setting, before, _) in &changes {
        // Writing to a text does not fail.
        writeln!(text, "{setting} {before}").unwrap_or_default();
    }
    std::fs::write(&path, text).map_err(NetworkError::file("write", path))?;
    changes
        .iter()
        .try_for_each(|(setting, _, value)| link::write_setting(setting, value))
}

/// Puts the switches back, when the network with this bridge is the last; its bridge may be there still.
pub(super) fn put_back(route: &mut Route, leases: &Path, bridge: &str) -> Result<(), NetworkError> {
    let Ok(text) = std::fs::read_to_string(leases.join(BEFORE)) else {
        return Ok(());
    };
    let mut lines = text.lines();
    let boot = uptime::id().ok();
    if lines.next() != boot.as_deref() {
        return Ok(());
    }
    let others = link::bridges(route).map_err(NetworkError::kernel("list the bridges"))?;
    if others.iter().any(|other| other != bridge) {
        return Ok(());
    }
    let mut changes: Vec<&str> = lines.collect();
    changes.reverse();
    for change in changes {
        let Some((setting, before)) = change.split_once(' ') else {
            continue;
        };
        // An interface may have gone with its settings.
        if link::read_setting(setting).is_some() {
            link::write_setting(setting, before)?;
        }
    }
    Ok(())
}
