//! Connects workspaces to networks and takes them off, one at a time.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::path::Path;

use ipnet::IpNet;

use crate::network::Attached;
use crate::network::Places;
use crate::network::address;
use crate::network::address::InUse;
use crate::network::error::NetworkError;
use crate::network::firewall;
use crate::network::guard;
use crate::network::guard::Filter;
use crate::network::lease::Lease;
use crate::network::lease::Leases;
use crate::network::lease::Register;
use crate::network::link;
use crate::network::port;
use crate::network::shape;
use crate::network::switch;
use crate::plan::network;
use crate::plan::network::Capacity;
use crate::plan::network::Link;
use crate::plan::network::Names;
use crate::plan::network::NetworkPlan;
use crate::sys::Errno;
use crate::sys::interface::Prefixed;
use crate::sys::route::Route;
use crate::sys::uptime;
use crate::sys::vanish;
use crate::sys::vanish::Parting;
use crate::sys::vanish::Remains;

type Result<T, E = NetworkError> = std::result::Result<T, E>;

/// Gives a workspace its place on the network of `plan`, which is made if it is the first there, and a link from its own
/// `network` namespace to that.
///
/// When something fails, what was made stays for [`detach`] to undo: whoever calls this calls that then.
///
/// # Errors
///
/// [`NetworkError`] names the annotation at fault, or what the kernel refused.
pub fn connect(plan: &NetworkPlan, places: &Places, network: BorrowedFd<'_>) -> Result<Attached> {
    prepare(plan, places)?.connect(network)
}

/// Does all that needs nothing of the workspace itself.
fn prepare<'a>(plan: &NetworkPlan, places: &'a Places) -> Result<Prepared<'a>> {
    shape::check(plan)?;
    let boot = boot_id()?;
    let mut leases = Leases::lock(&places.leases)?;
    let mut register = leases.read(&plan.network, &boot)?;
    let granted = |register: &Register| register.leases.contains_key(&plan.id);
    if register.as_ref().is_some_and(granted) {
        // A workspace of this name has gone without its lease; the directory may go with it.
        undo(&leases, places, &plan.id, &boot, &mut Remains::default())?;
        drop(leases);
        leases = Leases::lock(&places.leases)?;
        register = leases.read(&plan.network, &boot)?;
    }
    let mut route = open()?;
    let register = match register {
        Some(register) => register,
        None => found(plan, places, &leases, &mut route)?,
    };
    // What others were promised of it goes on to hold.
    let kept = register.capacity.filter(|_| register.is_reserved());
    let mut prepared = Prepared {
        plan: NetworkPlan {
            capacity: plan.capacity.or(kept),
            ..plan.clone()
        },
        places,
        leases,
        route,
        register,
        remarks: Vec::new(),
        filter: Err(Errno::NOENT),
    };
    prepared.grant()?;
    prepared.make_network()?;
    prepared.guard()?;
    Ok(prepared)
}

/// A network that nobody has used yet.
fn found(
    plan: &NetworkPlan,
    places: &Places,
    leases: &Leases,
    route: &mut Route,
) -> Result<Register> {
    let boot = boot_id()?;
    let destinations =
        link::destinations(route).map_err(NetworkError::kernel("read the routes of the host"))?;
    let mut used: InUse = address::ways(&destinations);
    for name in leases.networks()? {
        let other = leases.read(&name, &boot).ok().flatten();
        if let Some(register) = other {
            let six = register.subnet6.map(IpNet::V6);
            let nets = std::iter::once(IpNet::V4(register.subnet)).chain(six);
            used.extend(nets.map(|net| (net, format!("network {name}"))));
        }
    }
    let (subnet, subnet6) = address::subnets(plan, &places.root, link::has_ipv6(), &used)?;
    Ok(Register {
        network: plan.network.clone(),
        boot,
        subnet,
        subnet6: subnet6.filter(|_| link::has_ipv6()),
        made: false,
        firewall: false,
        shaped: false,
        capacity: None,
        filter: None,
        last: 1,
        leases: std::collections::BTreeMap::new(),
    })
}

/// A workspace that has its place on a network, and no link yet. Nobody else changes a network while there is one.
#[derive(Debug)]
struct Prepared<'a> {
    plan: NetworkPlan,
    places: &'a Places,
    leases: Leases,
    route: Route,
    register: Register,
    remarks: Vec<String>,
    /// What decides about what it sends, or why nothing does.
    filter: Result<Filter, Errno>,
}

impl Prepared<'_> {
    /// Makes the link to a `network` namespace, with all that belongs to it.
    fn connect(mut self, network: BorrowedFd<'_>) -> Result<Attached> {
        if let Some(errno) = self.link(network)? {
            let id = &self.plan.id;
            self.remarks.push(format!(
                "ignoring that {id} may send in the name of its neighbours: no filter of sources here ({errno})"
            ));
        }
        let register = &self.register;
        let others = register.leases.iter();
        let others = others.filter(|(id, _)| **id != self.plan.id);
        Ok(Attached {
            addresses: self.lease().addresses,
            gateways: gateways(register).map(|(address, _)| address).collect(),
            neighbours: others
                .map(|(_, lease)| (lease.hostname.clone(), lease.addresses.clone()))
                .collect(),
            remarks: self.remarks,
        })
    }

    /// What was written down.
    fn lease(&self) -> Lease {
        let found = self.register.leases.get(&self.plan.id);
        found.cloned().unwrap_or_default()
    }

    /// Writes down what the workspace will have.
    fn grant(&mut self) -> Result<()> {
        let plan = &self.plan;
        port::check(&plan.publish, &self.register, &self.leases)?;
        let (place, addresses) = address::choose(plan, &self.register)?;
        let lease = Lease {
            place,
            hostname: plan.hostname.clone(),
            addresses,
            publish: plan.publish.clone(),
            shaped: shape::needed(plan),
            inward: plan.inward,
            outward: plan.outward,
        };
        if !lease.publish.is_empty() && firewall::program().is_none() {
            return Err(NetworkError::NoNft {
                port: lease.publish[0].to_string(),
            });
        }
        self.register.last = place;
        self.register.leases.insert(plan.id.clone(), lease);
        self.leases.write(&self.register)
    }

    /// Makes what all workspaces of the network share, as far as it is not there.
    fn make_network(&mut self) -> Result<()> {
        let before = self.register.clone();
        let plan = &self.plan;
        let lost = !self.register.made || self.bridge()?.is_none();
        if lost {
            link::remove(&self.route, &plan.names.bridge, &mut Remains::default())?;
            let mac = network::bridge_mac(&self.places.root, &plan.network);
            let addresses: Vec<Prefixed> = gateways(&self.register).collect();
            link::make_bridge(&mut self.route, plan, mac, &addresses)?;
            self.register.made = true;
            self.register.firewall = false;
        }
        if !self.register.firewall && firewall::program().is_some() {
            firewall::make(&plan.names, &self.register, &self.places.leases)?;
            self.register.firewall = true;
            self.publish_again()?;
        } else if lost {
            self.remarks.push(format!(
                "ignoring that network {} reaches nothing beyond this host: the program nft is missing; install nftables",
                plan.network
            ));
        }
        if self.register.capacity != plan.capacity {
            self.register.capacity = plan.capacity;
            let root = &self.places.root;
            shape::renew(&mut self.route, root, &mut self.register, Some(&plan.id))?;
        }
        if shape::needed(plan) && !self.register.shaped {
            shape::make_queues(&mut self.route, plan)?;
            self.register.shaped = true;
        }
        if self.register != before {
            self.leases.write(&self.register)?;
        }
        Ok(())
    }

    /// Sees to it that something decides about what the workspace sends, and that those who come later find it.
    fn guard(&mut self) -> Result<()> {
        let known = self.register.filter;
        self.filter = guard::enter(&mut self.register, &self.plan);
        if self.register.filter == known {
            return Ok(());
        }
        self.leases.write(&self.register)
    }

    /// The number of the bridge, if it is there.
    fn bridge(&self) -> Result<Option<u32>> {
        match self.route.index_of(&self.plan.names.bridge) {
            Ok(index) => Ok(Some(index)),
            Err(Errno::NODEV) => Ok(None),
            Err(errno) => Err(NetworkError::kernel("find the bridge")(errno)),
        }
    }

    /// A table that was made anew has none of the ports of those who were there before.
    fn publish_again(&self) -> Result<()> {
        let others = self.register.leases.iter();
        let others = others.filter(|(id, lease)| **id != self.plan.id && !lease.publish.is_empty());
        for (_, lease) in others {
            firewall::publish(&self.plan.names, &self.register, lease)?;
        }
        Ok(())
    }

    /// Makes the link, its rates, what is inside, and at last the ports; gives why nobody sees to it that only what is
    /// the workspace's own comes from there.
    fn link(&mut self, network: BorrowedFd<'_>) -> Result<Option<Errno>> {
        let lease = self.lease();
        let bridge = self.bridge()?;
        let bridge = bridge
            .ok_or(Errno::NODEV)
            .map_err(NetworkError::kernel("find the bridge"))?;
        let (plan, route) = (&self.plan, &mut self.route);
        link::make_pair(route, plan, bridge, network)?;
        let filter = std::mem::replace(&mut self.filter, Err(Errno::NOENT));
        let unwatched = guard::watch(route, plan, filter)?;
        if lease.shaped {
            shape::shape(route, plan, lease.place)?;
        }
        let addresses: Vec<Prefixed> = lease
            .addresses
            .iter()
            .map(|address| (*address, length_of(*address, &self.register)))
            .collect();
        let gateways: Vec<IpAddr> = gateways(&self.register)
            .map(|(address, _)| address)
            .collect();
        link::furnish(network, &addresses, &gateways)?;
        if !lease.publish.is_empty() {
            firewall::publish(&plan.names, &self.register, &lease)?;
        }
        Ok(unwatched)
    }
}

/// Prepares to remove the link of a workspace, by who does what comes `first`; nothing when it has none. [`detach`] does
/// the rest, and tells what failed.
#[must_use]
pub fn prepare_to_detach(
    id: &str,
    places: &Places,
    first: impl FnOnce() + Send + 'static,
) -> Option<Parting> {
    let link = Link::of(&places.root, id).name;
    vanish::prepare(&link, first).ok()
}

/// Takes a workspace off its network, and removes the network with its last workspace. What is not there is away
/// already: this may be repeated, and needs nothing but the names. When it returns nobody finds anything of it; what
/// the kernel still takes apart is among `remains`.
///
/// # Errors
///
/// Everything that could not be undone; the rest is.
pub fn detach(id: &str, places: &Places, remains: &mut Remains) -> Result<()> {
    match Leases::lock_present(&places.leases)? {
        Some(leases) => undo(&leases, places, id, &boot_id()?, remains),
        // Without a directory there is no lease, and no link was made without one.
        None => Ok(()),
    }
}

fn undo(
    leases: &Leases,
    places: &Places,
    id: &str,
    boot: &str,
    remains: &mut Remains,
) -> Result<()> {
    let mut route = open()?;
    let mut errors = Vec::new();
    let link = Link::of(&places.root, id).name;
    errors.extend(link::remove(&route, &link, remains).err());
    let networks = leases.networks()?;
    if networks.is_empty() {
        leases.tidy();
    }
    for name in networks {
        match leases.read(&name, boot) {
            Ok(Some(register))
                if register.leases.contains_key(id) || register.leases.is_empty() =>
            {
                let mut leaving = Departure {
                    leases,
                    root: &places.root,
                    names: Names::of(&places.root, &name),
                    route: &mut route,
                    remains,
                };
                errors.extend(leaving.leave(register, id).err());
            }
            Ok(_) => {}
            // It cannot be said who has what there: `net rm --force` is for that.
            Err(NetworkError::Damaged { .. }) => {}
            Err(error) => errors.push(error),
        }
    }
    NetworkError::all(errors)
}

/// A capacity that nobody has said bounds everybody only while somebody was promised some of it.
fn release(register: &mut Register, root: &Path, route: &mut Route) -> Result<()> {
    let usual = register.capacity.is_some_and(|capacity| !capacity.said);
    if !usual || register.is_reserved() {
        return Ok(());
    }
    register.capacity = None;
    shape::renew(route, root, register, None)
}

/// Lets what networks carry, as `carried` says by name and whether any of it is promised, count for those who are there;
/// gives the networks of which it has changed.
///
/// # Errors
///
/// Everything that could not be done; the rest is.
pub fn renew(
    places: &Places,
    carried: &dyn Fn(&str, bool) -> Option<Capacity>,
) -> Result<Vec<String>> {
    let Some(leases) = Leases::lock_present(&places.leases)? else {
        return Ok(Vec::new());
    };
    let (boot, mut route) = (boot_id()?, open()?);
    let mut renewed = Vec::new();
    let mut errors = Vec::new();
    for name in leases.networks()? {
        let Ok(Some(mut register)) = leases.read(&name, &boot) else {
            continue;
        };
        let capacity = carried(&name, register.is_reserved());
        if !register.made || register.capacity == capacity {
            continue;
        }
        register.capacity = capacity;
        let done = shape::renew(&mut route, &places.root, &mut register, None);
        match done.and_then(|()| leases.write(&register)) {
            Ok(()) => renewed.push(name),
            Err(error) => errors.push(error),
        }
    }
    NetworkError::all(errors).map(|()| renewed)
}

/// A network on its way to have one workspace less.
struct Departure<'a> {
    leases: &'a Leases,
    root: &'a Path,
    names: Names,
    route: &'a mut Route,
    remains: &'a mut Remains,
}

impl Departure<'_> {
    /// Takes a workspace's ports, rates and lease away, and then the network if nobody is left.
    fn leave(&mut self, mut register: Register, id: &str) -> Result<()> {
        let lease = register.leases.get(id).cloned().unwrap_or_default();
        let mut others = register.leases.clone();
        others.remove(id);
        if others.is_empty() {
            return self.dissolve(&register.network);
        }
        let mut errors = Vec::new();
        let names = &self.names;
        if lease.shaped {
            let queues = [names.towards.as_str(), &names.from];
            errors.extend(shape::unshape(self.route, queues, lease.place).err());
        }
        if !lease.publish.is_empty() && register.firewall {
            errors.extend(firewall::withdraw(names, &register, &lease).err());
        }
        if errors.is_empty() {
            register.leases = others;
            errors.extend(release(&mut register, self.root, self.route).err());
            errors.extend(self.leases.write(&register).err());
        }
        NetworkError::all(errors)
    }

    /// Removes all that a network is on the host, and forgets it.
    fn dissolve(&mut self, network: &str) -> Result<()> {
        let mut errors = Vec::new();
        let names = &self.names;
        if firewall::program().is_some() {
            errors.extend(firewall::remove(names).err());
        }
        if self.leases.networks()? == [network] {
            let back = switch::put_back(self.route, self.leases.directory(), &names.bridge);
            errors.extend(back.err());
        }
        for name in [&names.towards, &names.from, &names.bridge] {
            errors.extend(link::remove(self.route, name, self.remains).err());
        }
        if errors.is_empty() {
            errors.extend(self.leases.forget(network).err());
        }
        NetworkError::all(errors)
    }
}

/// All networks of a state root, by name.
///
/// # Errors
///
/// Fails when the leases cannot be read; networks whose file is damaged are among the errors.
pub fn list(places: &Places) -> Result<Vec<Register>> {
    let Some(leases) = Leases::lock_present(&places.leases)? else {
        return Ok(Vec::new());
    };
    let boot = boot_id()?;
    let registers = leases.networks()?;
    let registers = registers.iter().map(|name| leases.read(name, &boot));
    Ok(registers
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .flatten()
        .collect())
}

/// One network.
///
/// # Errors
///
/// [`NetworkError::Missing`] when there is none of that name.
pub fn inspect(name: &str, places: &Places) -> Result<Register> {
    let leases = Leases::lock_present(&places.leases)?;
    let boot = boot_id()?;
    let register = leases.map(|leases| leases.read(name, &boot)).transpose()?;
    register.flatten().ok_or_else(|| NetworkError::Missing {
        network: name.to_owned(),
    })
}

/// Removes a network. With `force` the links of those who use it go too; they stay without a network.
///
/// # Errors
///
/// [`NetworkError::InUse`] without `force`, [`NetworkError::Missing`] when there is none.
pub fn remove(name: &str, places: &Places, force: bool) -> Result<()> {
    let missing = || NetworkError::Missing {
        network: name.to_owned(),
    };
    let leases = Leases::lock_present(&places.leases)?.ok_or_else(missing)?;
    let names = Names::of(&places.root, name);
    let mut route = open()?;
    let register = match leases.read(name, &boot_id()?) {
        Err(NetworkError::Damaged { .. }) if force => None,
        answer => Some(answer?.ok_or_else(missing)?),
    };
    let holders: Vec<String> = register
        .iter()
        .flat_map(|register| register.leases.keys().cloned())
        .collect();
    if !force && !holders.is_empty() {
        return Err(NetworkError::InUse {
            network: name.to_owned(),
            holders,
        });
    }
    let mut errors = Vec::new();
    let mut remains = Remains::default();
    for id in &holders {
        let link = Link::of(&places.root, id).name;
        errors.extend(link::remove(&route, &link, &mut remains).err());
    }
    let left = link::remove_users(&mut route, &names.bridge);
    errors.extend(left.err());
    let mut leaving = Departure {
        leases: &leases,
        root: &places.root,
        names,
        route: &mut route,
        remains: &mut remains,
    };
    errors.extend(leaving.dissolve(name).err());
    NetworkError::all(errors)
}

/// Takes everybody off who is not among `live`, and removes networks that nobody uses; gives who and what went.
///
/// # Errors
///
/// Everything that could not be undone; the rest is.
pub fn collect(places: &Places, live: &BTreeSet<String>) -> Result<Vec<String>> {
    let Some(leases) = Leases::lock_present(&places.leases)? else {
        return Ok(Vec::new());
    };
    let boot = boot_id()?;
    let mut gone = Vec::new();
    let mut errors = Vec::new();
    let mut remains = Remains::default();
    for name in leases.networks()? {
        let register = match leases.read(&name, &boot) {
            Ok(Some(register)) => register,
            Ok(None) => continue,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        let dead = register.leases.keys().filter(|id| !live.contains(*id));
        let dead: Vec<String> = dead.cloned().collect();
        for id in &dead {
            errors.extend(undo(&leases, places, id, &boot, &mut remains).err());
            gone.push(format!("lease of {id} on network {name}"));
        }
        if register.leases.is_empty() {
            let mut leaving = Departure {
                leases: &leases,
                root: &places.root,
                names: Names::of(&places.root, &name),
                route: &mut open()?,
                remains: &mut remains,
            };
            errors.extend(leaving.dissolve(&name).err());
            gone.push(format!("network {name}"));
        }
    }
    leases.tidy();
    NetworkError::all(errors).map(|()| gone)
}

/// The addresses of a network's bridge.
fn gateways(register: &Register) -> impl Iterator<Item = Prefixed> {
    let six = register.subnet6.map(IpNet::V6);
    let nets = std::iter::once(IpNet::V4(register.subnet)).chain(six);
    nets.map(|net| (link::first_of(net.network()), net.prefix_len()))
}

fn length_of(address: IpAddr, register: &Register) -> u8 {
    match address {
        IpAddr::V4(_) => register.subnet.prefix_len(),
        IpAddr::V6(_) => register.subnet6.map_or(64, |subnet| subnet.prefix_len()),
    }
}

pub(super) fn open() -> Result<Route> {
    Route::open().map_err(NetworkError::kernel("open a netlink socket"))
}

/// The kernel's id of the present uptime.
pub(super) fn boot_id() -> Result<String> {
    uptime::id().map_err(|errno| NetworkError::file("read", uptime::BOOT_ID)(errno.into()))
}
