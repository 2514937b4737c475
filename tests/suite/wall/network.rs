//! What is said of a workspace's network holds for a machine as well: published ports of every kind, and rates.

use std::io::Read;
use std::io::Write;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Shutdown;
use std::net::TcpListener;
use std::net::TcpStream;
use std::net::UdpSocket;
use std::time::Duration;
use std::time::Instant;

use super::Walled;
use crate::need;
use crate::network::addresses;
use crate::network::gateway_of;
use crate::network::heard;
use crate::network::port;
use crate::network::rates::PAYLOAD;
use crate::support::home::eventually;

/// Bits per second in each direction; half of what a machine inside an emulated one can send.
const LIMIT: u32 = 500_000;
/// Bytes that fill the buckets and windows on the way, and those whose rate is looked at.
const FIRST: usize = 60_000;
const WHOLE: usize = 760_000;

/// How often a packet has come to the guest for a port where nobody waits.
fn unheard(walled: &Walled) -> u64 {
    let table = walled.asks("cat /proc/net/snmp");
    let mut lines = table.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, numbers) = (lines.next().unwrap(), lines.next().unwrap());
    let place = names.split(' ').position(|name| name == "NoPorts");
    numbers
        .split(' ')
        .nth(place.unwrap())
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn ports_of_a_machine_are_reached_by_both_protocols_and_both_families() {
    need!(machine, kvm, nft);
    let (stream, packets) = (port(), port());
    let server = "while true; do hostname | nc -l -p 5000; done &";
    let walled = Walled::started(server, |config| {
        config["annotations"]["dev.bulkhead.network"] = "net".into();
        config["annotations"]["dev.bulkhead.network.publish"] =
            format!("{stream}:5000,{packets}:5001/udp").into();
    });
    let processes = walled.processes();
    let name = walled.asks("hostname");
    let all = addresses(&walled.home, "net", &walled.id);
    assert_eq!(all.len(), 2, "{all:?}");
    let hosts = all.iter().map(|address| gateway_of(*address));
    for host in hosts.chain([IpAddr::V4(Ipv4Addr::LOCALHOST)]) {
        eventually("an answer at the host's port", || {
            heard(host, stream).as_deref() == Some(name.trim())
        });
    }
    // Nobody in the guest waits for packets; its kernel counts those that come all the same.
    let before = unheard(&walled);
    let client = UdpSocket::bind("0.0.0.0:0").unwrap();
    client
        .send_to(b"who", (gateway_of(all[0]), packets))
        .unwrap();
    eventually("the packet comes to the guest", || {
        unheard(&walled) == before + 1
    });
    walled.removed(&processes);
}

/// Bits of payload per second in which `count` bytes have gone.
fn rate(count: usize, took: Duration) -> f64 {
    count as f64 * 8.0 / took.as_secs_f64()
}

/// How fast the guest sends to the host, once the buckets are empty.
fn sent(mut stream: TcpStream) -> f64 {
    stream.read_exact(&mut vec![0; FIRST]).unwrap();
    let began = Instant::now();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest.len(), WHOLE - FIRST);
    rate(rest.len(), began.elapsed())
}

/// Sends to the guest; gives when that began. The end of the guest's own words comes at once, and says nothing.
fn pour(mut stream: TcpStream) -> Instant {
    let began = Instant::now();
    stream.write_all(&vec![0; WHOLE]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
    began
}

#[test]
fn limits_of_a_machines_network_hold_in_both_directions() {
    need!(machine, kvm);
    let walled = Walled::started(":", |config| {
        config["annotations"]["dev.bulkhead.network"] = "net".into();
        for direction in ["in", "out"] {
            config["annotations"][format!("dev.bulkhead.network.{direction}.limit")] =
                LIMIT.to_string().into();
        }
    });
    let processes = walled.processes();
    let host = gateway_of(addresses(&walled.home, "net", &walled.id)[0]);
    let listener = TcpListener::bind((host, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let due = f64::from(LIMIT) * PAYLOAD;
    // What comes comes in pieces of up to 64 KiB, and the bucket's first bytes go for nothing.
    let within = 0.9..1.1;
    std::thread::scope(|scope| {
        let measured = scope.spawn(|| sent(listener.accept().unwrap().0));
        walled.asks(&format!("head -c {WHOLE} /dev/zero | nc {host} {port}"));
        let found = measured.join().unwrap();
        assert!(within.contains(&(found / due)), "{found} of {due} sent");
    });
    std::thread::scope(|scope| {
        let begun = scope.spawn(|| pour(listener.accept().unwrap().0));
        let came = walled.asks(&format!("nc {host} {port} </dev/null | wc -c"));
        let found = rate(WHOLE, begun.join().unwrap().elapsed());
        assert_eq!(came.trim(), WHOLE.to_string());
        assert!(within.contains(&(found / due)), "{found} of {due} received");
    });
    walled.removed(&processes);
}
