//! A driver of the socket device with one stream, as quick as a guest's: large queues, and no bell that is not wanted.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::atomic::fence;
use std::thread::JoinHandle;

use bulkhead::backend::microvm::vmm::BusDevice;
use bulkhead::backend::microvm::vmm::virtio::EventLoop;
use bulkhead::backend::microvm::vmm::virtio::Memory;
use bulkhead::backend::microvm::vmm::virtio::Orders;
use bulkhead::backend::microvm::vmm::virtio::Transport;
use bulkhead::backend::microvm::vmm::virtio::vsock::Vsock;
use vm_memory::Bytes;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::epoll::ControlOperation;
use vmm_sys_util::epoll::Epoll;
use vmm_sys_util::epoll::EpollEvent;
use vmm_sys_util::epoll::EventSet;

/// Entries of each queue.
const SIZE: u16 = 256;
/// The header of a packet, in bytes.
pub(crate) const HEADER: usize = 44;
/// How long a buffer to receive into is: Linux gives so much.
pub(crate) const ROOM: usize = 4096;
/// The longest packet that Linux sends.
pub(crate) const LONGEST: usize = 65536;
/// Packets that may be on their way to the host.
const SENDING: u64 = 32;

const RECEIVE: usize = 0;
const SEND: usize = 1;

/// What packets are for.
const REQUEST: u16 = 1;
const RESPONSE: u16 = 2;
const SHUTDOWN: u16 = 4;
const PAYLOAD: u16 = 5;
const CREDIT_UPDATE: u16 = 6;
const CREDIT_REQUEST: u16 = 7;

struct Side {
    base: u64,
    offered: u16,
    /// How many were offered when the device was last thought of waking.
    rung: u16,
    seen: u16,
}

/// The driver and its one stream.
pub(crate) struct Driver {
    transport: Transport,
    memory: Memory,
    line: Epoll,
    orders: Orders,
    thread: Option<JoinHandle<()>>,
    sides: [Side; 2],
    slot: u64,
    sending: u64,
    room: u32,
    peer: (u32, u32),
    received: u32,
    told: u32,
    sent: u32,
    host_taken: u32,
    host_room: u32,
    /// How often the device was woken, and the guest.
    pub(crate) bells: (u64, u64),
}

impl Driver {
    /// A guest that is ready; it has `room` for bytes.
    pub(crate) fn new(device: Vsock, room: u32) -> Self {
        let mut events =
            EventLoop::new(|_, error| println!("the device stands still: {error}")).unwrap();
        let seat = events.seat(device);
        let orders = events.orders();
        let memory =
            Memory::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 16 << 20)]).unwrap());
        let transport = Transport::new(seat, Arc::clone(&memory)).unwrap();
        let line = Epoll::new().unwrap();
        let event = EpollEvent::new(EventSet::IN, 0);
        line.ctl(ControlOperation::Add, transport.line().as_raw_fd(), event)
            .unwrap();
        let thread = std::thread::spawn(move || events.run().unwrap());
        let side = |base| Side {
            base,
            offered: 0,
            rung: 0,
            seen: 0,
        };
        let mut driver = Self {
            transport,
            memory,
            line,
            orders,
            thread: Some(thread),
            sides: [side(0x1_0000), side(0x2_0000)],
            slot: 0,
            sending: 0,
            room,
            peer: (0, 0),
            received: 0,
            told: 0,
            sent: 0,
            host_taken: 0,
            host_room: 0,
            bells: (0, 0),
        };
        driver.set_up();
        driver
    }

    fn set(&mut self, register: u64, value: u32) {
        self.transport.write(register, &value.to_le_bytes());
    }

    fn set_up(&mut self) {
        for status in [0, 1, 3] {
            self.set(0x70, status);
        }
        // VERSION_1 and EVENT_IDX.
        for (half, bits) in [(0, 1 << 29), (1, 1)] {
            self.set(0x24, half);
            self.set(0x20, bits);
        }
        self.set(0x70, 11);
        for queue in 0..2 {
            let base = self.sides[queue as usize].base as u32;
            self.set(0x30, queue);
            self.set(0x38, u32::from(SIZE));
            for (register, place) in [(0x80, base), (0x90, base + 0x4000), (0xa0, base + 0x8000)] {
                self.set(register, place);
                self.set(register + 4, 0);
            }
            self.set(0x44, 1);
        }
        self.set(0x70, 15);
        for index in 0..SIZE {
            self.describe(RECEIVE, index, buffer(index), HEADER + ROOM, 2);
            self.offer(RECEIVE, index);
        }
        self.kick(RECEIVE);
        self.control(REQUEST, (5000, 1), 0);
        while self.peer.0 == 0 {
            self.wait();
            self.hear(&mut |_| ());
        }
    }

    fn write(&self, place: u64, value: u16) {
        self.memory
            .write_obj(value.to_le(), GuestAddress(place))
            .unwrap();
    }

    fn read(&self, place: u64) -> u16 {
        u16::from_le(self.memory.read_obj(GuestAddress(place)).unwrap())
    }

    fn describe(&self, queue: usize, index: u16, address: u64, length: usize, flags: u16) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&(length as u32).to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        let place = self.sides[queue].base + 16 * u64::from(index);
        self.memory
            .write_slice(&bytes, GuestAddress(place))
            .unwrap();
    }

    fn offer(&mut self, queue: usize, head: u16) {
        let ring = self.sides[queue].base + 0x4000;
        let offered = self.sides[queue].offered;
        self.write(ring + 4 + 2 * u64::from(offered % SIZE), head);
        fence(Ordering::Release);
        self.sides[queue].offered = offered.wrapping_add(1);
        self.write(ring + 2, offered.wrapping_add(1));
    }

    /// Wakes the device, if it wants to be woken for the last request.
    fn kick(&mut self, queue: usize) {
        fence(Ordering::SeqCst);
        let wanted = self.read(self.sides[queue].base + 0x8000 + 4 + 8 * u64::from(SIZE));
        let Side { offered, rung, .. } = self.sides[queue];
        self.sides[queue].rung = offered;
        if offered.wrapping_sub(wanted).wrapping_sub(1) < offered.wrapping_sub(rung) {
            self.bells.0 += 1;
            self.transport.kicks().nth(queue).unwrap().write(1).unwrap();
        }
    }

    /// The next answer.
    fn answer(&mut self, queue: usize) -> Option<(u16, usize)> {
        let Side { base, seen, .. } = self.sides[queue];
        if self.read(base + 0x8002) == seen {
            return None;
        }
        fence(Ordering::Acquire);
        let place = base + 0x8000 + 4 + 8 * u64::from(seen % SIZE);
        let [head, length]: [u32; 2] = self.memory.read_obj(GuestAddress(place)).unwrap();
        self.sides[queue].seen = seen.wrapping_add(1);
        Some((head as u16, length as usize))
    }

    /// Waits for the device, unless it has answered since. Who sends waits for answers to a good part of it.
    pub(crate) fn wait(&mut self) {
        for queue in [RECEIVE, SEND] {
            let Side { base, seen, .. } = self.sides[queue];
            self.write(base + 0x4000 + 4 + 2 * u64::from(SIZE), seen);
        }
        fence(Ordering::SeqCst);
        let news = |side: &Side| self.read(side.base + 0x8002) != side.seen;
        let news =
            news(&self.sides[RECEIVE]) || (self.sending == SENDING && news(&self.sides[SEND]));
        if !news {
            self.bells.1 += 1;
            self.line.wait(-1, &mut [EpollEvent::default()]).ok();
        }
        self.transport.line().read().ok();
    }

    fn header(&self, op: u16, (from, to): (u32, u32), length: u32, flags: u32) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&3_u64.to_le_bytes());
        bytes[8..16].copy_from_slice(&2_u64.to_le_bytes());
        bytes[16..20].copy_from_slice(&from.to_le_bytes());
        bytes[20..24].copy_from_slice(&to.to_le_bytes());
        bytes[24..28].copy_from_slice(&length.to_le_bytes());
        bytes[28..30].copy_from_slice(&1_u16.to_le_bytes());
        bytes[30..32].copy_from_slice(&op.to_le_bytes());
        bytes[32..36].copy_from_slice(&flags.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.room.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.received.to_le_bytes());
        bytes
    }

    fn reply(&mut self, op: u16, ports: (u32, u32)) {
        self.peer = ports;
        self.control(op, ports, 0);
    }

    fn control(&mut self, op: u16, ports: (u32, u32), flags: u32) {
        self.packet(&self.header(op, ports, 0, flags), 0);
        self.kick(SEND);
    }

    fn packet(&mut self, header: &[u8], length: usize) {
        while self.sending == SENDING || self.sending > 0 {
            if self.answer(SEND).is_some() {
                self.sending -= 1;
            } else if self.sending < SENDING {
                break;
            } else {
                self.kick(SEND);
                self.wait();
            }
        }
        let index = self.slot as u16;
        let address = (8 << 20) + self.slot * 0x1_1000;
        self.slot = (self.slot + 1) % SENDING;
        self.sending += 1;
        self.memory
            .write_slice(header, GuestAddress(address))
            .unwrap();
        self.describe(SEND, index, address, HEADER + length, 0);
        self.offer(SEND, index);
    }

    /// Takes what has come; bytes go to `sink`. Gives how many bytes.
    pub(crate) fn hear(&mut self, sink: &mut impl FnMut(&[u8])) -> usize {
        let mut bytes = [0; HEADER + ROOM];
        let mut all = 0;
        while let Some((head, length)) = self.answer(RECEIVE) {
            let whole = &mut bytes[..length];
            self.memory
                .read_slice(whole, GuestAddress(buffer(head)))
                .unwrap();
            let word = |at: usize| u32::from_le_bytes(whole[at..at + 4].try_into().unwrap());
            let op = u16::from_le_bytes(whole[30..32].try_into().unwrap());
            let ports = (word(20), word(16));
            (self.host_room, self.host_taken) = (word(36), word(40));
            self.offer(RECEIVE, head);
            match op {
                REQUEST => self.reply(RESPONSE, ports),
                CREDIT_REQUEST => self.reply(CREDIT_UPDATE, ports),
                PAYLOAD => {
                    sink(&whole[HEADER..]);
                    all += length - HEADER;
                }
                SHUTDOWN | RESPONSE | CREDIT_UPDATE => {}
                _ => panic!("packet {op}"),
            }
        }
        self.received = self.received.wrapping_add(all as u32);
        if self.received.wrapping_sub(self.told) >= self.room / 2 {
            self.told = self.received;
            self.control(CREDIT_UPDATE, self.peer, 0);
        }
        self.kick(RECEIVE);
        all
    }

    /// Sends `length` bytes, whatever they are.
    pub(crate) fn send(&mut self, mut length: u64, packet: usize) {
        while length > 0 {
            let credit = self.host_room - self.sent.wrapping_sub(self.host_taken);
            let part = length.min(packet as u64).min(u64::from(credit)) as u32;
            if part == 0 {
                self.kick(SEND);
                self.wait();
                self.hear(&mut |_| ());
                continue;
            }
            let header = self.header(PAYLOAD, self.peer, part, 0);
            self.packet(&header, part as usize);
            self.kick(SEND);
            self.sent = self.sent.wrapping_add(part);
            length -= u64::from(part);
        }
    }

    /// Says that this is all.
    pub(crate) fn end(&mut self) {
        self.control(SHUTDOWN, self.peer, 2);
    }
}

fn buffer(index: u16) -> u64 {
    (4 << 20) + u64::from(index) * 0x2000
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.orders.stop();
        self.thread.take().map(JoinHandle::join);
    }
}
