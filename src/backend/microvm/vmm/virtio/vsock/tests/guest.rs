//! A guest whose driver sends and receives packets, honest or not.

use std::collections::VecDeque;

use crate::backend::microvm::vmm::virtio::testing::BUFFERS;
use crate::backend::microvm::vmm::virtio::testing::GAP_END;
use crate::backend::microvm::vmm::virtio::testing::Guest;
use crate::backend::microvm::vmm::virtio::testing::SIZE;
use crate::backend::microvm::vmm::virtio::vsock::HELLO;
use crate::backend::microvm::vmm::virtio::vsock::Vsock;
use crate::backend::microvm::vmm::virtio::vsock::packet::HOST_CID;
use crate::backend::microvm::vmm::virtio::vsock::packet::Header;
use crate::backend::microvm::vmm::virtio::vsock::packet::Op;
use crate::backend::microvm::vmm::virtio::vsock::packet::STREAM;
use crate::backend::microvm::vmm::virtio::vsock::tests::CID;

/// The queues.
const RECEIVE: usize = 0;
const SEND: usize = 1;
/// The length of a buffer to receive into, header and bytes.
const BUFFER: usize = 4096;
/// How many packets may be on their way to the host.
const SLOTS: u64 = 8;
/// The longest packet.
pub(super) const LONGEST: usize = 0x1_0000;

/// The room that the guest grants when a test says nothing else.
pub(super) const PLENTY: u32 = 0x4_0000;

/// A packet as it goes through a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) header: Header,
    pub(super) bytes: Vec<u8>,
}

/// The driver.
pub(super) struct Driver {
    pub(super) guest: Guest,
    /// How long the first buffer of a packet to the host is; the rest lies in a second one.
    pub(super) split: usize,
    slot: u64,
    sending: u64,
    came: VecDeque<Packet>,
}

/// One end of a stream in the guest, that keeps to the rules.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    pub(super) port: u32,
    pub(super) host_port: u32,
    pub(super) room: u32,
    pub(super) sent: u32,
    pub(super) host_taken: u32,
    pub(super) host_room: u32,
    pub(super) received: u32,
    pub(super) taken: u32,
}

impl Driver {
    /// A driver that has set its queues up, with buffers to receive into, and has said nothing.
    pub(super) fn silent(device: Vsock) -> Self {
        let mut driver = Self {
            guest: Guest::ready(device),
            split: Header::LENGTH,
            slot: 0,
            sending: 0,
            came: VecDeque::new(),
        };
        driver.make_room();
        driver
    }

    /// A driver whose guest has said that it is ready.
    pub(super) fn new(device: Vsock) -> Self {
        let mut driver = Self::silent(device);
        driver.hello();
        driver
    }

    /// All buffers to receive into.
    pub(super) fn make_room(&mut self) {
        for index in 0..SIZE {
            self.give_buffer(index);
        }
        self.guest.kick(RECEIVE);
    }

    fn give_buffer(&mut self, index: u16) {
        let address = BUFFERS + u64::from(index) * BUFFER as u64;
        let head = self.guest.offer(RECEIVE, &[], &[(address, BUFFER)]);
        assert_eq!(head, index);
    }

    /// Begins anew.
    pub(super) fn begin(&mut self) {
        self.begin_bare();
        self.make_room();
    }

    /// Begins anew, with no buffer to receive into.
    pub(super) fn begin_bare(&mut self) {
        self.guest.set_up(u64::MAX);
        self.sending = 0;
        self.came.clear();
    }

    /// Says that somebody listens.
    pub(super) fn hello(&mut self) {
        self.send(&header(5000, HELLO, Op::Request), &[]);
        let answer = self.expect(Op::Response);
        assert_eq!(
            (answer.header.src_port, answer.header.dst_port),
            (HELLO, 5000)
        );
    }

    /// Sends a packet as it is.
    pub(super) fn send(&mut self, header: &Header, bytes: &[u8]) {
        while self.sending == SLOTS {
            self.guest.answer(SEND);
            self.sending -= 1;
        }
        while self.sending > 0 && self.guest.try_answer(SEND).is_some() {
            self.sending -= 1;
        }
        let address = GAP_END + self.slot * 0x1_8000;
        self.slot = (self.slot + 1) % SLOTS;
        self.sending += 1;
        let mut whole = header.bytes().to_vec();
        whole.extend_from_slice(bytes);
        self.guest.put(address, &whole);
        let first = self.split.min(whole.len());
        let mut buffers = vec![(address, first)];
        if first < whole.len() {
            buffers.push((address + first as u64, whole.len() - first));
        }
        self.guest.offer(SEND, &buffers, &[]);
        self.guest.kick(SEND);
    }

    /// Waits until the device has taken all that was sent.
    pub(super) fn flush(&mut self) {
        while self.sending > 0 {
            self.guest.answer(SEND);
            self.sending -= 1;
        }
    }

    /// The next packet that has come, if one has.
    pub(super) fn try_receive(&mut self) -> Option<Packet> {
        while let Some((head, length)) = self.guest.try_answer(RECEIVE) {
            let address = BUFFERS + u64::from(head) * BUFFER as u64;
            let whole = self.guest.get(address, length as usize);
            let (first, bytes) = whole.split_first_chunk().unwrap();
            let header = Header::parse(first);
            assert_eq!(header.len as usize, bytes.len());
            self.came.push_back(Packet {
                header,
                bytes: bytes.to_vec(),
            });
            self.give_buffer(head);
            self.guest.kick(RECEIVE);
        }
        self.came.pop_front()
    }

    /// The next packet; waits for it.
    pub(super) fn receive(&mut self) -> Packet {
        if let Some(packet) = self.try_receive() {
            return packet;
        }
        let (head, length) = self.guest.answer(RECEIVE);
        let address = BUFFERS + u64::from(head) * BUFFER as u64;
        let whole = self.guest.get(address, length as usize);
        let (first, bytes) = whole.split_first_chunk().unwrap();
        let packet = Packet {
            header: Header::parse(first),
            bytes: bytes.to_vec(),
        };
        self.give_buffer(head);
        self.guest.kick(RECEIVE);
        packet
    }

    /// The next packet, which is for `op`.
    pub(super) fn expect(&mut self, op: Op) -> Packet {
        let packet = self.receive();
        assert_eq!(packet.header.op(), Some(op), "{packet:?}");
        assert_eq!(packet.header.dst_cid, CID);
        packet
    }

    /// Grants the stream that is asked for next.
    pub(super) fn grant(&mut self, room: u32) -> End {
        let asked = self.expect(Op::Request).header;
        assert_eq!((asked.src_cid, asked.kind), (HOST_CID, STREAM));
        let end = End {
            port: asked.dst_port,
            host_port: asked.src_port,
            room,
            sent: 0,
            host_taken: asked.fwd_cnt,
            host_room: asked.buf_alloc,
            received: 0,
            taken: 0,
        };
        self.send(&end.header(Op::Response), &[]);
        end
    }

    /// Sends bytes of a stream, as they are.
    pub(super) fn write(&mut self, end: &mut End, bytes: &[u8]) {
        let packet = Header {
            len: u32::try_from(bytes.len()).unwrap(),
            ..end.header(Op::Payload)
        };
        end.sent = end.sent.wrapping_add(packet.len);
        self.send(&packet, bytes);
    }

    /// The bytes of the next packet of a stream, which are taken at once.
    pub(super) fn read(&mut self, end: &mut End) -> Vec<u8> {
        let packet = self.expect(Op::Payload);
        assert_eq!(packet.header.src_port, end.host_port);
        end.hear(&packet.header);
        end.received += packet.header.len;
        end.taken = end.received;
        packet.bytes
    }
}

impl End {
    /// A packet of this end.
    pub(super) fn header(&self, op: Op) -> Header {
        Header {
            buf_alloc: self.room,
            fwd_cnt: self.taken,
            ..header(self.port, self.host_port, op)
        }
    }

    pub(super) fn shutdown(&self, flags: u32) -> Header {
        Header {
            flags,
            ..self.header(Op::Shutdown)
        }
    }

    /// How many bytes the host has room for.
    pub(super) fn credit(&self) -> u32 {
        self.host_room - self.sent.wrapping_sub(self.host_taken)
    }

    /// What a packet tells of the host's room.
    pub(super) fn hear(&mut self, header: &Header) {
        self.host_taken = header.fwd_cnt;
        self.host_room = header.buf_alloc;
    }
}

/// A packet of the guest's that carries no bytes.
pub(super) fn header(src_port: u32, dst_port: u32, op: Op) -> Header {
    Header {
        src_cid: CID,
        dst_cid: HOST_CID,
        src_port,
        dst_port,
        kind: STREAM,
        op: op.number(),
        buf_alloc: PLENTY,
        ..Header::default()
    }
}
