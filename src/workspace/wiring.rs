//! A workspace's place on a network: made when its namespaces stand, undone when it goes; and the files that tell its
//! programs of it.
//!
//! `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` are files in the workspace's home that are mounted over those
//! of its root, but where the bundle mounts something itself. They belong to the workspace, which may write to them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::Mode;
use rustix::fs::OFlags;

use crate::host::uplink;
use crate::network;
use crate::network::Attached;
use crate::network::NetworkError;
use crate::network::Places;
use crate::plan::admission::Resource;
use crate::plan::network::Capacity;
use crate::plan::network::NetworkPlan;
use crate::spec::Spec;
use crate::spec::asked::Asked;
use crate::spec::asked::Bridged;
use crate::spec::asked::Network;
use crate::spec::id::ContainerId;
use crate::spec::mounts::Mount;
use crate::sys::Errno;
use crate::sys::tree;
use crate::sys::vanish::Parting;
use crate::sys::vanish::Remains;
use crate::workspace::blueprint::Blueprint;
use crate::workspace::error::WorkspaceError;
use crate::workspace::host_file::HostFile;
use crate::workspace::record::Record;
use crate::workspace::report::Report;
use crate::workspace::root::StateRoot;
use crate::workspace::store::Home;

/// The directory in the workspace's home.
const DIRECTORY: &str = "network";
/// The files in it, which go by the same name below `/etc`.
const FILES: [&str; 3] = ["hosts", "hostname", "resolv.conf"];
/// What a network carries where neither the administrator nor the way out says it, in bits per second.
const USUAL_RATE: u64 = 1_000_000_000;
/// Where a host whose resolver is a program of its own keeps the real ones.
const UPSTREAM: &str = "/run/systemd/resolve/resolv.conf";

/// The place on a bridge that is asked for.
pub(super) fn asked_for(asked: &Asked) -> Option<&Bridged> {
    match &asked.network {
        Some(Network::Bridge(bridged)) => Some(bridged),
        Some(Network::None | Network::Host) | None => None,
    }
}

/// Completes the configuration of a workspace at `home` that will be on a bridge: where its files will be mounted.
pub(super) fn prepare(spec: &mut Spec, asked: &Asked, home: &Path) {
    if asked_for(asked).is_none() {
        return;
    }
    for name in FILES {
        let destination = Path::new("/etc").join(name);
        let covered = spec.mounts.iter().any(|mount| {
            let own = Path::new("/").join(&mount.destination);
            own == destination || own == Path::new("/etc")
        });
        if covered {
            continue;
        }
        spec.mounts.push(Mount {
            destination,
            kind: "bind".to_owned(),
            source: home.join(DIRECTORY).join(name).display().to_string(),
            options: ["bind", "nosuid", "noexec", "nodev"]
                .map(str::to_owned)
                .to_vec(),
            ..Mount::default()
        });
    }
}

/// Makes the files that [`prepare`] promised, as far as they are known yet.
pub(super) fn make(home: &Home, blueprint: &Blueprint) -> Result<(), WorkspaceError> {
    if asked_for(&blueprint.asked).is_none() {
        return Ok(());
    }
    let failed = |source| WorkspaceError::Kernel {
        what: "make the files of the network",
        source,
    };
    match rustix::fs::mkdirat(home, DIRECTORY, Mode::from(0o755)) {
        // It is made again after it was reset.
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(failed(errno)),
    }
    let hostname = format!("{}\n", hostname(&blueprint.spec));
    let texts = [hosts(None, ""), hostname, resolvers()];
    for (name, text) in FILES.iter().zip(texts) {
        write(home, name, &text).map_err(failed)?;
    }
    Ok(())
}

/// What will be made of the network; nothing when it is not ours to make.
pub(super) fn plan(
    blueprint: &Blueprint,
    id: &str,
    places: &StateRoot,
) -> Result<Option<NetworkPlan>, WorkspaceError> {
    let Some(bridged) = asked_for(&blueprint.asked) else {
        return Ok(None);
    };
    let name = hostname(&blueprint.spec);
    let name = if name.is_empty() { id } else { name };
    let mut plan = NetworkPlan::of(bridged, id, name, &places.path);
    plan.capacity = carried(bridged, places)?;
    Ok(Some(plan))
}

/// Lets the rates that a record asks for hold for a workspace that runs; nothing when its network is not ours.
pub(super) fn regrant(record: &Record, places: &StateRoot) -> Result<(), WorkspaceError> {
    let asked = Asked::of(&record.annotations)?;
    let Some(bridged) = asked_for(&asked) else {
        return Ok(());
    };
    let id = record.id.as_str();
    let mut plan = NetworkPlan::of(bridged, id, id, &places.path);
    plan.capacity = carried(bridged, places)?;
    Ok(network::regrant(&plan, &self::places(places))?)
}

/// What the network of a workspace carries, when that counts for it.
fn carried(bridged: &Bridged, places: &StateRoot) -> Result<Option<Capacity>, WorkspaceError> {
    let rates = [bridged.inward, bridged.outward];
    let reserved = rates.iter().any(|rate| rate.reserve_bps.is_some());
    capacity(&places.host, &bridged.bridge, reserved)
}

/// Connects the workspace whose `network` namespace this is, and tells its programs of it.
pub(super) fn attach(
    home: &Home,
    plan: &NetworkPlan,
    network: BorrowedFd<'_>,
    report: &dyn Report,
) -> anyhow::Result<()> {
    let places = places_of(home);
    let attached = network::connect(plan, &places, network)?;
    for remark in &attached.remarks {
        report.warning(remark);
    }
    write(home, "hosts", &hosts(Some(&attached), &plan.hostname))?;
    Ok(())
}

/// Whether a workspace is on a bridge.
pub(super) fn is_wired(record: &Record) -> bool {
    Asked::of(&record.annotations).is_ok_and(|asked| asked_for(&asked).is_some())
}

/// Prepares to undo it when the first process has ended, by who does what comes `first`; [`detach`] does the rest, and tells
/// what failed.
pub(super) fn prepare_to_detach(
    home: &Home,
    id: &ContainerId,
    first: impl FnOnce() + Send + 'static,
) -> Option<Parting> {
    network::prepare_to_detach(id.as_str(), &places_of(home), first)
}

/// Removes the files of one that has ended, which nobody reads any more. What cannot be removed goes with its directory.
pub(super) fn forget_files(home: &Home) {
    drop(tree::remove(home, DIRECTORY.as_ref()));
}

/// Undoes all of it. Without a record the names are enough; with one that asks for no bridge there is nothing to undo.
pub(super) fn detach(
    home: &Home,
    record: Option<&Record>,
    remains: &mut Remains,
) -> Result<(), NetworkError> {
    let without = record.is_some_and(|record| {
        Asked::of(&record.annotations).is_ok_and(|asked| asked_for(&asked).is_none())
    });
    let id = home.path().file_name().and_then(|id| id.to_str());
    match id {
        Some(id) if !without => network::detach(id, &places_of(home), remains),
        _ => Ok(()),
    }
}

/// Where the networks of the state root are that a workspace belongs to.
fn places_of(home: &Home) -> Places {
    let root = home.path().parent().unwrap_or(home.path());
    Places {
        root: root.to_owned(),
        leases: root.join("@networks"),
    }
}

/// Where the networks of a state root are.
#[must_use]
pub fn places(root: &StateRoot) -> Places {
    Places {
        root: root.path.clone(),
        leases: root.shared("networks"),
    }
}

/// The addresses of all workspaces of a state root that have any, by name; none of networks that cannot be read.
#[must_use]
pub fn addresses(root: &StateRoot) -> BTreeMap<String, Vec<IpAddr>> {
    let networks = network::list(&places(root)).unwrap_or_default();
    let leases = networks.into_iter().flat_map(|network| network.leases);
    leases.map(|(id, lease)| (id, lease.addresses)).collect()
}

/// What a network carries: what the administrator says, and where that says nothing and some of it is promised, as much
/// as goes without saying.
fn capacity(
    file: &Path,
    network: &str,
    reserved: bool,
) -> Result<Option<Capacity>, WorkspaceError> {
    let amounts = HostFile::read(file)?.amounts;
    let rate = |resource: fn(String) -> Resource| amounts.get(&resource(network.to_owned()));
    let (inward, outward) = (rate(Resource::Inward), rate(Resource::Outward));
    let said = inward.is_some() || outward.is_some();
    if !said && !reserved {
        return Ok(None);
    }
    let usual = usual_rate();
    Ok(Some(Capacity {
        said,
        in_bps: inward.copied().unwrap_or(usual),
        out_bps: outward.copied().unwrap_or(usual),
    }))
}

/// What a network carries in each direction where nobody says so: as much as the host's way out, or a gigabit where that
/// has no speed. More does not leave the host, and within it the processor is the only wire.
pub(super) fn usual_rate() -> u64 {
    uplink::speed().unwrap_or(USUAL_RATE)
}

/// Lets what `host.toml` says by now count for the workspaces that are on networks; gives the networks of which it has
/// changed.
///
/// # Errors
///
/// [`WorkspaceError::HostFile`], and all that the kernel refuses.
pub fn renew(root: &StateRoot) -> Result<Vec<String>, WorkspaceError> {
    HostFile::read(&root.host)?;
    let carried = |network: &str, reserved: bool| {
        let found = capacity(&root.host, network, reserved);
        found.ok().flatten()
    };
    Ok(network::renew(&places(root), &carried)?)
}

fn hostname(spec: &Spec) -> &str {
    &spec.hostname
}

/// The names that are known inside: its own, and those of the others that are on the network already.
fn hosts(attached: Option<&Attached>, own: &str) -> String {
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    let Some(attached) = attached else {
        return text;
    };
    let mut line = |address: &IpAddr, name: &str| text.push_str(&format!("{address}\t{name}\n"));
    for address in &attached.addresses {
        line(address, own);
    }
    for (name, addresses) in &attached.neighbours {
        for address in addresses {
            line(address, name);
        }
    }
    text
}

/// The host's resolvers, but for those that only the host itself can reach.
fn resolvers() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let own = reachable(&read("/etc/resolv.conf"));
    if own.contains("nameserver") {
        return own;
    }
    let upstream = reachable(&read(UPSTREAM));
    if upstream.contains("nameserver") {
        upstream
    } else {
        own
    }
}

fn reachable(text: &str) -> String {
    let local = |line: &&str| {
        let mut words = line.split_ascii_whitespace();
        let address = words
            .next()
            .filter(|word| *word == "nameserver")
            .and_then(|_| words.next())
            .and_then(|word| word.parse::<IpAddr>().ok());
        address.is_some_and(|address| address.is_loopback())
    };
    let lines = text
        .lines()
        .filter(|line| !local(line) && !line.starts_with('#'));
    lines.map(|line| format!("{line}\n")).collect()
}

/// Writes a file in place: it may be mounted somewhere already. Whoever runs inside may read it.
fn write(home: &Home, name: &str, text: &str) -> Result<(), Errno> {
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let path = Path::new(DIRECTORY).join(name);
    let file = rustix::fs::openat(home, &path, flags, Mode::from(0o644))?;
    std::io::Write::write_all(&mut std::fs::File::from(file), text.as_bytes())
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_that_only_the_host_can_reach_are_left_out() {
        let text = "# made by\nsearch example.org\nnameserver 127.0.0.53\nnameserver ::1\nnameserver 192.0.2.1\n";
        assert_eq!(
            reachable(text),
            "search example.org\nnameserver 192.0.2.1\n"
        );
    }

    #[test]
    fn a_workspace_knows_itself_and_the_others_by_name() {
        let attached = Attached {
            addresses: vec!["10.0.0.3".parse().unwrap()],
            gateways: Vec::new(),
            neighbours: vec![("db".to_owned(), vec!["10.0.0.2".parse().unwrap()])],
            remarks: Vec::new(),
        };
        let text = hosts(Some(&attached), "web");
        assert!(text.ends_with("10.0.0.3\tweb\n10.0.0.2\tdb\n"), "{text}");
    }

    #[test]
    fn what_a_network_carries_is_the_administrators_word_or_the_usual_where_some_is_promised() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("host.toml");
        assert_eq!(capacity(&file, "lan", false).unwrap(), None);
        let usual = capacity(&file, "lan", true).unwrap().unwrap();
        assert!(!usual.said);
        assert_eq!([usual.in_bps, usual.out_bps], [usual_rate(); 2]);
        std::fs::write(&file, "[network.lan]\nin = \"2gbit\"\nout = \"100mbit\"\n").unwrap();
        let found = capacity(&file, "lan", false).unwrap().unwrap();
        assert_eq!((found.in_bps, found.out_bps), (2_000_000_000, 100_000_000));
        assert!(found.said);
        assert_eq!(capacity(&file, "other", false).unwrap(), None);
        std::fs::write(&file, "[network.lan]\nin = \"2gbit\"\n").unwrap();
        let found = capacity(&file, "lan", false).unwrap().unwrap();
        assert_eq!(found.out_bps, usual_rate());
        std::fs::write(&file, "network =").unwrap();
        assert!(capacity(&file, "lan", false).is_err());
    }
}
