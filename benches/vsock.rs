//! Measures how many bytes a second go through the socket device, beside a plain socket.
//!
//! Run as `cargo bench --bench vsock`. The guest is a thread with the driver's side of the queues, so what is measured is
//! the device and its client, not a virtual processor: no exit, no interrupt that is injected. A last argument gives the
//! bytes in MiB.
#![expect(clippy::print_stdout, reason = "what is measured is printed")]
#![expect(clippy::unwrap_used, reason = "a benchmark that fails says where")]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "numbers of ours, all of them small"
)]

use std::hint::black_box;
use std::io::Read;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use bulkhead::backend::microvm::vmm::virtio::vsock::Vsock;

#[path = "vsock/driver.rs"]
mod driver;

use driver::Driver;

/// How much the guest has room for: what Linux grants, and what an agent may ask for.
const ROOMS: [u32; 2] = [256 << 10, 1 << 20];
/// How much the client moves at once.
const BLOCK: usize = 64 << 10;
const ROUNDS: usize = 3;

fn main() {
    let asked = std::env::args()
        .filter_map(|word| word.parse::<u64>().ok())
        .next_back();
    let bytes = asked.unwrap_or(1024) << 20;
    for _ in 0..ROUNDS {
        report("socket pair", bytes, plain(bytes));
        for packet in [driver::LONGEST, 4096] {
            let (took, bells) = up(bytes, packet);
            report(&format!("guest to host, packets of {packet}"), bytes, took);
            println!("    {} kicks, {} waits", bells.0, bells.1);
        }
        for room in ROOMS {
            let (took, bells) = down(bytes, room);
            report(&format!("host to guest, room {room}"), bytes, took);
            println!("    {} kicks, {} waits", bells.0, bells.1);
        }
    }
}

fn report(name: &str, bytes: u64, took: f64) {
    println!("{name}: {:.0} MB/s", bytes as f64 / took / 1e6);
}

/// Takes all that comes; gives how much that was.
fn drain(mut from: UnixStream) -> u64 {
    let mut block = vec![0; BLOCK];
    let mut all = 0;
    loop {
        match from.read(&mut block).unwrap() {
            0 => return all,
            count => all += count as u64,
        }
        black_box(&block);
    }
}

fn fill(mut to: UnixStream, bytes: u64) {
    let block = vec![7; BLOCK];
    for _ in 0..bytes / BLOCK as u64 {
        to.write_all(black_box(&block)).unwrap();
    }
}

/// From one thread to another, with nothing between them.
fn plain(bytes: u64) -> f64 {
    let (near, far) = UnixStream::pair().unwrap();
    let begun = Instant::now();
    let reader = std::thread::spawn(move || drain(far));
    fill(near, bytes);
    assert_eq!(reader.join().unwrap(), bytes);
    begun.elapsed().as_secs_f64()
}

/// A driver with one stream, and its client.
fn stream(room: u32) -> (Driver, UnixStream) {
    let listener = UnixListener::bind_addr(&address()).unwrap();
    let (device, _) = Vsock::new(3, OwnedFd::from(listener)).unwrap();
    let mut client = UnixStream::connect_addr(&address()).unwrap();
    client.write_all(b"CONNECT 1024\n").unwrap();
    let driver = Driver::new(device, room);
    let mut byte = [0];
    while byte != *b"\n" {
        client.read_exact(&mut byte).unwrap();
    }
    (driver, client)
}

fn address() -> SocketAddr {
    let name = format!("bulkhead-bench-{}", std::process::id());
    SocketAddr::from_abstract_name(name).unwrap()
}

fn up(bytes: u64, packet: usize) -> (f64, (u64, u64)) {
    let (mut driver, client) = stream(ROOMS[0]);
    let begun = Instant::now();
    let reader = std::thread::spawn(move || drain(client));
    driver.send(bytes, packet);
    driver.end();
    assert_eq!(reader.join().unwrap(), bytes);
    (begun.elapsed().as_secs_f64(), driver.bells)
}

fn down(bytes: u64, room: u32) -> (f64, (u64, u64)) {
    let (mut driver, client) = stream(room);
    let begun = Instant::now();
    let writer = std::thread::spawn(move || fill(client, bytes));
    let mut came = 0;
    while came < bytes {
        driver.wait();
        came += driver.hear(&mut |piece| {
            black_box(piece);
        }) as u64;
    }
    assert_eq!(came, bytes);
    writer.join().unwrap();
    (begun.elapsed().as_secs_f64(), driver.bells)
}
