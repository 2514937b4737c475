//! Guests that do what no guest does: they harm themselves alone.

use std::io::Read;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use vmm_sys_util::epoll::EventSet;

use crate::backend::microvm::vmm::virtio::Activation;
use crate::backend::microvm::vmm::virtio::DeviceError;
use crate::backend::microvm::vmm::virtio::VirtioDevice;
use crate::backend::microvm::vmm::virtio::Watch;
use crate::backend::microvm::vmm::virtio::testing;
use crate::backend::microvm::vmm::virtio::vsock::Vsock;
use crate::backend::microvm::vmm::virtio::vsock::hub::MOST_STRAYS;
use crate::backend::microvm::vmm::virtio::vsock::packet::Header;
use crate::backend::microvm::vmm::virtio::vsock::packet::Op;
use crate::backend::microvm::vmm::virtio::vsock::tests::CID;
use crate::backend::microvm::vmm::virtio::vsock::tests::client;
use crate::backend::microvm::vmm::virtio::vsock::tests::device;
use crate::backend::microvm::vmm::virtio::vsock::tests::granted;
use crate::backend::microvm::vmm::virtio::vsock::tests::guest::Driver;
use crate::backend::microvm::vmm::virtio::vsock::tests::guest::PLENTY;
use crate::backend::microvm::vmm::virtio::vsock::tests::guest::header;
use crate::backend::microvm::vmm::virtio::vsock::tests::rest;

/// A device that has something for its guest as soon as there is one, so that it looks at its buffers.
struct Eager(Vsock);

impl VirtioDevice for Eager {
    fn kind(&self) -> u32 {
        self.0.kind()
    }

    fn queue_sizes(&self) -> &[u16] {
        self.0.queue_sizes()
    }

    fn features(&self) -> u64 {
        self.0.features()
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.0.read_config(offset, data);
    }

    fn activate(
        &mut self,
        activation: Activation,
        watch: &mut Watch<'_>,
    ) -> Result<(), DeviceError> {
        for _ in 0..4 {
            assert_eq!(self.0.hub.take(&header(9, 9, Op::Request)), None);
        }
        self.0.activate(activation, watch)
    }

    fn process(
        &mut self,
        token: u32,
        ready: EventSet,
        watch: &mut Watch<'_>,
    ) -> Result<(), DeviceError> {
        self.0.process(token, ready, watch)
    }

    fn reset(&mut self) {
        self.0.reset();
    }
}

#[test]
fn packets_that_are_not_in_memory_reset_the_device() {
    testing::hostile::survives(|| device().0, &[1]);
}

#[test]
fn room_that_is_not_in_memory_resets_the_device() {
    testing::hostile::survives(|| Eager(device().0), &[0]);
}

#[test]
fn a_driver_gone_mad_is_survived() {
    testing::random::survives(|| device().0);
    testing::random::survives(|| Eager(device().0));
}

#[test]
fn clients_of_a_device_that_stands_still_are_let_go() {
    let (device, address, connector) = device();
    let mut driver = Driver::new(device);
    let mut open = client(&address, 1);
    driver.grant(PLENTY);
    granted(&mut open);
    driver.flush();
    let mut asking = client(&address, 2);
    driver.expect(Op::Request);
    driver.guest.offer_head(1, u16::MAX);
    driver.guest.kick(1);
    driver.guest.needs_reset();
    assert_eq!(rest(&mut open), b"");
    assert_eq!(rest(&mut asking), b"");
    assert!(UnixStream::connect_addr(&address).is_err());
    let (_near, far) = UnixStream::pair().unwrap();
    assert!(connector.connect(1, OwnedFd::from(far)).is_err());
}

#[test]
fn a_length_that_lies_ends_its_stream() {
    let (device, address, _) = device();
    let mut driver = Driver::new(device);
    for lie in [6, 4096, 0x1_0000, u32::MAX] {
        let mut client = client(&address, 1);
        let mut end = driver.grant(PLENTY);
        granted(&mut client);
        driver.write(&mut end, b"true");
        let packet = Header {
            len: lie,
            ..end.header(Op::Payload)
        };
        driver.send(&packet, b"false");
        assert_eq!(driver.expect(Op::Reset).header.src_port, end.host_port);
        assert_eq!(rest(&mut client), b"true");
    }
}

#[test]
fn a_length_less_than_there_are_bytes_counts() {
    let (device, address, _) = device();
    let mut driver = Driver::new(device);
    let mut client = client(&address, 1);
    let end = driver.grant(PLENTY);
    granted(&mut client);
    let packet = Header {
        len: 4,
        ..end.header(Op::Payload)
    };
    driver.send(&packet, b"truefalse");
    driver.send(&end.header(Op::Reset), &[]);
    assert_eq!(rest(&mut client), b"true");
}

#[test]
fn a_packet_of_no_length_is_nothing_bad() {
    let (device, address, _) = device();
    let mut driver = Driver::new(device);
    let mut client = client(&address, 1);
    let mut end = driver.grant(PLENTY);
    granted(&mut client);
    for _ in 0..20 {
        driver.write(&mut end, b"");
    }
    driver.write(&mut end, b"x");
    let mut byte = [0];
    client.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"x");
}

#[test]
fn what_is_shorter_than_a_header_is_thrown_away() {
    let (device, _, _) = device();
    let mut driver = Driver::new(device);
    driver.flush();
    driver.guest.offer(1, &[(testing::GAP_END, 43)], &[]);
    driver.guest.kick(1);
    driver.guest.answer(1);
    driver.send(&header(9, 9, Op::Request), &[]);
    driver.expect(Op::Reset);
}

#[test]
fn a_packet_from_or_to_somebody_else_is_answered_by_a_reset() {
    let (device, address, _) = device();
    let mut driver = Driver::new(device);
    let mut client = client(&address, 1);
    let end = driver.grant(PLENTY);
    granted(&mut client);
    for (src_cid, dst_cid) in [
        (4, 2),
        (2, 2),
        (CID, 0),
        (CID, CID),
        (CID, u64::MAX),
        (0, 0),
    ] {
        let packet = Header {
            src_cid,
            dst_cid,
            len: 1,
            ..end.header(Op::Payload)
        };
        driver.send(&packet, b"x");
        let answer = driver.expect(Op::Reset).header;
        assert_eq!((answer.src_cid, answer.dst_cid), (dst_cid, CID));
        // An answer is answered by nothing.
        let reset = Header {
            op: Op::Reset.number(),
            ..packet
        };
        driver.send(&reset, &[]);
    }
    // None of them was the client's.
    driver.send(&end.header(Op::Reset), &[]);
    assert_eq!(rest(&mut client), b"");
}

#[test]
fn a_packet_of_another_port_is_not_the_streams() {
    let (device, address, _) = device();
    let mut driver = Driver::new(device);
    let mut client = client(&address, 1);
    let end = driver.grant(PLENTY);
    granted(&mut client);
    let foreign = Header {
        src_port: 2,
        len: 1,
        ..end.header(Op::Payload)
    };
    driver.send(&foreign, b"x");
    assert_eq!(driver.expect(Op::Reset).header.dst_port, 2);
    driver.send(&end.header(Op::Reset), &[]);
    assert_eq!(rest(&mut client), b"");
}

#[test]
fn a_guest_that_sends_without_credit_is_reset() {
    let (device, address, _) = device();
    let mut driver = Driver::new(device);
    let mut deaf = client(&address, 1);
    let mut end = driver.grant(PLENTY);
    granted(&mut deaf);
    let reset = loop {
        driver.write(&mut end, &[1; 0x8000]);
        driver.flush();
        let came = driver.try_receive();
        if let Some(packet) = came.filter(|packet| packet.header.op() == Some(Op::Reset)) {
            break packet;
        }
        assert!(end.sent < 64 << 20, "it went on and on");
    };
    assert_eq!(reset.header.src_port, end.host_port);
    // What it sent while it kept to the rules is there.
    assert!(rest(&mut deaf).iter().all(|byte| *byte == 1));
}

#[test]
fn a_flood_of_requests_without_room_for_answers_is_bounded() {
    let (device, _, _) = device();
    let mut driver = Driver::silent(device);
    driver.begin_bare();
    for port in 0..20_000 {
        driver.send(&header(port, 99, Op::Request), &[]);
    }
    driver.flush();
    driver.make_room();
    for port in 0..u32::try_from(MOST_STRAYS).unwrap() {
        assert_eq!(driver.expect(Op::Reset).header.dst_port, port);
    }
    assert_eq!(driver.try_receive(), None);
    driver.hello();
}

#[test]
fn room_that_no_packet_fits_in_goes_back_unused() {
    let (device, address, _) = device();
    let mut driver = Driver::silent(device);
    driver.begin_bare();
    // Room for less than a header, for a header, and for more.
    for length in [43, 44, 44, 44, 100] {
        driver.guest.offer(0, &[], &[(testing::BUFFERS, length)]);
    }
    driver.send(&header(5000, 1, Op::Request), &[]);
    assert_eq!(driver.guest.answer(0), (0, 0));
    assert_eq!(driver.guest.answer(0), (1, 44));
    let mut near = client(&address, 7);
    assert_eq!(driver.guest.answer(0), (2, 44));
    let asked: [u8; 44] = driver.guest.get(testing::BUFFERS, 44).try_into().unwrap();
    let asked = Header::parse(&asked);
    driver.send(&header(7, asked.src_port, Op::Response), &[]);
    granted(&mut near);
    near.write_all(&[5; 56]).unwrap();
    assert_eq!(driver.guest.answer(0), (3, 0));
    assert_eq!(driver.guest.answer(0), (4, 100));
}

#[test]
fn a_greeting_that_is_repeated_for_ever_costs_nothing() {
    let (device, _, _) = device();
    let mut driver = Driver::new(device);
    for _ in 0..1000 {
        driver.send(&header(5000, 1, Op::Reset), &[]);
        driver.hello();
    }
}
