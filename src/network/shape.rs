//! Rates: what a workspace may receive and send, kept by queues on the host's side of its link.
//!
//! Each network that needs it has two interfaces that do nothing but queue (`ifb`), one for each direction. Packets of a
//! shaped workspace are led through them, where each workspace has a class of its own in one tree (HTB): so a reserve
//! holds against all others of the network, and a limit alone takes nothing from anybody. The tree's root is the
//! network's capacity, where that is known. Rates count whole frames, as on a wire.

use std::path::Path;

use netlink_packet_core::DefaultNla;
use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_core::NLM_F_REPLACE;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::TcAction;
use netlink_packet_route::tc::TcActionAttribute;
use netlink_packet_route::tc::TcActionMirrorOption;
use netlink_packet_route::tc::TcActionOption;
use netlink_packet_route::tc::TcActionType;
use netlink_packet_route::tc::TcAttribute;
use netlink_packet_route::tc::TcFilterU32Option;
use netlink_packet_route::tc::TcHandle;
use netlink_packet_route::tc::TcMessage;
use netlink_packet_route::tc::TcMirror;
use netlink_packet_route::tc::TcOption;

use crate::network::error::NetworkError;
use crate::network::lease::Lease;
use crate::network::lease::Register;
use crate::network::link;
use crate::plan::network::Bridged;
use crate::plan::network::Names;
use crate::plan::network::NetworkPlan;
use crate::plan::network::Rate;
use crate::sys::Errno;
use crate::sys::interface::NEW;
use crate::sys::route::Refused;
use crate::sys::route::Route;
use crate::sys::vanish::Remains;

/// The priority of the filter that leads to a queue.
const REDIRECTS: u16 = 2;
/// What makes something, or changes it.
const SET: u16 = NLM_F_CREATE | NLM_F_REPLACE;
/// The class that holds all others where there is a capacity.
const WHOLE: u16 = 1;
/// The class of what belongs to no workspace.
const REST: u16 = 2;
/// The class of the workspace at place 0.
const CLASSES: u16 = 0x100;
/// The rate of those who reserve nothing; what they get beyond is borrowed.
const LEAST_BPS: u64 = 64_000;
/// What a class that borrows may send in its turn, in bytes: as much as any other, whatever it reserves.
const QUANTUM: u32 = 65_536;
/// The largest packet that the kernel hands from one interface to another, in bytes.
const LARGEST: u64 = 65_536;
/// `ETH_P_ALL`, in the order of the wire.
const ALL: u32 = 0x0300;

/// Where the hardware addresses of a frame are, seen from its payload.
#[derive(Debug, Clone, Copy)]
enum Station {
    Receiver,
    Sender,
}

/// One direction of a network.
struct Way<'a> {
    queue: &'a str,
    capacity: Option<u64>,
    rate: Rate,
    station: Station,
    hook: TcHandle,
}

/// Both directions of a workspace.
fn ways(plan: &NetworkPlan) -> [Way<'_>; 2] {
    let hook = |minor| TcHandle {
        major: u16::MAX,
        minor,
    };
    [
        Way {
            queue: &plan.names.towards,
            capacity: plan.capacity.map(|capacity| capacity.in_bps),
            rate: plan.inward,
            station: Station::Receiver,
            hook: hook(TcHandle::MIN_EGRESS),
        },
        Way {
            queue: &plan.names.from,
            capacity: plan.capacity.map(|capacity| capacity.out_bps),
            rate: plan.outward,
            station: Station::Sender,
            hook: hook(TcHandle::MIN_INGRESS),
        },
    ]
}

/// Whether the traffic of a workspace is led through queues: when it has rates, and always where the network's capacity
/// is known, since no other's reserve could hold against it else.
pub(super) fn needed(plan: &NetworkPlan) -> bool {
    ways(plan).iter().any(Way::needed)
}

/// Refuses a reserve of an unknown whole.
pub(super) fn check(plan: &NetworkPlan) -> Result<(), NetworkError> {
    let unbacked = |rate: &Rate| plan.capacity.is_none() && rate.reserve_bps.is_some();
    let direction = match (unbacked(&plan.inward), unbacked(&plan.outward)) {
        (false, false) => return Ok(()),
        (true, _) => "in",
        (false, true) => "out",
    };
    Err(NetworkError::NoCapacity {
        direction,
        network: plan.network.clone(),
    })
}

/// Makes the two queues of a network, in place of what a dead command left.
pub(super) fn make_queues(route: &mut Route, plan: &NetworkPlan) -> Result<(), NetworkError> {
    for way in ways(plan) {
        link::remove(route, way.queue, &mut Remains::default())?;
        link::make_queue(route, way.queue, &plan.names.alias)?;
        let index = index_of(route, way.queue)?;
        let order = (RouteNetlinkMessage::NewQueueDiscipline(tree(index)), NEW);
        tell(route, vec![order], way.queue)?;
    }
    Ok(())
}

/// Leads a workspace, whose link has hooks, through the queues, where it has a class.
pub(super) fn shape(route: &mut Route, plan: &NetworkPlan, place: u32) -> Result<(), NetworkError> {
    let near = index_of(route, &plan.link.name)?;
    let mut orders = Vec::new();
    for way in ways(plan).iter().filter(|way| way.needed()) {
        let queue = index_of(route, way.queue)?;
        orders.extend(way.classes(queue, class_of(place), plan.mac));
        orders.push((
            RouteNetlinkMessage::NewTrafficFilter(redirect(near, way.hook, queue)),
            NEW,
        ));
    }
    tell(route, orders, &plan.link.name)
}

/// Takes the classes of a workspace away; what is not there is away already. Its hooks go with its link.
pub(super) fn unshape(
    route: &mut Route,
    queues: [&str; 2],
    place: u32,
) -> Result<(), NetworkError> {
    for queue in queues {
        let index = match route.index_of(queue) {
            Err(Errno::NODEV) => continue,
            answer => answer.map_err(NetworkError::kernel(format!("find the queue {queue}")))?,
        };
        let class = class_of(place);
        let gone = [
            RouteNetlinkMessage::DelTrafficFilter(filter(index, TREE, class)),
            RouteNetlinkMessage::DelTrafficClass(message(index, handle(class), TREE)),
        ];
        for order in gone {
            match route.tell(order, 0) {
                Ok(()) | Err(Errno::NOENT | Errno::INVAL) => {}
                Err(errno) => {
                    let what = format!("take a class from the queue {queue}");
                    return Err(NetworkError::kernel(what)(errno));
                }
            }
        }
    }
    Ok(())
}

/// Makes the queues of a network anew, when what it carries has become another, and leads through them whom that
/// concerns but for `newcomer`, whose link may not be there yet. Packets that wait in the old ones are lost.
pub(super) fn renew(
    route: &mut Route,
    root: &Path,
    register: &mut Register,
    newcomer: Option<&str>,
) -> Result<(), NetworkError> {
    let names = Names::of(root, &register.network);
    let others = register
        .leases
        .iter()
        .filter(|(id, _)| newcomer != Some(id));
    let plans = others.map(|(id, lease)| plan_of(id, lease, root, register));
    let plans: Vec<NetworkPlan> = plans.collect();
    for plan in &plans {
        unhook(route, plan)?;
    }
    for queue in [&names.towards, &names.from] {
        link::remove(route, queue, &mut Remains::default())?;
    }
    let queues = plans.iter().find(|plan| needed(plan));
    register.shaped = queues.is_some();
    if let Some(plan) = queues {
        make_queues(route, plan)?;
    }
    for plan in plans {
        let Some(lease) = register.leases.get_mut(&plan.id) else {
            continue;
        };
        lease.shaped = needed(&plan);
        // A workspace that is about to go may be without its link already.
        if lease.shaped && route.index_of(&plan.link.name) != Err(Errno::NODEV) {
            shape(route, &plan, lease.place)?;
        }
    }
    Ok(())
}

/// What was planned of a workspace's rates.
fn plan_of(id: &str, lease: &Lease, root: &Path, register: &Register) -> NetworkPlan {
    let bridged = Bridged {
        bridge: register.network.clone(),
        inward: lease.inward,
        outward: lease.outward,
        ..Bridged::default()
    };
    NetworkPlan {
        capacity: register.capacity,
        ..NetworkPlan::of(&bridged, id, &lease.hostname, root)
    }
}

/// Leads a workspace past the queues.
fn unhook(route: &mut Route, plan: &NetworkPlan) -> Result<(), NetworkError> {
    let near = match route.index_of(&plan.link.name) {
        Err(Errno::NODEV) => return Ok(()),
        answer => answer.map_err(NetworkError::kernel("find the link of a workspace"))?,
    };
    for way in ways(plan) {
        let gone = filter(near, way.hook, REDIRECTS);
        match route.tell(RouteNetlinkMessage::DelTrafficFilter(gone), 0) {
            Ok(()) | Err(Errno::NOENT | Errno::INVAL) => {}
            Err(errno) => {
                let what = format!("lead {} past the queues", plan.link.name);
                return Err(NetworkError::kernel(what)(errno));
            }
        }
    }
    Ok(())
}

/// The tree's own handle.
const TREE: TcHandle = TcHandle { major: 1, minor: 0 };

fn handle(minor: u16) -> TcHandle {
    TcHandle { major: 1, minor }
}

fn class_of(place: u32) -> u16 {
    CLASSES.saturating_add(u16::try_from(place).unwrap_or(u16::MAX))
}

fn index_of(route: &mut Route, name: &str) -> Result<u32, NetworkError> {
    let found = route.index_of(name);
    found.map_err(NetworkError::kernel(format!("find the interface {name}")))
}

fn tell(
    route: &mut Route,
    orders: Vec<(RouteNetlinkMessage, u16)>,
    name: &str,
) -> Result<(), NetworkError> {
    route.tell_all(orders).map_err(|Refused { index, errno }| {
        NetworkError::kernel(format!("set the rates of {name} (part {index})"))(errno)
    })
}

impl Way<'_> {
    fn needed(&self) -> bool {
        self.capacity.is_some() || self.rate.limit_bps.is_some()
    }

    /// The class of a workspace with the queue in it and the filter that leads there, and those that all share.
    fn classes(&self, queue: u32, class: u16, mac: [u8; 6]) -> Vec<(RouteNetlinkMessage, u16)> {
        let mut orders = Vec::new();
        let mut parent = TREE;
        let mut own = Class {
            rate: self.rate.reserve_bps.unwrap_or(LEAST_BPS),
            ceiling: self.rate.limit_bps.unwrap_or(u64::MAX),
        };
        match self.capacity {
            Some(capacity) => {
                let whole = Class {
                    rate: capacity,
                    ceiling: capacity,
                };
                let rest = Class {
                    rate: LEAST_BPS,
                    ceiling: capacity,
                };
                parent = handle(WHOLE);
                own.ceiling = own.ceiling.min(capacity);
                orders.extend(whole.orders(queue, WHOLE, TREE).into_iter().take(1));
                orders.extend(rest.orders(queue, REST, parent));
            }
            // Without a whole there is nothing to borrow from.
            None => own.rate = own.ceiling,
        }
        own.rate = own.rate.min(own.ceiling);
        orders.extend(own.orders(queue, class, parent));
        let mut filter = filter(queue, TREE, class);
        filter.attributes.push(TcAttribute::Options(vec![
            TcOption::U32(TcFilterU32Option::ClassId(handle(class))),
            TcOption::U32(selector(&self.station.keys(mac))),
        ]));
        orders.push((RouteNetlinkMessage::NewTrafficFilter(filter), NEW));
        orders
    }
}

/// The rates of a class, in bits per second.
struct Class {
    rate: u64,
    ceiling: u64,
}

impl Class {
    /// The class, and its queue: as long as what it may send in a tenth of a second.
    fn orders(&self, queue: u32, class: u16, parent: TcHandle) -> [(RouteNetlinkMessage, u16); 2] {
        let mut made = message(queue, handle(class), parent);
        made.attributes = vec![kind("htb"), TcAttribute::Options(self.options())];
        let most = (self.ceiling / 80).clamp(2 * LARGEST, 16 << 20);
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        let mut leaf = message(queue, TcHandle::UNSPEC, handle(class));
        let bytes = most.to_ne_bytes().to_vec();
        leaf.attributes = vec![
            kind("bfifo"),
            TcAttribute::Other(DefaultNla::new(OPTIONS, bytes)),
        ];
        [
            (RouteNetlinkMessage::NewTrafficClass(made), SET),
            (RouteNetlinkMessage::NewQueueDiscipline(leaf), SET),
        ]
    }

    /// `struct tc_htb_opt`, and the rates once more where they need more than 32 bits.
    fn options(&self) -> Vec<TcOption> {
        let rate = self.rate / 8;
        let ceiling = self.ceiling / 8;
        let mut bytes = Vec::with_capacity(44);
        for rate in [rate, ceiling] {
            // Size classes of 1 byte, Ethernet, no overhead.
            bytes.extend([0, 1, 0, 0, 0, 0, 0, 0]);
            bytes.extend(u32::try_from(rate).unwrap_or(u32::MAX).to_ne_bytes());
        }
        for number in [burst_ticks(rate), burst_ticks(ceiling), QUANTUM, 0, 0] {
            bytes.extend(number.to_ne_bytes());
        }
        let wide = [(RATE64, rate), (CEIL64, ceiling)];
        let wide = wide
            .into_iter()
            .filter(|(_, rate)| *rate > u64::from(u32::MAX))
            .map(|(kind, rate)| other(kind, rate.to_ne_bytes().to_vec()));
        std::iter::once(other(PARMS, bytes)).chain(wide).collect()
    }
}

/// Attributes of `tc`, of HTB and of u32 (`linux/rtnetlink.h`, `linux/pkt_sched.h`, `linux/pkt_cls.h`).
const OPTIONS: u16 = 2;
const PARMS: u16 = 1;
const INIT: u16 = 2;
const RATE64: u16 = 6;
const CEIL64: u16 = 7;
const SELECTOR: u16 = 5;

/// How long a burst takes at a rate in bytes per second, in the ticks of `tc` (64 ns): one large packet, and what the
/// clock may be late by.
fn burst_ticks(rate: u64) -> u32 {
    let bytes = LARGEST.max(rate / 1000);
    let nanoseconds = bytes.saturating_mul(1_000_000_000) / rate.max(1);
    u32::try_from(nanoseconds >> 6).unwrap_or(u32::MAX)
}

impl Station {
    /// What a frame's address is compared with, four bytes at a time: mask, value, place.
    fn keys(self, mac: [u8; 6]) -> [([u8; 4], [u8; 4], i32); 2] {
        let first = match self {
            Self::Receiver => -14,
            Self::Sender => -8,
        };
        let [a, b, c, d, e, f] = mac;
        [
            ([0xff; 4], [a, b, c, d], first),
            ([0xff, 0xff, 0, 0], [e, f, 0, 0], first + 4),
        ]
    }
}

/// `struct tc_u32_sel`: what matches ends the search.
fn selector(keys: &[([u8; 4], [u8; 4], i32)]) -> TcFilterU32Option {
    let count = u8::try_from(keys.len()).unwrap_or(u8::MAX);
    let mut bytes = vec![1, 0, count, 0];
    bytes.resize(16, 0);
    for (mask, value, place) in keys {
        bytes.extend(mask);
        bytes.extend(value);
        bytes.extend(place.to_ne_bytes());
        bytes.extend([0; 4]);
    }
    TcFilterU32Option::Other(DefaultNla::new(SELECTOR, bytes))
}

/// The root of the tree: what has no class goes to the rest where there is one, and else unhindered.
fn tree(index: u32) -> TcMessage {
    let mut message = message(index, TREE, TcHandle::ROOT);
    let fields: [u32; 5] = [3, 10, REST.into(), 0, 0];
    let bytes = fields.iter().flat_map(|field| field.to_ne_bytes());
    let options = vec![other(INIT, bytes.collect())];
    message.attributes = vec![kind("htb"), TcAttribute::Options(options)];
    message
}

/// Where filters are hung on a link, both ways.
pub(super) fn hooks(index: u32) -> TcMessage {
    let major = TcHandle {
        major: u16::MAX,
        minor: 0,
    };
    let mut message = message(index, major, TcHandle::CLSACT);
    message.attributes = vec![kind("clsact")];
    message
}

/// Leads all that passes a hook to a queue.
pub(super) fn redirect(index: u32, hook: TcHandle, queue: u32) -> TcMessage {
    let mut mirror = TcMirror::default();
    mirror.generic.action = TcActionType::Stolen;
    mirror.ifindex = queue;
    let mut action = TcAction::default();
    action.attributes = vec![
        TcActionAttribute::Kind("mirred".to_owned()),
        TcActionAttribute::Options(vec![TcActionOption::Mirror(TcActionMirrorOption::Parms(
            mirror,
        ))]),
    ];
    let mut message = filter(index, hook, REDIRECTS);
    message.attributes.push(TcAttribute::Options(vec![
        TcOption::U32(selector(&[([0; 4], [0; 4], 0)])),
        TcOption::U32(TcFilterU32Option::Action(vec![action])),
    ]));
    message
}

/// A filter for all protocols at a priority of its own, by which it is found again.
pub(super) fn filter(index: u32, parent: TcHandle, priority: u16) -> TcMessage {
    let mut message = message(index, TcHandle::UNSPEC, parent);
    message.header.info = (u32::from(priority) << 16) | ALL;
    message.attributes = vec![kind("u32")];
    message
}

fn message(index: u32, handle: TcHandle, parent: TcHandle) -> TcMessage {
    let mut message = TcMessage::default();
    message.header.index = index.cast_signed();
    message.header.handle = handle;
    message.header.parent = parent;
    message
}

fn kind(name: &str) -> TcAttribute {
    TcAttribute::Kind(name.to_owned())
}

fn other(kind: u16, bytes: Vec<u8>) -> TcOption {
    TcOption::Other(DefaultNla::new(kind, bytes))
}
