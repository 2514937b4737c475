//! Who sends what: a filter at the host's end of a link that lets through what comes from the workspace itself.
//!
//! A workspace that may make packets of its own could else claim a neighbour's address: in a frame, in an answer about
//! who has an address (ARP, neighbour discovery), or as a router. The filter is a program of eBPF with the workspace's
//! addresses in it, at the same hook that leads to the queues and before that. It depends on nothing but the lease.

use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;

use netlink_packet_core::DefaultNla;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::TcAttribute;
use netlink_packet_route::tc::TcHandle;
use netlink_packet_route::tc::TcOption;

use crate::network::error::NetworkError;
use crate::network::shape;
use crate::plan::network::NetworkPlan;
use crate::sys::Errno;
use crate::sys::bpf;
use crate::sys::interface::NEW;
use crate::sys::route::Refused;
use crate::sys::route::Route;

/// What the programs are called.
const NAME: bpf::Name = *b"bulkhead_source\0";
/// The filter comes before the one that leads to a queue.
const PRIORITY: u16 = 1;
/// Attributes of a filter that is a program (`linux/pkt_cls.h`), and that what it gives is what is done.
const PROGRAM: u16 = 6;
const PROGRAM_NAME: u16 = 7;
const FLAGS: u16 = 8;
const DECIDES: u32 = 1;
/// What the program gives: other filters decide (`TC_ACT_UNSPEC`), or it goes nowhere (`TC_ACT_SHOT`).
const PASS: u32 = u32::MAX;
const DROP: u32 = 2;

/// Where things are in an Ethernet frame.
const SENDER: u32 = 6;
const PROTOCOL: u32 = 12;
const IPV4_SOURCE: u32 = 26;
const ARP_STATION: u32 = 22;
const ARP_ADDRESS: u32 = 28;
const IPV6_NEXT: u32 = 20;
const IPV6_SOURCE: u32 = 22;
const IPV6_PAYLOAD: u32 = 54;
const ADVERTISED: u32 = 62;

/// The program that decides for a workspace, of whose link nothing need be there yet; or why this caller may load none.
pub(super) fn load(plan: &NetworkPlan, addresses: &[IpAddr]) -> Result<OwnedFd, Errno> {
    bpf::load_packet_filter(&program(plan.mac, addresses), NAME)
}

/// Lets through the link what the program of the workspace lets through, and nothing else; makes the hooks of the link.
/// Gives why it is not done, where there is no program or the kernel has no such filter.
pub(super) fn watch(
    route: &mut Route,
    plan: &NetworkPlan,
    program: Result<OwnedFd, Errno>,
) -> Result<Option<Errno>, NetworkError> {
    let failed = |what: &str| NetworkError::kernel(format!("{what} {}", plan.link.name));
    let near = route.index_of(&plan.link.name);
    let near = near.map_err(failed("find the interface"))?;
    let hooks = (
        RouteNetlinkMessage::NewQueueDiscipline(shape::hooks(near)),
        NEW,
    );
    let mut orders = vec![hooks];
    if let Ok(program) = &program {
        let filter = filter(near, program);
        orders.push((RouteNetlinkMessage::NewTrafficFilter(filter), NEW));
    }
    match route.tell_all(orders) {
        Ok(()) => Ok(program.err()),
        Err(Refused { index: 1, errno }) if is_absent(errno) => Ok(Some(errno)),
        Err(refused) => Err(failed("watch over what is sent by")(refused.errno)),
    }
}

/// Whether the kernel has no filters that are programs.
fn is_absent(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::OPNOTSUPP)
}

fn filter(near: u32, program: &OwnedFd) -> netlink_packet_route::tc::TcMessage {
    let hook = TcHandle {
        major: u16::MAX,
        minor: TcHandle::MIN_INGRESS,
    };
    let mut filter = shape::filter(near, hook, PRIORITY);
    let number = program.as_raw_fd().to_ne_bytes().to_vec();
    let option = |kind, bytes| TcOption::Other(DefaultNla::new(kind, bytes));
    filter.attributes = vec![
        TcAttribute::Kind("bpf".to_owned()),
        TcAttribute::Options(vec![
            option(PROGRAM, number),
            option(PROGRAM_NAME, NAME.to_vec()),
            option(FLAGS, DECIDES.to_ne_bytes().to_vec()),
        ]),
    ];
    filter
}

/// The program for a workspace with this hardware address and these addresses.
fn program(mac: [u8; 6], addresses: &[IpAddr]) -> Vec<u64> {
    let four = addresses.iter().find_map(|address| match address {
        IpAddr::V4(four) => Some(u32::from(*four)),
        IpAddr::V6(_) => None,
    });
    let six = addresses.iter().find_map(|address| match address {
        IpAddr::V6(six) => Some(words(*six)),
        IpAddr::V4(_) => None,
    });
    let local = words(link_local(mac));
    let six = six.unwrap_or(local);
    let [a, b, c, d, e, f] = mac;
    let station = (
        u32::from_be_bytes([a, b, c, d]),
        u32::from_be_bytes([0, 0, e, f]),
    );
    let mut code = Code::default();
    code.begin();
    code.station(SENDER, station);
    code.half(PROTOCOL);
    code.if_it_is(0x0800, "ipv4");
    code.if_it_is(0x0806, "arp");
    code.if_it_is(0x86dd, "ipv6");
    code.go("drop");
    code.mark("arp");
    code.station(ARP_STATION, station);
    code.word(ARP_ADDRESS);
    // Who asks whether an address is free has none yet.
    code.if_it_is(0, "pass");
    code.if_it_is(four.unwrap_or_default(), "pass");
    code.go("drop");
    code.mark("ipv4");
    code.word(IPV4_SOURCE);
    code.unless_it_is(four.unwrap_or_default(), "drop");
    code.go("pass");
    code.ipv6(six, local);
    code.end()
}

fn words(address: Ipv6Addr) -> [u32; 4] {
    let bits = u128::from(address).to_be_bytes();
    std::array::from_fn(|index| {
        let at = index * 4;
        u32::from_be_bytes([bits[at], bits[at + 1], bits[at + 2], bits[at + 3]])
    })
}

/// The address that the kernel gives an interface by itself (RFC 4291, appendix A).
fn link_local([a, b, c, d, e, f]: [u8; 6]) -> Ipv6Addr {
    let half = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    Ipv6Addr::from((0xfe80_u128 << 112) | u128::from(half))
}

/// Instructions (`linux/bpf.h`), with places that only later ones jump to.
#[derive(Debug, Default)]
struct Code {
    instructions: Vec<u64>,
    jumps: Vec<(usize, &'static str)>,
    places: Vec<(&'static str, usize)>,
}

impl Code {
    fn put(&mut self, code: u64, registers: u64, number: u32) {
        let instruction = code | (registers << 8) | (u64::from(number) << 32);
        self.instructions.push(instruction);
    }

    /// Loads from the packet look for it in the sixth register.
    fn begin(&mut self) {
        self.put(0xbf, 0x16, 0);
    }

    fn word(&mut self, at: u32) {
        self.put(0x20, 0, at);
    }

    fn half(&mut self, at: u32) {
        self.put(0x28, 0, at);
    }

    fn byte(&mut self, at: u32) {
        self.put(0x30, 0, at);
    }

    fn jump(&mut self, code: u64, register: u8, value: u32, to: &'static str) {
        self.jumps.push((self.instructions.len(), to));
        self.put(code, register.into(), value);
    }

    fn if_it_is(&mut self, value: u32, to: &'static str) {
        self.jump(0x16, 0, value, to);
    }

    fn unless_it_is(&mut self, value: u32, to: &'static str) {
        self.jump(0x56, 0, value, to);
    }

    fn go(&mut self, to: &'static str) {
        self.jump(0x05, 0, 0, to);
    }

    fn mark(&mut self, place: &'static str) {
        self.places.push((place, self.instructions.len()));
    }

    /// Notes in a register of which bits the loaded word differs from this one, beside those that were noted before, if
    /// it is not the `first`.
    fn differs(&mut self, from: u32, register: u8, first: bool) {
        let register = u64::from(register);
        // What is taken apart is a copy, so that the word can be compared with others.
        self.put(0xbc, 0x01, 0);
        self.put(0xa4, 0x01, from);
        self.put(if first { 0xbc } else { 0x4c }, 0x10 | register, 0);
    }

    /// Drops what has another hardware address than this at a place.
    fn station(&mut self, at: u32, (first, last): (u32, u32)) {
        self.word(at);
        self.unless_it_is(first, "drop");
        self.half(at + 4);
        self.unless_it_is(last, "drop");
    }

    /// Jumps when one of these addresses is at a place; every word is loaded once.
    fn if_one_is_there(&mut self, at: u32, addresses: &[[u32; 4]], to: &'static str) {
        for (index, place) in (at..).step_by(4).take(4).enumerate() {
            self.word(place);
            for (register, address) in (7..).zip(addresses) {
                self.differs(address[index], register, index == 0);
            }
        }
        for (register, _) in (7..).zip(addresses) {
            self.jump(0x16, register, 0, to);
        }
    }

    /// From one's own addresses, or from none while they are looked into; and no word of neighbours or routers that are
    /// not oneself. Where that could hide behind other headers, those are dropped.
    fn ipv6(&mut self, own: [u32; 4], local: [u32; 4]) {
        self.mark("ipv6");
        self.if_one_is_there(IPV6_SOURCE, &[own, local, [0; 4]], "own");
        self.go("drop");
        self.mark("own");
        self.byte(IPV6_NEXT);
        self.if_it_is(58, "control");
        self.if_it_is(0, "options");
        self.if_it_is(43, "drop");
        self.if_it_is(60, "drop");
        self.go("pass");
        // Reports of groups that are listened to come with an option, and nothing else does.
        self.mark("options");
        self.half(IPV6_PAYLOAD);
        self.unless_it_is(58 << 8, "drop");
        self.byte(IPV6_PAYLOAD + 8);
        for report in [130, 131, 132, 143] {
            self.if_it_is(report, "pass");
        }
        self.go("drop");
        self.mark("control");
        self.byte(IPV6_PAYLOAD);
        self.if_it_is(134, "drop");
        self.if_it_is(137, "drop");
        self.unless_it_is(136, "pass");
        self.if_one_is_there(ADVERTISED, &[own, local], "pass");
        self.go("drop");
    }

    /// What passes goes on to other filters, and the rest goes nowhere.
    fn end(mut self) -> Vec<u64> {
        for (place, outcome) in [("pass", PASS), ("drop", DROP)] {
            self.mark(place);
            self.put(0xb7, 0, outcome);
            self.put(0x95, 0, 0);
        }
        for (from, to) in std::mem::take(&mut self.jumps) {
            let place = self.places.iter().find(|(place, _)| *place == to);
            let over = place.map_or(0, |(_, at)| at.saturating_sub(from + 1));
            self.instructions[from] |= u64::try_from(over).unwrap_or_default() << 16;
        }
        self.instructions
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn the_address_of_a_link_comes_from_the_hardware() {
        let address = link_local([0x02, 0x12, 0x34, 0x56, 0x78, 0x9a]);
        assert_eq!(address.to_string(), "fe80::12:34ff:fe56:789a");
    }

    /// What the workspace of the tests has.
    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const FOUR: [u8; 4] = [10, 0, 0, 2];
    const SIX: &str = "fd00::2";

    fn filter_of_the_tests() -> Vec<u64> {
        program(MAC, &[IpAddr::from(FOUR), SIX.parse().unwrap()])
    }

    /// A frame of 128 bytes from a station, with bytes at places.
    fn frame(station: [u8; 6], protocol: u16, parts: &[(u32, &[u8])]) -> Vec<u8> {
        let mut frame = vec![0; 128];
        let head: [(u32, &[u8]); 2] = [(SENDER, &station), (PROTOCOL, &protocol.to_be_bytes())];
        for (at, bytes) in head.iter().chain(parts) {
            let at = usize::try_from(*at).unwrap();
            frame[at..at + bytes.len()].copy_from_slice(bytes);
        }
        frame
    }

    fn octets(address: &str) -> [u8; 16] {
        let address: Ipv6Addr = address.parse().unwrap();
        address.octets()
    }

    /// A frame, what it is, and whether it is to pass.
    type Case = (bool, &'static str, Vec<u8>);

    const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 9];

    fn four(from: [u8; 4]) -> Vec<u8> {
        frame(MAC, 0x0800, &[(IPV4_SOURCE, &from)])
    }

    fn arp(station: [u8; 6], from: [u8; 4]) -> Vec<u8> {
        let parts: [(u32, &[u8]); 2] = [(ARP_STATION, &station), (ARP_ADDRESS, &from)];
        frame(MAC, 0x0806, &parts)
    }

    fn older() -> Vec<Case> {
        let elsewhere = frame(OTHER, 0x0800, &[(IPV4_SOURCE, &FOUR)]);
        vec![
            (true, "its own IPv4", four(FOUR)),
            (false, "another IPv4", four([10, 0, 0, 3])),
            (false, "another station", elsewhere),
            (false, "a protocol of nobody's", frame(MAC, 0x88cc, &[])),
            (true, "who has it", arp(MAC, FOUR)),
            (true, "is it free", arp(MAC, [0; 4])),
            (false, "a neighbour's address", arp(MAC, [10, 0, 0, 3])),
            (false, "a neighbour's station", arp(OTHER, FOUR)),
        ]
    }

    fn six(from: &str, next: u8, kind: u8, advertised: &str) -> Vec<u8> {
        let parts: [(u32, &[u8]); 4] = [
            (IPV6_NEXT, &[next]),
            (IPV6_SOURCE, &octets(from)),
            (IPV6_PAYLOAD, &[kind]),
            (ADVERTISED, &octets(advertised)),
        ];
        frame(MAC, 0x86dd, &parts)
    }

    /// With an option before what it carries.
    fn report(inner: u8, kind: u8) -> Vec<u8> {
        let parts: [(u32, &[u8]); 3] = [
            (IPV6_SOURCE, &octets(SIX)),
            (IPV6_PAYLOAD, &[inner]),
            (IPV6_PAYLOAD + 8, &[kind]),
        ];
        frame(MAC, 0x86dd, &parts)
    }

    fn newer() -> Vec<Case> {
        let local = link_local(MAC).to_string();
        vec![
            (true, "its own IPv6", six(SIX, 6, 0, "::")),
            (true, "its link's IPv6", six(&local, 17, 0, "::")),
            (true, "none yet", six("::", 58, 135, SIX)),
            (false, "another IPv6", six("fd00::3", 6, 0, "::")),
            (false, "another third word", six("fd00::1:0:2", 6, 0, "::")),
            (
                false,
                "another second word",
                six("fd00:0:0:1::2", 6, 0, "::"),
            ),
            (false, "a router's word", six(SIX, 58, 134, "::")),
            (false, "a redirection", six(SIX, 58, 137, "::")),
            (true, "an echo", six(SIX, 58, 128, "::")),
            (true, "its own advertisement", six(SIX, 58, 136, SIX)),
            (true, "its link's", six(&local, 58, 136, &local)),
            (false, "a neighbour's", six(SIX, 58, 136, "fd00::3")),
            (false, "nobody's", six(SIX, 58, 136, "::")),
            (false, "a way to choose", six(SIX, 43, 0, "::")),
            (false, "options to its end", six(SIX, 60, 0, "::")),
            (true, "a report of groups", report(58, 143)),
            (false, "a router's word behind options", report(58, 134)),
            (false, "something else behind options", report(6, 0)),
        ]
    }

    #[test]
    fn what_is_sent_as_oneself_passes_and_the_rest_does_not() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let filter = bpf::load_packet_filter(&filter_of_the_tests(), NAME).unwrap();
        for (passes, what, frame) in older().into_iter().chain(newer()) {
            let decision = bpf::decides(filter.as_fd(), &frame).unwrap();
            assert_eq!(decision, if passes { PASS } else { DROP }, "{what}");
        }
    }

    #[test]
    fn every_jump_leads_forward_to_a_place_that_there_is() {
        let program = filter_of_the_tests();
        for (at, instruction) in program.iter().enumerate() {
            let code = instruction & 0xff;
            if [0x05, 0x16, 0x56].contains(&code) {
                let over = usize::try_from((instruction >> 16) & 0xffff).unwrap();
                assert!(at + 1 + over < program.len(), "{at}");
            }
        }
        assert_eq!(program.last(), Some(&0x95));
    }
}
