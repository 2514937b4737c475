//! Who sends what: a filter at the host's end of a link that lets through what comes from the workspace itself.
//!
//! A workspace that may make packets of its own could else claim a neighbour's address: in a frame, in an answer about
//! who has an address (ARP, neighbour discovery), or as a router. The filter is a program of eBPF, at the same hook that
//! leads to the queues and before that. It depends on nothing but the lease.
//!
//! To load a program takes longer than all else about it, so the links of a network share one, and a table with who may
//! send what. The number of its place on the network comes with each link's filter. The kernel keeps the program while a
//! link has it, and its id is in the network's register.

mod program;

use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;

use netlink_packet_core::DefaultNla;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::TcAttribute;
use netlink_packet_route::tc::TcHandle;
use netlink_packet_route::tc::TcOption;

use crate::defence::Defence;
use crate::network::address;
use crate::network::error::NetworkError;
use crate::network::lease::Register;
use crate::network::lease::Shared;
use crate::network::shape;
use crate::plan::network::NetworkPlan;
use crate::sys::Errno;
use crate::sys::bpf;
use crate::sys::interface::NEW;
use crate::sys::route::Refused;
use crate::sys::route::Route;

/// What the programs and their tables are called.
const NAME: bpf::Name = *b"bulkhead_source\0";
/// How many entries a table has: one for each place. Those of workspaces that have gone stay until it is given again.
const ENTRIES: u32 = address::LAST + 1;
/// The filter comes before the one that leads to a queue.
const PRIORITY: u16 = 1;
/// Attributes of a filter that is a program (`linux/pkt_cls.h`), and that what it gives is what is done.
const NUMBER: u16 = 3;
const PROGRAM: u16 = 6;
const PROGRAM_NAME: u16 = 7;
const FLAGS: u16 = 8;
const DECIDES: u32 = 1;

/// What decides about what a workspace sends.
#[derive(Debug)]
pub(super) struct Filter {
    program: OwnedFd,
    place: u32,
}

/// Enters a workspace that has its lease into the table of the network's program; loads one that the register then knows,
/// if it is not there any more. Nothing need be there of the link yet. Fails when this caller may load none.
pub(super) fn enter(register: &mut Register, plan: &NetworkPlan) -> Result<Filter, Errno> {
    let lease = register.leases.get(&plan.id).ok_or(Errno::NOENT)?;
    let place = lease.place;
    let entry = program::entry(plan.mac, &lease.addresses);
    let known = register.filter;
    let known = known.filter(|known| known.version == program::VERSION);
    if let Some(Ok(program)) = known.map(|known| share(known.id, place, &entry)) {
        return Ok(Filter { program, place });
    }
    let table = bpf::Table::make(entry.len(), ENTRIES, NAME)?;
    table.set(place, &entry)?;
    let program = bpf::load_packet_filter(&program::deciding_by(&table), NAME)?;
    register.filter = Some(Shared {
        id: bpf::id_of(program.as_fd())?,
        version: program::VERSION,
    });
    Ok(Filter { program, place })
}

/// The program of this id, with an entry for a place; fails when it has gone or is not ours.
fn share(id: u32, place: u32, entry: &[u8]) -> Result<OwnedFd, Errno> {
    let program = bpf::by_name(id, NAME)?;
    bpf::Table::of(program.as_fd())?.set(place, entry)?;
    Ok(program)
}

/// Lets through the link what the filter of the workspace lets through, and nothing else; makes the hooks of the link.
/// Gives why it is not done, where there is no filter or the kernel has none of this kind.
pub(super) fn watch(
    route: &mut Route,
    plan: &NetworkPlan,
    filter: Result<Filter, Errno>,
) -> Result<Option<Errno>, NetworkError> {
    let failed = |what: &str| NetworkError::kernel(format!("{what} {}", plan.link.name));
    let near = route.index_of(&plan.link.name);
    let near = near.map_err(failed("find the interface"))?;
    let hooks = (
        RouteNetlinkMessage::NewQueueDiscipline(shape::hooks(near)),
        NEW,
    );
    let mut orders = vec![hooks];
    if let Ok(filter) = &filter
        && !Defence::OwnSource.is_out()
    {
        let message = filter.message(near);
        orders.push((RouteNetlinkMessage::NewTrafficFilter(message), NEW));
    }
    match route.tell_all(orders) {
        Ok(()) => Ok(filter.err()),
        Err(Refused { index: 1, errno }) if is_absent(errno) => Ok(Some(errno)),
        Err(refused) => Err(failed("watch over what is sent by")(refused.errno)),
    }
}

/// Whether the kernel has no filters that are programs.
fn is_absent(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::OPNOTSUPP)
}

impl Filter {
    fn message(&self, near: u32) -> netlink_packet_route::tc::TcMessage {
        let hook = TcHandle {
            major: u16::MAX,
            minor: TcHandle::MIN_INGRESS,
        };
        let mut filter = shape::filter(near, hook, PRIORITY);
        let number = self.program.as_raw_fd().to_ne_bytes().to_vec();
        let option = |kind, bytes| TcOption::Other(DefaultNla::new(kind, bytes));
        filter.attributes = vec![
            TcAttribute::Kind("bpf".to_owned()),
            TcAttribute::Options(vec![
                option(NUMBER, self.place.to_ne_bytes().to_vec()),
                option(PROGRAM, number),
                option(PROGRAM_NAME, NAME.to_vec()),
                option(FLAGS, DECIDES.to_ne_bytes().to_vec()),
            ]),
        ];
        filter
    }
}
