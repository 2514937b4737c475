//! The program that decides about what is sent, and the entries of its table.

use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;

use crate::sys::bpf;

/// Goes up with every change of the program or of an entry's meaning.
pub(super) const VERSION: u32 = 1;

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

/// Where the number that comes with a link's filter is in `struct __sk_buff` (`tc_classid`).
const NUMBER: u16 = 72;

/// Where things are in an entry, in words: the hardware address (four bytes, and two), the IPv4 address, the IPv6
/// address, and that of the link.
const STATION: u16 = 0;
const FOUR: u16 = 2;
const SIX: u16 = 3;
const LOCAL: u16 = 7;
const WORDS: usize = 11;

/// The entry of a workspace with this hardware address and these addresses. One that has no IPv4 or IPv6 address may send
/// from 0.0.0.0 or its link's address instead.
pub(super) fn entry(mac: [u8; 6], addresses: &[IpAddr]) -> Vec<u8> {
    let four = addresses.iter().find_map(|address| match address {
        IpAddr::V4(four) => Some(u32::from(*four)),
        IpAddr::V6(_) => None,
    });
    let six = addresses.iter().find_map(|address| match address {
        IpAddr::V6(six) => Some(*six),
        IpAddr::V4(_) => None,
    });
    let local = link_local(mac);
    let [a, b, c, d, e, f] = mac;
    let mut words = Vec::with_capacity(WORDS);
    words.push(u32::from_be_bytes([a, b, c, d]));
    words.push(u32::from_be_bytes([0, 0, e, f]));
    words.push(four.unwrap_or_default());
    for address in [six.unwrap_or(local), local] {
        let octets = address.octets();
        let (quarters, _) = octets.as_chunks::<4>();
        words.extend(quarters.iter().map(|quarter| u32::from_be_bytes(*quarter)));
    }
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// The address that the kernel gives an interface by itself (RFC 4291, appendix A).
fn link_local([a, b, c, d, e, f]: [u8; 6]) -> Ipv6Addr {
    let half = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    Ipv6Addr::from((0xfe80_u128 << 112) | u128::from(half))
}

/// The program that decides for whoever has an entry in the table, and drops what comes from anybody else.
pub(super) fn deciding_by(table: &bpf::Table) -> Vec<u64> {
    program(table.as_fd().as_raw_fd().unsigned_abs())
}

fn program(table: u32) -> Vec<u64> {
    let mut code = Code::default();
    code.begin(table);
    code.station(SENDER);
    code.half(PROTOCOL);
    code.if_it_is(0x0800, "ipv4");
    code.if_it_is(0x0806, "arp");
    code.if_it_is(0x86dd, "ipv6");
    code.go("drop");
    code.mark("arp");
    code.station(ARP_STATION);
    code.word(ARP_ADDRESS);
    // Who asks whether an address is free has none yet.
    code.if_it_is(0, "pass");
    code.unless_it_is_own(FOUR, "drop");
    code.go("pass");
    code.mark("ipv4");
    code.word(IPV4_SOURCE);
    code.unless_it_is_own(FOUR, "drop");
    code.go("pass");
    code.ipv6();
    code.end()
}

/// Registers: what is loaded of the packet, what is compared with it, the stack, and what loads and calls leave alone:
/// where the packet is, whether bits differ from the first address and the second, and the entry.
const LOADED: u64 = 0;
const OWN: u64 = 1;
const STACK: u64 = 10;
const PACKET: u64 = 6;
const DIFFER: [u64; 2] = [7, 8];
const ENTRY: u64 = 9;

/// Instructions (`linux/bpf.h`), with places that only later ones jump to.
#[derive(Debug, Default)]
struct Code {
    instructions: Vec<u64>,
    jumps: Vec<(usize, &'static str)>,
    places: Vec<(&'static str, usize)>,
}

impl Code {
    /// An instruction with a register that is written, one that is read, an offset and a number.
    fn put_at(&mut self, code: u64, (to, from): (u64, u64), offset: u16, number: u32) {
        let registers = to | (from << 4);
        let parts = (registers << 8) | (u64::from(offset) << 16) | (u64::from(number) << 32);
        self.instructions.push(code | parts);
    }

    fn put(&mut self, code: u64, registers: (u64, u64), number: u32) {
        self.put_at(code, registers, 0, number);
    }

    /// Finds the entry of the link in the table. Loads from the packet look for it in the sixth register.
    fn begin(&mut self, table: u32) {
        self.put(0xbf, (PACKET, 1), 0);
        self.put_at(0x61, (1, PACKET), NUMBER, 0);
        let below: u16 = 4_u16.wrapping_neg();
        self.put_at(0x63, (STACK, 1), below, 0);
        self.put(0xbf, (2, STACK), 0);
        self.put(0x07, (2, 0), 4_u32.wrapping_neg());
        // A table is named by its descriptor, and its number would be of 64 bits.
        self.put(0x18, (1, 1), table);
        self.put(0, (0, 0), 0);
        self.put(0x85, (0, 0), 1);
        self.jump(0x15, (0, 0), 0, "drop");
        self.put(0xbf, (ENTRY, 0), 0);
    }

    fn word(&mut self, at: u32) {
        self.put(0x20, (0, 0), at);
    }

    fn half(&mut self, at: u32) {
        self.put(0x28, (0, 0), at);
    }

    fn byte(&mut self, at: u32) {
        self.put(0x30, (0, 0), at);
    }

    /// Loads a word of the entry.
    fn own(&mut self, word: u16) {
        self.put_at(0x61, (OWN, ENTRY), word * 4, 0);
    }

    fn jump(&mut self, code: u64, registers: (u64, u64), value: u32, to: &'static str) {
        self.jumps.push((self.instructions.len(), to));
        self.put(code, registers, value);
    }

    fn if_it_is(&mut self, value: u32, to: &'static str) {
        self.jump(0x16, (LOADED, 0), value, to);
    }

    fn unless_it_is(&mut self, value: u32, to: &'static str) {
        self.jump(0x56, (LOADED, 0), value, to);
    }

    fn unless_it_is_own(&mut self, word: u16, to: &'static str) {
        self.own(word);
        self.jump(0x5e, (LOADED, OWN), 0, to);
    }

    fn go(&mut self, to: &'static str) {
        self.jump(0x05, (0, 0), 0, to);
    }

    fn mark(&mut self, place: &'static str) {
        self.places.push((place, self.instructions.len()));
    }

    /// Drops what has another hardware address than the workspace at a place.
    fn station(&mut self, at: u32) {
        self.word(at);
        self.unless_it_is_own(STATION, "drop");
        self.half(at + 4);
        self.unless_it_is_own(STATION + 1, "drop");
    }

    /// Jumps when one of the workspace's IPv6 addresses is at a place; every word is loaded once.
    fn if_one_is_there(&mut self, at: u32, to: &'static str) {
        for (word, place) in (0..4).zip((at..).step_by(4)) {
            self.word(place);
            // Beside what differed before, if anything came before.
            let note = if word == 0 { 0xbc } else { 0x4c };
            for (register, address) in DIFFER.into_iter().zip([SIX, LOCAL]) {
                self.own(address + word);
                self.put(0xac, (OWN, LOADED), 0);
                self.put(note, (register, OWN), 0);
            }
        }
        for register in DIFFER {
            self.jump(0x16, (register, 0), 0, to);
        }
    }

    /// From one's own addresses, or from none while they are looked into; and no word of neighbours or routers that are
    /// not oneself. Where that could hide behind other headers, those are dropped.
    fn ipv6(&mut self) {
        self.mark("ipv6");
        self.if_one_is_there(IPV6_SOURCE, "own");
        for place in (IPV6_SOURCE..IPV6_SOURCE + 16).step_by(4) {
            self.word(place);
            self.unless_it_is(0, "drop");
        }
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
        self.if_one_is_there(ADVERTISED, "pass");
        self.go("drop");
    }

    /// What passes goes on to other filters, and the rest goes nowhere.
    fn end(mut self) -> Vec<u64> {
        for (place, outcome) in [("pass", PASS), ("drop", DROP)] {
            self.mark(place);
            self.put(0xb7, (0, 0), outcome);
            self.put(0x95, (0, 0), 0);
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
    use super::*;

    #[test]
    fn the_address_of_a_link_comes_from_the_hardware() {
        let address = link_local([0x02, 0x12, 0x34, 0x56, 0x78, 0x9a]);
        assert_eq!(address.to_string(), "fe80::12:34ff:fe56:789a");
    }

    /// What the workspace of the tests has.
    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const FOUR: [u8; 4] = [10, 0, 0, 2];
    const SIX_OF_IT: &str = "fd00::2";

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
            (IPV6_SOURCE, &octets(SIX_OF_IT)),
            (IPV6_PAYLOAD, &[inner]),
            (IPV6_PAYLOAD + 8, &[kind]),
        ];
        frame(MAC, 0x86dd, &parts)
    }

    fn newer() -> Vec<Case> {
        let local = link_local(MAC).to_string();
        vec![
            (true, "its own IPv6", six(SIX_OF_IT, 6, 0, "::")),
            (true, "its link's IPv6", six(&local, 17, 0, "::")),
            (true, "none yet", six("::", 58, 135, SIX_OF_IT)),
            (false, "another IPv6", six("fd00::3", 6, 0, "::")),
            (false, "another third word", six("fd00::1:0:2", 6, 0, "::")),
            (
                false,
                "another second word",
                six("fd00:0:0:1::2", 6, 0, "::"),
            ),
            (false, "a router's word", six(SIX_OF_IT, 58, 134, "::")),
            (false, "a redirection", six(SIX_OF_IT, 58, 137, "::")),
            (true, "an echo", six(SIX_OF_IT, 58, 128, "::")),
            (
                true,
                "its own advertisement",
                six(SIX_OF_IT, 58, 136, SIX_OF_IT),
            ),
            (true, "its link's", six(&local, 58, 136, &local)),
            (false, "a neighbour's", six(SIX_OF_IT, 58, 136, "fd00::3")),
            (false, "nobody's", six(SIX_OF_IT, 58, 136, "::")),
            (false, "a way to choose", six(SIX_OF_IT, 43, 0, "::")),
            (false, "options to its end", six(SIX_OF_IT, 60, 0, "::")),
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
        let name = *b"bulkhead_test\0\0\0";
        let own = entry(MAC, &[IpAddr::from(FOUR), SIX_OF_IT.parse().unwrap()]);
        let table = bpf::Table::make(own.len(), 2, name).unwrap();
        let filter = bpf::load_packet_filter(&deciding_by(&table), name).unwrap();
        let decision = |frame: &[u8]| bpf::decides(filter.as_fd(), frame).unwrap();
        for (_, what, frame) in older().into_iter().chain(newer()) {
            assert_eq!(decision(&frame), DROP, "{what}, of nobody");
        }
        // The number that comes with a trial is 0.
        table.set(0, &own).unwrap();
        for (passes, what, frame) in older().into_iter().chain(newer()) {
            assert_eq!(decision(&frame), if passes { PASS } else { DROP }, "{what}");
        }
        table.set(0, &entry(OTHER, &[])).unwrap();
        assert_eq!(decision(&four(FOUR)), DROP, "of another");
    }

    #[test]
    fn every_jump_leads_forward_to_a_place_that_there_is() {
        let program = program(0);
        for (at, instruction) in program.iter().enumerate() {
            let code = instruction & 0xff;
            if [0x05, 0x15, 0x16, 0x56, 0x5e].contains(&code) {
                let over = usize::try_from((instruction >> 16) & 0xffff).unwrap();
                assert!(over > 0 && at + 1 + over < program.len(), "{at}");
            }
        }
        assert_eq!(program.last(), Some(&0x95));
    }
}
