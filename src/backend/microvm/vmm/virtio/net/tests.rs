//! Frames between a guest and a tap of the network namespace that the tests run in.

use std::fs::File;
use std::net::UdpSocket;
use std::process::Command;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use virtio_bindings::virtio_net::VIRTIO_NET_F_GUEST_TSO4;
use virtio_bindings::virtio_net::VIRTIO_NET_F_GUEST_TSO6;
use virtio_bindings::virtio_net::VIRTIO_NET_F_MRG_RXBUF;

use crate::backend::microvm::vmm::config::Limit;
use crate::backend::microvm::vmm::virtio::net::HEAD;
use crate::backend::microvm::vmm::virtio::net::Net;
use crate::backend::microvm::vmm::virtio::net::NetOptions;
use crate::backend::microvm::vmm::virtio::testing::BUFFERS;
use crate::backend::microvm::vmm::virtio::testing::GAP_END;
use crate::backend::microvm::vmm::virtio::testing::Guest;
use crate::backend::microvm::vmm::virtio::testing::hostile;
use crate::backend::microvm::vmm::virtio::testing::random;
use crate::sys::tap;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
/// All but large segments, so that a frame is a packet.
const SMALL: u64 = !((1 << VIRTIO_NET_F_GUEST_TSO4) | (1 << VIRTIO_NET_F_GUEST_TSO6));

/// A tap with an address of the host, and a neighbour that is the guest.
struct Wire {
    name: String,
    net: u32,
}

fn ip(words: &str) {
    let done = Command::new("ip").args(words.split(' ')).status().unwrap();
    assert!(done.success(), "ip {words}");
}

impl Wire {
    fn new(options: NetOptions) -> (Self, Net) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let net = COUNT.fetch_add(1, Ordering::SeqCst);
        let name = format!("tap-test{net}");
        let options = NetOptions {
            mac: MAC,
            ..options
        };
        let device = Net::new(tap::open(&name).unwrap(), &options).unwrap();
        ip(&format!(
            "link set {name} address 02:00:00:00:01:{net:02x} up"
        ));
        ip(&format!("addr add 10.77.{net}.1/24 dev {name}"));
        ip(&format!(
            "neigh add 10.77.{net}.2 lladdr 02:00:00:00:00:07 dev {name}"
        ));
        (Self { name, net }, device)
    }

    fn host(&self) -> UdpSocket {
        let socket = UdpSocket::bind((format!("10.77.{}.1", self.net), 4000)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        socket
    }

    fn tell_guest(&self, host: &UdpSocket, words: &[u8]) {
        host.send_to(words, (format!("10.77.{}.2", self.net), 5000))
            .unwrap();
    }

    /// A frame of the guest to the host, with its head before it.
    fn frame(&self, words: &[u8]) -> Vec<u8> {
        let net = u8::try_from(self.net).unwrap();
        let length = u16::try_from(words.len()).unwrap();
        let mut packet = vec![0x45, 0];
        packet.extend((length + 28).to_be_bytes());
        packet.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 77, net, 2, 10, 77, net, 1]);
        let sum: u32 = packet
            .chunks(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend(5000_u16.to_be_bytes());
        packet.extend(4000_u16.to_be_bytes());
        packet.extend((length + 8).to_be_bytes());
        packet.extend([0, 0]);
        packet.extend(words);
        let mut frame = vec![0; HEAD];
        frame.extend([2, 0, 0, 0, 1, net]);
        frame.extend(MAC);
        frame.extend([8, 0]);
        frame.extend(packet);
        frame
    }
}

/// Waits for the frame that ends with these words; gives it with its head, put together from its buffers.
fn receive(guest: &mut Guest, words: &[u8], buffer: usize) -> Vec<u8> {
    loop {
        let (head, used) = guest.answer(0);
        let place = |head: u16| GAP_END + u64::from(head) * 0x1000;
        let mut frame = guest.get(place(head), usize::try_from(used).unwrap());
        let count = u16::from_le_bytes([frame[10], frame[11]]);
        for _ in 1..count {
            let (head, used) = guest.answer(0);
            assert!(usize::try_from(used).unwrap() <= buffer);
            frame.extend(guest.get(place(head), usize::try_from(used).unwrap()));
        }
        if frame.ends_with(words) {
            return frame;
        }
    }
}

fn stock(guest: &mut Guest, count: u64, length: usize) {
    for index in 0..count {
        guest.offer(0, &[], &[(GAP_END + index * 0x1000, length)]);
    }
    guest.kick(0);
}

fn send(guest: &mut Guest, frame: &[u8]) {
    guest.put(BUFFERS, frame);
    // Head, frame and payload come in pieces, as they do from a driver.
    let rest = frame.len() - 40;
    guest.ask(
        1,
        &[(BUFFERS, 12), (BUFFERS + 12, 28), (BUFFERS + 40, rest)],
        &[],
    );
}

/// A frame each way, of a driver that has just set the device up.
fn talk(wire: &Wire, guest: &mut Guest, host: &UdpSocket) {
    stock(guest, 8, 2048);
    wire.tell_guest(host, b"are you there?");
    let frame = receive(guest, b"are you there?", 2048);
    assert_eq!(frame[HEAD..HEAD + 6], MAC);
    assert_eq!(frame[10..12], [1, 0]);
    let said = wire.frame(b"I am");
    send(guest, &said);
    let mut heard = [0; 64];
    let (length, from) = host.recv_from(&mut heard).unwrap();
    assert_eq!(&heard[..length], b"I am");
    assert_eq!(from.to_string(), format!("10.77.{}.2:5000", wire.net));
}

#[test]
fn frames_go_both_ways_unchanged() {
    let (wire, net) = Wire::new(NetOptions::default());
    let mut guest = Guest::new(net);
    let host = wire.host();
    for _ in 0..2 {
        guest.set_up(SMALL);
        talk(&wire, &mut guest, &host);
    }
}

#[test]
fn the_kernel_moves_frames_where_it_can() {
    let Ok(vhost) = File::options()
        .read(true)
        .write(true)
        .open("/dev/vhost-net")
    else {
        println!("SKIP: there is no /dev/vhost-net here");
        return;
    };
    let (wire, net) = Wire::new(NetOptions::default());
    let mut guest = Guest::new(net.by_kernel(vhost.into()).unwrap());
    let host = wire.host();
    for _ in 0..2 {
        guest.set_up(SMALL);
        talk(&wire, &mut guest, &host);
        guest.status(0);
        assert_eq!(guest.register(0x60), 0);
    }
}

#[test]
fn a_frame_is_spread_over_small_buffers() {
    let (wire, net) = Wire::new(NetOptions::default());
    let mut guest = Guest::new(net);
    guest.set_up(SMALL);
    stock(&mut guest, 16, 200);
    let host = wire.host();
    let words: Vec<u8> = (0..1400_u32)
        .map(|index| u8::try_from(index % 251).unwrap())
        .collect();
    wire.tell_guest(&host, &words);
    let frame = receive(&mut guest, &words, 200);
    assert_eq!(frame.len(), HEAD + 14 + 28 + 1400);
    assert_eq!(frame[10..12], [8, 0]);
}

#[test]
fn a_driver_without_mergeable_buffers_gets_whole_frames() {
    let (wire, net) = Wire::new(NetOptions::default());
    let mut guest = Guest::new(net);
    guest.set_up(SMALL & !(1 << VIRTIO_NET_F_MRG_RXBUF));
    stock(&mut guest, 8, 1530);
    let host = wire.host();
    wire.tell_guest(&host, &[b'x'; 1472]);
    let frame = receive(&mut guest, &[b'x'; 1472], 1530);
    assert_eq!(frame.len(), HEAD + 14 + 1500);
    guest.set_up(SMALL & !(1 << VIRTIO_NET_F_MRG_RXBUF));
    stock(&mut guest, 1, 1529);
    guest.needs_reset();
}

#[test]
fn what_is_no_frame_is_dropped_and_answered() {
    let (wire, net) = Wire::new(NetOptions::default());
    let mut guest = Guest::new(net);
    guest.set_up(SMALL);
    let host = wire.host();
    for length in [1, 12, 25, 0x4_0000] {
        guest.ask(1, &[(BUFFERS, length)], &[]);
    }
    // A head that promises what the frame does not have.
    let mut bad = wire.frame(b"bad");
    bad[0] = 1;
    bad[6..8].copy_from_slice(&[0xff, 0xff]);
    send(&mut guest, &bad);
    send(&mut guest, &wire.frame(b"good"));
    let mut heard = [0; 64];
    let (length, _) = host.recv_from(&mut heard).unwrap();
    assert_eq!(&heard[..length], b"good");
}

#[test]
fn a_limit_of_frames_holds() {
    let limit = Limit {
        bytes_per_second: None,
        operations_per_second: Some(20),
    };
    let (wire, net) = Wire::new(NetOptions {
        send: Some(limit),
        ..NetOptions::default()
    });
    let mut guest = Guest::new(net);
    guest.set_up(SMALL);
    let start = Instant::now();
    for _ in 0..24 {
        send(&mut guest, &wire.frame(b"again"));
    }
    let took = start.elapsed();
    assert!(took > Duration::from_millis(150), "{took:?}");
}

#[test]
fn the_configuration_tells_address_packet_size_and_link() {
    let (wire, net) = Wire::new(NetOptions {
        mtu: 9000,
        ..NetOptions::default()
    });
    let mut guest = Guest::new(net);
    guest.set_up(SMALL);
    assert_eq!(
        guest.config(0, 12),
        [2, 0, 0, 0, 0, 7, 1, 0, 0, 0, 0x28, 0x23]
    );
    stock(&mut guest, 8, 4096);
    ip(&format!("link del {}", wire.name));
    guest.wait("the end of the link", |guest| {
        (guest.config(6, 2) == [0, 0]).then_some(())
    });
}

#[test]
fn no_driver_confuses_it() {
    hostile::survives(|| Wire::new(NetOptions::default()).1, &[0, 1]);
}

#[test]
fn a_mad_driver_does_not_break_it_for_its_successor() {
    random::survives(|| Wire::new(NetOptions::default()).1);
}
