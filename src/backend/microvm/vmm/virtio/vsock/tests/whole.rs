//! Streams arrive whole and in order, whatever the sizes, the credit, and the order in which things end.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use proptest::prelude::Strategy;
use proptest::prop_oneof;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::backend::microvm::vmm::virtio::vsock::packet::Header;
use crate::backend::microvm::vmm::virtio::vsock::packet::Op;
use crate::backend::microvm::vmm::virtio::vsock::packet::SENDS_NO_MORE;
use crate::backend::microvm::vmm::virtio::vsock::tests::PATIENCE;
use crate::backend::microvm::vmm::virtio::vsock::tests::client;
use crate::backend::microvm::vmm::virtio::vsock::tests::device;
use crate::backend::microvm::vmm::virtio::vsock::tests::granted;
use crate::backend::microvm::vmm::virtio::vsock::tests::guest::Driver;
use crate::backend::microvm::vmm::virtio::vsock::tests::guest::End;
use crate::backend::microvm::vmm::virtio::vsock::tests::guest::LONGEST;
use crate::backend::microvm::vmm::virtio::vsock::tests::guest::Packet;
use crate::backend::microvm::vmm::virtio::vsock::tests::pattern;

/// One thing that one of the two ends of a stream does.
#[derive(Debug, Clone, Copy)]
enum Deed {
    ClientWrites(usize),
    ClientReads(usize),
    GuestWrites(usize),
    GuestTakes(u32),
    GuestTells,
}

/// One direction of a stream.
#[derive(Debug)]
struct Way {
    /// All that is to go.
    bytes: Vec<u8>,
    sent: usize,
    came: Vec<u8>,
    /// The one who sends has said that this is all; the one who receives has heard so.
    said: bool,
    heard: bool,
}

impl Way {
    fn new(length: usize) -> Self {
        Self {
            bytes: pattern(length),
            sent: 0,
            came: Vec::new(),
            said: false,
            heard: false,
        }
    }

    fn next(&self, most: usize) -> &[u8] {
        let rest = &self.bytes[self.sent..];
        &rest[..most.min(rest.len())]
    }

    fn is_all_sent(&self) -> bool {
        self.sent == self.bytes.len()
    }
}

/// A stream with both its ends.
struct Both {
    client: UnixStream,
    end: End,
    up: Way,
    down: Way,
    closed: bool,
}

fn deed() -> impl Strategy<Value = Deed> {
    let size = || prop_oneof![1..64_usize, 1..5000_usize, 1..200_000_usize];
    prop_oneof![
        size().prop_map(Deed::ClientWrites),
        size().prop_map(Deed::ClientReads),
        size().prop_map(Deed::GuestWrites),
        prop_oneof![1..64_u32, 1..100_000_u32].prop_map(Deed::GuestTakes),
        proptest::strategy::Just(Deed::GuestTells),
    ]
}

/// What the client writes to and reads from never makes anybody wait.
fn at_once(done: std::io::Result<usize>) -> Option<usize> {
    match done {
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        done => Some(done.unwrap()),
    }
}

impl Both {
    fn does(&mut self, driver: &mut Driver, deed: Deed) {
        match deed {
            Deed::ClientWrites(most) => self.client_writes(most),
            Deed::ClientReads(most) => self.client_reads(most),
            Deed::GuestWrites(most) => self.guest_writes(driver, most),
            Deed::GuestTakes(most) => {
                let untaken = self.end.received - self.end.taken;
                self.end.taken += untaken.min(most);
            }
            Deed::GuestTells if !self.closed => {
                driver.send(&self.end.header(Op::CreditUpdate), &[]);
            }
            Deed::GuestTells => {}
        }
    }

    fn client_writes(&mut self, most: usize) {
        if !self.down.is_all_sent() {
            let written = at_once((&self.client).write(self.down.next(most)));
            self.down.sent += written.unwrap_or(0);
        } else if !self.down.said {
            self.client.shutdown(Shutdown::Write).unwrap();
            self.down.said = true;
        }
    }

    fn client_reads(&mut self, most: usize) {
        let mut bytes = vec![0; most];
        if let Some(count) = at_once((&self.client).read(&mut bytes)) {
            self.up.came.extend(&bytes[..count]);
            self.up.heard |= count == 0;
        }
    }

    fn guest_writes(&mut self, driver: &mut Driver, most: usize) {
        if !self.up.is_all_sent() {
            let most = most.min(LONGEST).min(self.end.credit() as usize);
            let bytes = self.up.next(most).to_vec();
            self.up.sent += bytes.len();
            driver.write(&mut self.end, &bytes);
        } else if !self.up.said {
            driver.send(&self.end.shutdown(SENDS_NO_MORE), &[]);
            self.up.said = true;
        }
    }

    fn comes(&mut self, driver: &mut Driver, packet: Packet) {
        self.end.hear(&packet.header);
        match packet.header.op() {
            Some(Op::Payload) => {
                assert!(!self.down.heard);
                self.down.came.extend(packet.bytes);
                self.end.received += packet.header.len;
                assert!(self.end.received - self.end.taken <= self.end.room);
            }
            Some(Op::Shutdown) => {
                self.down.heard |= packet.header.flags & SENDS_NO_MORE != 0;
                if packet.header.flags == 3 && !self.closed {
                    driver.send(&self.end.header(Op::Reset), &[]);
                    self.closed = true;
                }
            }
            Some(Op::CreditRequest) => driver.send(&self.end.header(Op::CreditUpdate), &[]),
            Some(Op::CreditUpdate) => {}
            _ => panic!("{packet:?}"),
        }
    }

    fn is_done(&self) -> bool {
        self.up.heard && self.down.heard && self.closed
    }
}

/// Lets streams of these lengths go, up and down, by `deeds` again and again.
fn go(lengths: &[(usize, usize, u32)], split: usize, deeds: &[(usize, Deed)]) {
    let (device, address, _) = device();
    let mut driver = Driver::new(device);
    driver.split = split;
    let mut streams = BTreeMap::new();
    for (up, down, room) in lengths {
        let mut client = client(&address, 1024);
        let end = driver.grant(*room);
        assert_eq!(granted(&mut client), end.host_port);
        client.set_nonblocking(true).unwrap();
        let both = Both {
            client,
            end,
            up: Way::new(*up),
            down: Way::new(*down),
            closed: false,
        };
        streams.insert(end.host_port, both);
    }
    let ports: Vec<u32> = streams.keys().copied().collect();
    let deadline = Instant::now() + 3 * PATIENCE;
    for (which, deed) in deeds.iter().cycle() {
        let stream = streams.get_mut(&ports[which % ports.len()]).unwrap();
        stream.does(&mut driver, *deed);
        while let Some(packet) = driver.try_receive() {
            let header: Header = packet.header;
            let stream = streams.get_mut(&header.src_port).unwrap();
            stream.comes(&mut driver, packet);
        }
        if streams.values().all(Both::is_done) {
            break;
        }
        assert!(Instant::now() < deadline, "they have come to a stand");
    }
    for stream in streams.values() {
        assert!(stream.up.came == stream.up.bytes);
        assert!(stream.down.came == stream.down.bytes);
    }
}

#[test]
fn streams_arrive_whole_and_in_order() {
    let mut runner = TestRunner::deterministic();
    let length = || prop_oneof![0..10_usize, 0..3000_usize, 0..600_000_usize];
    let room = prop_oneof![1..100_u32, 1..10_000_u32, 1..300_000_u32];
    let lengths = proptest::collection::vec((length(), length(), room), 1..5);
    let split = prop_oneof![1..200_usize, proptest::strategy::Just(usize::MAX)];
    let deeds = proptest::collection::vec((0..100_usize, deed()), 500);
    let all = (lengths, split, deeds);
    for _ in 0..12 {
        let (lengths, split, deeds) = all.new_tree(&mut runner).unwrap().current();
        go(&lengths, split, &deeds);
    }
}
