//! What a client hears and a guest sees.

use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use crate::backend::microvm::vmm::virtio::vsock::ROOM;
use crate::backend::microvm::vmm::virtio::vsock::hub::MOST_CHANNELS;
use crate::backend::microvm::vmm::virtio::vsock::packet::Header;
use crate::backend::microvm::vmm::virtio::vsock::packet::Op;
use crate::backend::microvm::vmm::virtio::vsock::packet::RECEIVES_NO_MORE;
use crate::backend::microvm::vmm::virtio::vsock::packet::SENDS_NO_MORE;
use crate::backend::microvm::vmm::virtio::vsock::tests::PATIENCE;
use crate::backend::microvm::vmm::virtio::vsock::tests::client;
use crate::backend::microvm::vmm::virtio::vsock::tests::device;
use crate::backend::microvm::vmm::virtio::vsock::tests::granted;
use crate::backend::microvm::vmm::virtio::vsock::tests::guest::Driver;
use crate::backend::microvm::vmm::virtio::vsock::tests::guest::End;
use crate::backend::microvm::vmm::virtio::vsock::tests::guest::PLENTY;
use crate::backend::microvm::vmm::virtio::vsock::tests::guest::header;
use crate::backend::microvm::vmm::virtio::vsock::tests::pattern;
use crate::backend::microvm::vmm::virtio::vsock::tests::rest;
use crate::backend::microvm::vmm::virtio::vsock::tests::said;

const BOTH: u32 = SENDS_NO_MORE | RECEIVES_NO_MORE;

/// A stream: the guest, the guest's end, and the client.
fn stream(room: u32) -> (Driver, End, UnixStream) {
    let (device, address, _) = device();
    let mut driver = Driver::new(device);
    let mut client = client(&address, 1024);
    let end = driver.grant(room);
    assert_eq!(granted(&mut client), end.host_port);
    (driver, end, client)
}

#[test]
fn the_guest_reads_its_number() {
    let (device, _, _) = device();
    let mut driver = Driver::silent(device);
    assert_eq!(driver.guest.config(0, 8), 3_u64.to_le_bytes());
    assert_eq!(driver.guest.config(4, 8), [0; 8]);
    assert_eq!(driver.guest.config(u64::MAX - 0x100, 4), [0; 4]);
}

#[test]
fn a_client_hears_its_port_when_the_guest_grants() {
    let (_driver, end, _client) = stream(PLENTY);
    assert_eq!(end.port, 1024);
    assert!(end.host_port >= 1 << 30);
}

#[test]
fn a_client_that_is_refused_hears_nothing() {
    let (device, address, _) = device();
    let mut driver = Driver::new(device);
    let mut client = client(&address, 7);
    let asked = driver.expect(Op::Request).header;
    assert_eq!(asked.dst_port, 7);
    driver.send(&header(7, asked.src_port, Op::Reset), &[]);
    assert_eq!(rest(&mut client), b"");
}

#[test]
fn a_client_that_asks_for_nothing_there_is_is_let_go() {
    let (device, address, _) = device();
    let _driver = Driver::new(device);
    for wrong in [
        "\n",
        "CONNECT\n",
        "CONNECT \n",
        "CONNECT x\n",
        "CONNECT -1\n",
        "CONNECT +1\n",
        "CONNECT 1 \n",
        "CONNECT 1\r\n",
        "connect 1\n",
        "CONNECT 4294967296\n",
        "CONNECT 0000000000000000000000001\n",
    ] {
        let mut client = said(&address, wrong.as_bytes());
        assert_eq!(rest(&mut client), b"", "{wrong:?}");
    }
}

#[test]
fn a_request_may_come_in_pieces_and_with_bytes_behind_it() {
    let (device, address, _) = device();
    let mut driver = Driver::new(device);
    let mut client = said(&address, b"CONN");
    let mut hasty = said(&address, b"CONNECT 4294967295\nbytes\nand more");
    let mut end = driver.grant(PLENTY);
    assert_eq!(end.port, u32::MAX);
    assert_eq!(driver.read(&mut end), b"bytes\nand more");
    assert_eq!(granted(&mut hasty), end.host_port);
    client.write_all(b"ECT 12\n").unwrap();
    assert_eq!(driver.grant(PLENTY).port, 12);
}

#[test]
fn who_comes_before_the_guest_is_ready_waits_in_order() {
    let (device, address, _) = device();
    let mut clients: Vec<_> = (1..=5).map(|port| client(&address, port)).collect();
    let mut driver = Driver::silent(device);
    clients.push(client(&address, 6));
    // The answer to this says that the device has looked at all of them.
    driver.send(&header(9, 9, Op::Request), &[]);
    driver.expect(Op::Reset);
    driver.hello();
    for port in 1..=6 {
        assert_eq!(driver.grant(PLENTY).port, port);
    }
    for client in &mut clients {
        granted(client);
    }
}

#[test]
fn who_has_left_before_the_guest_is_ready_is_forgotten() {
    let (device, address, _) = device();
    drop(client(&address, 1));
    let _stays = client(&address, 2);
    let mut driver = Driver::silent(device);
    driver.send(&header(9, 9, Op::Request), &[]);
    driver.expect(Op::Reset);
    driver.hello();
    assert_eq!(driver.grant(PLENTY).port, 2);
}

#[test]
fn a_guest_connects_to_the_port_of_its_greeting_and_to_no_other() {
    let (device, _, _) = device();
    let mut driver = Driver::new(device);
    for port in [0, 2, 22, 1024, 1 << 30, u32::MAX] {
        driver.send(&header(77, port, Op::Request), &[]);
        let answer = driver.expect(Op::Reset).header;
        assert_eq!((answer.src_port, answer.dst_port), (port, 77));
    }
    // There is one greeting at a time.
    driver.send(&header(5001, 1, Op::Request), &[]);
    assert_eq!(driver.expect(Op::Reset).header.dst_port, 5001);
    driver.send(&header(5000, 1, Op::Payload), &[]);
    let done = Header {
        flags: BOTH,
        ..header(5000, 1, Op::Shutdown)
    };
    driver.send(&done, &[]);
    assert_eq!(driver.expect(Op::Reset).header.dst_port, 5000);
    driver.hello();
}

#[test]
fn bytes_go_both_ways() {
    let (mut driver, mut end, mut client) = stream(PLENTY);
    client.write_all(b"question").unwrap();
    assert_eq!(driver.read(&mut end), b"question");
    driver.write(&mut end, b"answer");
    let mut answer = [0; 6];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"answer");
}

#[test]
fn a_client_from_within_hears_the_bytes_alone() {
    let (device, _, connector) = device();
    let (near, far) = UnixStream::pair().unwrap();
    near.set_read_timeout(Some(PATIENCE)).unwrap();
    connector.connect(1024, OwnedFd::from(far)).unwrap();
    (&near).write_all(b"early").unwrap();
    let mut driver = Driver::new(device);
    let mut end = driver.grant(PLENTY);
    assert_eq!(driver.read(&mut end), b"early");
    driver.write(&mut end, b"words");
    driver.send(&end.shutdown(BOTH), &[]);
    assert_eq!(rest(&mut { near }), b"words");
}

#[test]
fn a_client_from_within_ends_when_it_is_refused() {
    let (device, _, connector) = device();
    let (mut near, far) = UnixStream::pair().unwrap();
    near.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut driver = Driver::new(device);
    connector.connect(9, OwnedFd::from(far)).unwrap();
    let asked = driver.expect(Op::Request).header;
    driver.send(&header(9, asked.src_port, Op::Reset), &[]);
    assert_eq!(rest(&mut near), b"");
}

#[test]
fn nobody_connects_from_within_to_a_device_that_is_gone() {
    let (device, _, connector) = device();
    drop(device);
    let (_near, far) = UnixStream::pair().unwrap();
    let refused = connector.connect(1, OwnedFd::from(far)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::BrokenPipe);
}

#[test]
fn a_client_that_ends_still_hears() {
    let (mut driver, mut end, mut client) = stream(PLENTY);
    client.write_all(b"last words").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(driver.read(&mut end), b"last words");
    assert_eq!(driver.expect(Op::Shutdown).header.flags, SENDS_NO_MORE);
    driver.write(&mut end, b"heard");
    driver.send(&end.shutdown(SENDS_NO_MORE), &[]);
    assert_eq!(rest(&mut client), b"heard");
    assert_eq!(driver.expect(Op::Shutdown).header.flags, BOTH);
    driver.send(&end.header(Op::Reset), &[]);
}

#[test]
fn a_guest_that_ends_still_hears() {
    let (mut driver, mut end, mut client) = stream(PLENTY);
    driver.write(&mut end, b"last words");
    driver.send(&end.shutdown(SENDS_NO_MORE), &[]);
    assert_eq!(rest(&mut client), b"last words");
    client.write_all(b"heard").unwrap();
    assert_eq!(driver.read(&mut end), b"heard");
    drop(client);
    // That it sends no more may be seen, and said, before that it receives no more.
    while driver.expect(Op::Shutdown).header.flags & BOTH != BOTH {}
}

#[test]
fn a_guest_that_receives_no_more_is_told_to_its_client() {
    let (mut driver, end, mut client) = stream(PLENTY);
    driver.send(&end.shutdown(RECEIVES_NO_MORE), &[]);
    driver.flush();
    let refused = client.write_all(b"for nobody").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::BrokenPipe);
}

#[test]
fn what_a_client_wrote_before_it_closed_arrives_whole() {
    // Less room than bytes, so that most of them wait in the socket when its client is long gone.
    let (mut driver, mut end, mut client) = stream(1000);
    let sent = pattern(100_000);
    client.write_all(&sent).unwrap();
    drop(client);
    let mut came = Vec::new();
    loop {
        let packet = driver.receive();
        match packet.header.op() {
            Some(Op::Payload) => {
                end.received += packet.header.len;
                assert!(end.received - end.taken <= end.room);
                end.taken = end.received;
                came.extend(packet.bytes);
                driver.send(&end.header(Op::CreditUpdate), &[]);
            }
            Some(Op::Shutdown) if packet.header.flags == BOTH => break,
            Some(Op::Shutdown | Op::CreditRequest) => {}
            _ => panic!("{packet:?}"),
        }
    }
    assert!(came == sent);
}

#[test]
fn what_a_guest_wrote_before_it_closed_arrives_whole_before_it_is_answered() {
    let (mut driver, mut end, mut client) = stream(PLENTY);
    let sent = pattern(ROOM as usize);
    for bytes in sent.chunks(0x8000) {
        driver.write(&mut end, bytes);
    }
    driver.send(&end.shutdown(BOTH), &[]);
    driver.flush();
    // More than a socket holds is still here, so there is no answer yet. A stray packet shows that the device has had
    // its chance to give one.
    driver.send(&header(9, 9, Op::Request), &[]);
    loop {
        let packet = driver.receive().header;
        if packet.dst_port == 9 {
            break;
        }
        assert_eq!(packet.op(), Some(Op::CreditUpdate));
    }
    assert!(rest(&mut client) == sent);
    driver.expect(Op::Reset);
}

#[test]
fn a_guest_that_drops_its_stream_loses_nothing_that_it_sent() {
    let (mut driver, mut end, mut client) = stream(PLENTY);
    let sent = pattern(ROOM as usize);
    for bytes in sent.chunks(0x8000) {
        driver.write(&mut end, bytes);
    }
    driver.send(&end.header(Op::Reset), &[]);
    driver.flush();
    assert!(rest(&mut client) == sent);
}

#[test]
fn a_client_with_bytes_that_nobody_took_reads_an_end_and_no_error() {
    let (mut driver, end, mut client) = stream(0);
    client.write_all(&[1; 1000]).unwrap();
    driver.expect(Op::CreditRequest);
    driver.send(&end.shutdown(BOTH), &[]);
    assert_eq!(rest(&mut client), b"");
}

#[test]
fn a_client_that_reads_nothing_keeps_nobody_else_from_it() {
    let (device, address, _) = device();
    let mut driver = Driver::new(device);
    let _deaf = client(&address, 1);
    let mut deaf_end = driver.grant(PLENTY);
    let mut lively = client(&address, 2);
    let mut end = driver.grant(PLENTY);
    granted(&mut lively);
    let block = [7; 0x4000];
    while deaf_end.credit() > 0 {
        let count = block.len().min(deaf_end.credit() as usize);
        driver.write(&mut deaf_end, &block[..count]);
        driver.flush();
        while let Some(packet) = driver.try_receive() {
            deaf_end.hear(&packet.header);
        }
    }
    driver.write(&mut end, b"still here");
    let mut heard = [0; 10];
    lively.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"still here");
    // What it did not read is in its socket and in the room granted, and nowhere else.
    assert!(deaf_end.sent <= 2 * ROOM);
}

#[test]
fn no_more_is_taken_from_a_client_than_the_guest_has_room_for() {
    let (mut driver, mut end, mut client) = stream(5000);
    client.set_nonblocking(true).unwrap();
    let sent = pattern(1 << 20);
    let mut written = 0;
    let full = |client: &mut UnixStream, written: &mut usize| {
        while let Ok(count) = client.write(&sent[*written..]) {
            *written += count;
        }
    };
    full(&mut client, &mut written);
    let mut came = Vec::new();
    while came.len() < 5000 {
        came.extend(driver.read(&mut end));
    }
    driver.expect(Op::CreditRequest);
    full(&mut client, &mut written);
    let before = written;
    // The guest has read nothing more, so nothing more has left the socket.
    end.taken = 0;
    driver.send(&end.header(Op::CreditUpdate), &[]);
    driver.send(&header(9, 9, Op::Request), &[]);
    assert_eq!(driver.expect(Op::Reset).header.dst_port, 9);
    full(&mut client, &mut written);
    assert_eq!(written, before);
    end.taken = 5000;
    driver.send(&end.header(Op::CreditUpdate), &[]);
    while came.len() < 10_000 {
        came.extend(driver.read(&mut end));
    }
    assert!(came == sent[..10_000]);
}

#[test]
fn a_client_that_leaves_is_told_to_the_guest() {
    let (mut driver, mut end, client) = stream(PLENTY);
    drop(client);
    let mut flags = 0;
    while flags != BOTH {
        flags = driver.expect(Op::Shutdown).header.flags;
    }
    // What is on its way still is taken, and nobody minds.
    driver.write(&mut end, b"too late");
    driver.send(&end.shutdown(BOTH), &[]);
    driver.expect(Op::Reset);
}

#[test]
fn a_port_in_use_is_not_given_again_and_an_old_one_answers_nobody() {
    let (device, address, _) = device();
    let mut driver = Driver::new(device);
    let mut first = client(&address, 1);
    let mut old = driver.grant(PLENTY);
    granted(&mut first);
    driver.send(&old.header(Op::Reset), &[]);
    assert_eq!(rest(&mut first), b"");
    let mut second = client(&address, 1);
    let end = driver.grant(PLENTY);
    assert_ne!(end.host_port, old.host_port);
    granted(&mut second);
    driver.write(&mut old, b"from the past");
    let answer = driver.expect(Op::Reset).header;
    assert_eq!(answer.src_port, old.host_port);
    driver.send(&end.shutdown(BOTH), &[]);
    assert_eq!(rest(&mut second), b"");
}

#[test]
fn a_new_driver_finds_new_streams_alone() {
    let (device, address, _) = device();
    let mut driver = Driver::new(device);
    let mut old = client(&address, 1);
    driver.grant(PLENTY);
    granted(&mut old);
    driver.begin();
    assert_eq!(rest(&mut old), b"");
    let _early = client(&address, 2);
    driver.hello();
    assert_eq!(driver.grant(PLENTY).port, 2);
}

#[test]
fn clients_beyond_the_last_place_wait_for_one() {
    let (device, address, _) = device();
    let mut driver = Driver::new(device);
    let silent: Vec<_> = (0..MOST_CHANNELS).map(|_| said(&address, b"")).collect();
    let mut last = client(&address, 1);
    driver.send(&header(9, 9, Op::Request), &[]);
    driver.expect(Op::Reset);
    assert_eq!(driver.try_receive(), None);
    drop(silent);
    let end = driver.grant(PLENTY);
    assert_eq!(granted(&mut last), end.host_port);
}

#[test]
fn one_client_after_another_leaves_nothing_behind() {
    let (device, address, _) = device();
    let mut driver = Driver::new(device);
    for _ in 0..2 * MOST_CHANNELS {
        let mut client = client(&address, 1024);
        let mut end = driver.grant(PLENTY);
        driver.write(&mut end, b"hello");
        driver.send(&end.shutdown(BOTH), &[]);
        granted(&mut client);
        assert_eq!(rest(&mut client), b"hello");
        assert_eq!(driver.expect(Op::Reset).header.src_port, end.host_port);
    }
}
