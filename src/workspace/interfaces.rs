//! What has gone through the network interfaces of a workspace, as the kernel counts it.

use std::fs;
use std::path::Path;

use crate::network;
use crate::network::tap;
use crate::plan::network::INSIDE;
use crate::plan::network::Link;
use crate::spec::asked::Asked;
use crate::spec::asked::Network;
use crate::sys::pseudo;
use crate::workspace::found::Workspace;
use crate::workspace::record::Record;

/// The counters of one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name, inside the workspace.
    pub name: String,
    /// Bytes, packets, errors and drops on the way in.
    pub received: [u64; 4],
    /// Bytes, packets, errors and drops on the way out.
    pub sent: [u64; 4],
}

impl Workspace {
    /// As [`of`] gives them.
    #[must_use]
    pub fn interfaces(&self) -> Option<Vec<Interface>> {
        of(self.record())
    }
}

/// The interfaces of a workspace's own network namespace, but for the loopback; none if it shares the caller's, or has
/// no first process any more.
#[must_use]
pub fn of(record: &Record) -> Option<Vec<Interface>> {
    let init = record
        .init
        .as_ref()
        .filter(|init| init.lives().unwrap_or(false))?;
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let pid = init.pid.to_string();
    if namespace(&pid)? == namespace("self")? {
        return None;
    }
    let table = pseudo::read(format!("/proc/{pid}/net/dev")).ok()?;
    let table = String::from_utf8(table).ok()?;
    // What leads into a machine is counted at the interface that the machine took on.
    let shown = |one: &Interface| record.machine.is_none() || !one.name.starts_with(tap::NAME);
    let found = parse(&table).into_iter().filter(shown).collect();
    // Between the two looks the number may have become somebody else's.
    init.lives().unwrap_or(false).then_some(found)
}

/// The same of a workspace whose home is at `home`, as the host's end counted them where the runtime made the link: what
/// happens inside cannot touch those, and the host's end knows what its limits dropped.
#[must_use]
pub fn counted(home: &Path, record: &Record) -> Option<Vec<Interface>> {
    let asked = Asked::of(&record.annotations).ok()?;
    if let Some(Network::Bridge(_)) = asked.network
        && let Some(root) = home.parent()
        && let Some(seen) = network::counters(&Link::of(root, record.id.as_str()))
    {
        return Some(vec![Interface {
            name: INSIDE.to_owned(),
            received: [seen.in_bytes, seen.in_packets, 0, seen.in_drops],
            sent: [seen.out_bytes, seen.out_packets, 0, seen.out_drops],
        }]);
    }
    of(record)
}

/// Reads `/proc/net/dev`: after the name eight columns of what came in, then eight of what went out.
fn parse(table: &str) -> Vec<Interface> {
    table
        .lines()
        .filter_map(|line| {
            let (name, columns) = line.split_once(':')?;
            let columns: Vec<u64> = columns
                .split_whitespace()
                .map_while(|word| word.parse().ok())
                .collect();
            let name = name.trim().to_owned();
            let received = columns.get(..4)?.try_into().ok()?;
            let sent = columns.get(8..12)?.try_into().ok()?;
            (name != "lo").then_some(Interface {
                name,
                received,
                sent,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_read_from_the_kernels_table() {
        let table = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0:    1500      10    1    2    0     0          0         0     3000      20    3    4    0     0       0          0
";
        let expected = Interface {
            name: "eth0".to_owned(),
            received: [1500, 10, 1, 2],
            sent: [3000, 20, 3, 4],
        };
        assert_eq!(parse(table), [expected]);
    }
}
