//! The socket device, with a guest that drives its queues on one side and unix sockets on the other.

mod guest;
mod hostile;
mod streams;
mod whole;

use std::io::Read;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::backend::microvm::vmm::virtio::vsock::Connector;
use crate::backend::microvm::vmm::virtio::vsock::Vsock;

/// The guest's number.
const CID: u64 = 3;

/// Longer than anything takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A device, where its clients connect to, and how to connect from within.
fn device() -> (Vsock, SocketAddr, Connector) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("bulkhead-vsock-{}-{count}", std::process::id());
    let address = SocketAddr::from_abstract_name(name).unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    let (device, connector) = Vsock::new(CID, OwnedFd::from(listener)).unwrap();
    (device, address, connector)
}

/// A client that has asked for `port`.
fn client(address: &SocketAddr, port: u32) -> UnixStream {
    let client = said(address, format!("CONNECT {port}\n").as_bytes());
    client.set_write_timeout(Some(PATIENCE)).unwrap();
    client
}

/// A client that has said something.
fn said(address: &SocketAddr, what: &[u8]) -> UnixStream {
    let mut client = UnixStream::connect_addr(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(what).unwrap();
    client
}

/// The port in the `OK PORT` that a client hears.
fn granted(client: &mut UnixStream) -> u32 {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        line.extend(byte);
    }
    let line = String::from_utf8(line).unwrap();
    let port = line.strip_prefix("OK ").unwrap().trim_end();
    port.parse().unwrap()
}

/// All that a client still hears, to the end.
fn rest(client: &mut UnixStream) -> Vec<u8> {
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    rest
}

/// Bytes in which every place can be told from its neighbours.
fn pattern(length: usize) -> Vec<u8> {
    let word = |index: usize| u32::try_from(index / 4).unwrap().to_le_bytes()[index % 4];
    (0..length).map(word).collect()
}
