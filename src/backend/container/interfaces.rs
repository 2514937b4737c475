//! Moves network interfaces of the host into a workspace, with their names and addresses.
//!
//! The kernel takes an interface's addresses away when it changes its namespace, so they are read before and given
//! back after (runtime-spec `config-linux.md`, "Network devices").

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::address::AddressHeaderFlags;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::address::AddressScope;
use netlink_packet_route::link::LinkAttribute;
use netlink_packet_route::link::LinkMessage;

use crate::backend::BackendError;
use crate::sys::Errno;
use crate::sys::Result;
use crate::sys::interface::NEW;
use crate::sys::interface::raised;
use crate::sys::route::Route;

/// Moves `name` into the network namespace of `pid`, where it is called `inside`, is up, and has the addresses it had.
pub(super) fn move_in(pid: i32, name: &str, inside: &str) -> std::result::Result<(), BackendError> {
    let failed = |what: &str| {
        let (field, what) = (format!("linux.netDevices.{name}"), what.to_owned());
        |source| BackendError::Field {
            field,
            what,
            source,
        }
    };
    let mut here = Route::open().map_err(failed("open a netlink socket"))?;
    let index = here.index_of(name).map_err(failed("find the interface"))?;
    let addresses = addresses_of(&mut here, index).map_err(failed("read its addresses"))?;
    send_away(&mut here, index, pid, inside)
        .map_err(failed(&format!("move it into the container as {inside}")))?;
    let mut there = Route::open_in(pid).map_err(failed("enter the network namespace"))?;
    let index = there
        .index_of(inside)
        .map_err(failed("find it in the container"))?;
    for address in addresses {
        give(&mut there, index, address).map_err(failed("give its addresses back"))?;
    }
    there
        .tell(RouteNetlinkMessage::SetLink(raised(index)), 0)
        .map_err(failed("bring it up"))
}

/// The lasting addresses of global scope.
fn addresses_of(route: &mut Route, index: u32) -> Result<Vec<AddressMessage>> {
    let question = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let found = route.list(question)?;
    let addresses = found.into_iter().filter_map(|answer| {
        let RouteNetlinkMessage::NewAddress(address) = answer else {
            return None;
        };
        Some(address)
    });
    let lasting = |address: &AddressMessage| {
        address.header.index == index
            && address.header.scope == AddressScope::Universe
            && address.header.flags.contains(AddressHeaderFlags::Permanent)
    };
    Ok(addresses.filter(lasting).collect())
}

fn send_away(route: &mut Route, index: u32, pid: i32, name: &str) -> Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
        .attributes
        .push(LinkAttribute::NetNsPid(pid.unsigned_abs()));
    message
        .attributes
        .push(LinkAttribute::IfName(name.to_owned()));
    route.tell(RouteNetlinkMessage::SetLink(message), 0)
}

fn give(route: &mut Route, index: u32, mut address: AddressMessage) -> Result<()> {
    address.header.index = index;
    // The label repeats the interface's old name.
    address
        .attributes
        .retain(|attribute| !matches!(attribute, AddressAttribute::Label(_)));
    match route.tell(RouteNetlinkMessage::NewAddress(address), NEW) {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}
