//! The socket device: packets and buffers of any kind, beside clients that come, talk and go.

use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use bulkhead::backend::microvm::vmm::virtio::vsock::Connector;
use bulkhead::backend::microvm::vmm::virtio::vsock::HELLO;
use bulkhead::backend::microvm::vmm::virtio::vsock::Vsock;

use super::guest::BUFFERS;
use super::guest::Guest;
use super::guest::NEXT;
use super::guest::SIZE;
use super::guest::WRITE;
use super::source::Source;

const RECEIVE: usize = 0;
const SEND: usize = 1;
const HEADER: usize = 44;
/// What a packet to the host may hold, and where it lies.
const MOST_SENT: u16 = 0x2000;
const SENT: u64 = BUFFERS + 0x1_0000;
/// The most clients.
const MOST_CLIENTS: usize = 16;

struct World {
    guest: Guest,
    address: SocketAddr,
    connector: Connector,
    clients: Vec<UnixStream>,
    /// Ports of the host that the guest has heard of, with its own.
    streams: Vec<(u32, u32)>,
    sent: u64,
    read: u64,
}

/// Lets these bytes at a device.
pub fn run(bytes: &[u8]) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("bulkhead-fuzz-{}-{count}", std::process::id());
    let address = SocketAddr::from_abstract_name(name).unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    let (device, connector) = Vsock::new(3, OwnedFd::from(listener)).unwrap();
    let mut source = Source::new(bytes);
    let mask = u64::from(source.byte().unwrap_or(0)) << 28;
    let mut world = World {
        guest: Guest::new(device, mask),
        address,
        connector,
        clients: Vec::new(),
        streams: Vec::new(),
        sent: 0,
        read: 0,
    };
    while !world.guest.stands_still() && world.step(&mut source).is_some() {
        world.guest.turn();
    }
    // Whatever came to the clients, the guest has sent, but for the words that they are greeted with.
    let greetings = 16 * world.clients.len() as u64;
    assert!(world.read <= world.sent + 64 * greetings);
}

impl World {
    fn step(&mut self, source: &mut Source<'_>) -> Option<()> {
        match source.byte()? % 16 {
            0 => self.guest.deceive(RECEIVE, source)?,
            1 => self.guest.deceive(SEND, source)?,
            2 => self.connect(source.byte()?),
            3 => self.client(source.byte()?, source.byte()?),
            4..=6 => self.make_room(source.byte()?, source.short()?),
            7 | 8 => self.hear(),
            _ => self.packet(source)?,
        }
        Some(())
    }

    fn connect(&mut self, how: u8) {
        if self.clients.len() == MOST_CLIENTS {
            self.clients.remove(usize::from(how) % MOST_CLIENTS);
        }
        let client = if how & 1 == 0 {
            let Ok(client) = UnixStream::connect_addr(&self.address) else {
                return;
            };
            let port = u32::from(how >> 4);
            writeln!(&client, "CONNECT {port}").ok();
            client
        } else {
            let (near, far) = UnixStream::pair().unwrap();
            self.connector.connect(u32::from(how >> 4), far.into()).ok();
            near
        };
        client.set_nonblocking(true).unwrap();
        self.clients.push(client);
    }

    fn client(&mut self, which: u8, how: u8) {
        if self.clients.is_empty() {
            return;
        }
        let which = usize::from(which) % self.clients.len();
        let mut client = &self.clients[which];
        match how % 8 {
            0 => drop(self.clients.remove(which)),
            1 => client.shutdown(Shutdown::Write).unwrap_or(()),
            2 => client.shutdown(Shutdown::Read).unwrap_or(()),
            3 | 4 => {
                let count = client.read(&mut vec![0; 0x1_0000]).unwrap_or(0);
                self.read += count as u64;
            }
            _ => drop(client.write(&vec![how; 64 * usize::from(how)])),
        }
    }

    fn make_room(&mut self, which: u8, length: u16) {
        let index = u16::from(which) % SIZE;
        let place = BUFFERS + u64::from(index) * 0x1000;
        let length = u32::from(length % 0x1000) + 1;
        self.guest
            .describe(RECEIVE, index, (place, length), WRITE, 0);
        self.guest.offer(RECEIVE, index);
        self.guest.kick(RECEIVE);
    }

    /// Learns the ports in what has come.
    fn hear(&mut self) {
        while let Some(head) = self.guest.answer(RECEIVE) {
            let mut header = [0; HEADER];
            let place = BUFFERS + u64::from(head % SIZE) * 0x1000;
            self.guest.get(place, &mut header);
            let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
            let ports = (word(16), word(20));
            if !self.streams.contains(&ports) && self.streams.len() < 64 {
                self.streams.push(ports);
            }
        }
        while self.guest.answer(SEND).is_some() {}
    }

    fn packet(&mut self, source: &mut Source<'_>) -> Option<()> {
        let which = usize::from(source.byte()?);
        let (host_port, port) = match self.streams.get(which % (self.streams.len() + 2)) {
            Some(stream) => *stream,
            None if which & 1 == 0 => (HELLO, 5000),
            None => (source.word()?, source.word()?),
        };
        let length = source.short()? % MOST_SENT;
        let mut header = Vec::with_capacity(HEADER);
        header.extend(source.one_of(&[3_u64, 2, 4, u64::MAX])?.to_le_bytes());
        header.extend(source.one_of(&[2_u64, 3, 0, u64::MAX])?.to_le_bytes());
        header.extend(port.to_le_bytes());
        header.extend(host_port.to_le_bytes());
        let lies = [length.into(), 0, u32::from(length) + 1, u32::MAX];
        header.extend(source.one_of(&lies)?.to_le_bytes());
        header.extend(source.one_of(&[1_u16, 2, 0, u16::MAX])?.to_le_bytes());
        header.extend(u16::from(source.byte()? % 10).to_le_bytes());
        header.extend(u32::from(source.byte()? % 5).to_le_bytes());
        let room = source.short()?;
        let rooms = [0x4_0000, room.into(), 0, 1, u32::MAX];
        header.extend(source.one_of(&rooms)?.to_le_bytes());
        let taken = [room.into(), 0, 1, u32::MAX, u32::MAX / 2];
        header.extend(source.one_of(&taken)?.to_le_bytes());
        self.guest.put(SENT, &header);
        self.sent += u64::from(length);
        self.send(length.into(), source.byte()?);
        Some(())
    }

    /// Sends what lies there, in one piece or in more.
    fn send(&mut self, length: u32, pieces: u8) {
        let all = HEADER as u32 + length;
        let first = match pieces % 4 {
            0 => all,
            1 => HEADER as u32,
            _ => (u32::from(pieces) * 2).clamp(1, all),
        };
        let index = u16::from(pieces) % (SIZE - 1);
        let more = if first < all { NEXT } else { 0 };
        let rest = (SENT + u64::from(first), all - first);
        self.guest
            .describe(SEND, index, (SENT, first), more, index + 1);
        self.guest.describe(SEND, index + 1, rest, 0, 0);
        self.guest.offer(SEND, index);
        self.guest.kick(SEND);
    }
}
