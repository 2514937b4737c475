//! One stream between host and guest, as a state machine without descriptors: packets and what the client does go in,
//! packets that are due come out.
//!
//! **Credit.** Each side has so much room for what it was sent and did not take yet, and tells so in every packet. Here
//! a byte is taken when the client's socket has it. A guest that sends more than it was granted is reset; the host never
//! sends more than the guest granted. What the guest tells of its own room is believed only where it can be so.
//!
//! **The end.** Each direction ends by itself. When the guest has closed its socket, the answer that lets it forget the
//! stream is given when the client has every byte, so that a guest can know that nothing is lost when it powers off.

use crate::backend::microvm::vmm::virtio::vsock::packet::Header;
use crate::backend::microvm::vmm::virtio::vsock::packet::Op;
use crate::backend::microvm::vmm::virtio::vsock::packet::RECEIVES_NO_MORE;
use crate::backend::microvm::vmm::virtio::vsock::packet::SENDS_NO_MORE;
use crate::backend::microvm::vmm::virtio::vsock::packet::STREAM;

/// How many bytes of one stream may wait for their client, granted to the guest.
pub const ROOM: u32 = 512 * 1024;

/// The guest is told of room again when this much of it has come free.
const WORTH_TELLING: u32 = ROOM / 4;

/// How far a stream has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The guest is being asked for it.
    Asking,
    /// Bytes may flow.
    Open,
    /// The guest knows nothing of it any more.
    Closed,
}

/// What a packet means for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// Nothing.
    Nothing,
    /// The guest grants the stream.
    Granted,
    /// The bytes of the packet are for the client.
    Payload,
    /// The guest sends or receives no more.
    Ended,
    /// The stream is over on the guest's side.
    Over,
    /// There is no such stream any more: whoever sent it is to be told.
    Stray,
}

/// Packets that are to be sent.
#[derive(Debug, Default)]
struct Due {
    request: bool,
    response: bool,
    reset: bool,
    credit_update: bool,
    credit_request: bool,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Link {
    phase: Phase,
    due: Due,
    /// Bytes that the guest has sent. All counters go round.
    received: u32,
    /// Bytes of these that the client has.
    forwarded: u32,
    /// What the guest was last told of `forwarded`.
    told: u32,
    /// Bytes that the guest was sent.
    sent: u32,
    /// Bytes of these that it has taken.
    taken: u32,
    /// How many it has room for.
    room: u32,
    /// It was asked for its room, and had none.
    asked: bool,
    guest_sends: bool,
    guest_receives: bool,
    host_sends: bool,
    host_receives: bool,
    /// What the guest was told of the ends of the host's side.
    told_ends: u32,
}

impl Link {
    /// A stream that the host asks the guest for.
    #[must_use]
    pub(super) fn asking() -> Self {
        Self::new(
            Phase::Asking,
            Due {
                request: true,
                ..Due::default()
            },
        )
    }

    /// A stream that the guest has asked for, by `request`, and is granted.
    #[must_use]
    pub(super) fn granting(request: &Header) -> Self {
        let mut link = Self::new(
            Phase::Open,
            Due {
                response: true,
                ..Due::default()
            },
        );
        link.note_room(request);
        link
    }

    fn new(phase: Phase, due: Due) -> Self {
        Self {
            phase,
            due,
            received: 0,
            forwarded: 0,
            told: 0,
            sent: 0,
            taken: 0,
            room: 0,
            asked: false,
            guest_sends: true,
            guest_receives: true,
            host_sends: true,
            host_receives: true,
            told_ends: 0,
        }
    }

    /// A packet of the guest's. The bytes of one that is [`Taken::Payload`] are owed [`Link::forwarded`].
    pub(super) fn take(&mut self, packet: &Header) -> Taken {
        let op = packet.op().filter(|_| packet.kind == STREAM);
        if op == Some(Op::Reset) {
            return self.dropped();
        }
        match (self.phase, op) {
            (Phase::Closed, _) => Taken::Stray,
            (Phase::Asking, Some(Op::Response)) => {
                self.note_room(packet);
                self.phase = Phase::Open;
                Taken::Granted
            }
            (Phase::Open, Some(op)) => self.take_open(op, packet),
            (Phase::Asking | Phase::Open, _) => self.violated(),
        }
    }

    fn take_open(&mut self, op: Op, packet: &Header) -> Taken {
        match op {
            Op::Payload => {
                self.note_room(packet);
                self.take_payload(packet.len)
            }
            Op::Shutdown => {
                self.note_room(packet);
                self.guest_sends &= packet.flags & SENDS_NO_MORE == 0;
                self.guest_receives &= packet.flags & RECEIVES_NO_MORE == 0;
                self.look_for_end();
                Taken::Ended
            }
            Op::CreditUpdate => {
                self.note_room(packet);
                Taken::Nothing
            }
            Op::CreditRequest => {
                self.note_room(packet);
                self.due.credit_update = true;
                Taken::Nothing
            }
            Op::Request | Op::Response | Op::Reset => self.violated(),
        }
    }

    fn take_payload(&mut self, length: u32) -> Taken {
        let waiting = self.received.wrapping_sub(self.forwarded);
        if !self.guest_sends || length > ROOM - waiting {
            return self.violated();
        }
        self.received = self.received.wrapping_add(length);
        Taken::Payload
    }

    /// Believes what a packet tells of the guest's room, unless it is older than what is known, or cannot be.
    ///
    /// A guest that sends from two processors may send the older of two packets last.
    fn note_room(&mut self, packet: &Header) {
        let in_flight = self.sent.wrapping_sub(self.taken);
        if packet.fwd_cnt.wrapping_sub(self.taken) <= in_flight {
            self.taken = packet.fwd_cnt;
            self.room = packet.buf_alloc;
            self.asked &= self.credit() == 0;
        }
    }

    /// The guest has done what no guest does.
    fn violated(&mut self) -> Taken {
        self.reset();
        Taken::Over
    }

    /// The guest knows nothing of the stream any more.
    fn dropped(&mut self) -> Taken {
        self.phase = Phase::Closed;
        self.due = Due::default();
        Taken::Over
    }

    /// Ends the stream on the guest's side at once.
    pub(super) fn reset(&mut self) {
        self.dropped();
        self.due.reset = true;
    }

    /// How many bytes the guest may be sent now.
    #[must_use]
    pub(super) fn credit(&self) -> u32 {
        if !self.takes_bytes() {
            return 0;
        }
        let in_flight = self.sent.wrapping_sub(self.taken);
        self.room.saturating_sub(in_flight)
    }

    /// Whether the guest will take bytes, now or when it has room.
    #[must_use]
    pub(super) fn takes_bytes(&self) -> bool {
        self.phase == Phase::Open && self.host_sends && self.guest_receives
    }

    /// There are bytes for the guest, and no credit: it is asked, once until it answers.
    pub(super) fn starve(&mut self) {
        if !self.asked && self.takes_bytes() {
            self.asked = true;
            self.due.credit_request = true;
        }
    }

    /// The guest was sent `count` bytes, at most [`Link::credit`].
    pub(super) fn sent(&mut self, count: u32) {
        self.sent = self.sent.wrapping_add(count);
    }

    /// The client has `count` more bytes of the guest's, or there is nobody to have them.
    pub(super) fn forwarded(&mut self, count: u32) {
        self.forwarded = self.forwarded.wrapping_add(count);
        let untold = self.forwarded.wrapping_sub(self.told);
        if self.phase == Phase::Open && self.guest_sends && untold >= WORTH_TELLING {
            self.due.credit_update = true;
        }
        self.look_for_end();
    }

    /// There will be no more bytes for the guest.
    pub(super) fn host_ended(&mut self) {
        self.host_sends = false;
        self.look_for_end();
    }

    /// Nobody wants the guest's bytes any more.
    pub(super) fn host_left(&mut self) {
        self.host_receives = false;
    }

    /// Whether the guest may send more.
    #[must_use]
    pub(super) fn guest_sends(&self) -> bool {
        self.guest_sends && self.phase != Phase::Closed
    }

    /// Whether the guest has closed its socket, or never had one.
    #[must_use]
    pub(super) fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Whether the guest still receives: it has neither said that it does not, nor closed.
    #[must_use]
    pub(super) fn guest_receives(&self) -> bool {
        self.guest_receives && self.phase != Phase::Closed
    }

    /// Answers a guest that has closed its socket, and ends a stream both of whose directions have ended.
    fn look_for_end(&mut self) {
        if self.phase != Phase::Open || self.guest_sends || self.received != self.forwarded {
            return;
        }
        if !self.guest_receives {
            self.reset();
        } else if !self.host_sends {
            self.host_receives = false;
        }
    }

    /// Whether a packet is to be sent that carries no bytes.
    #[must_use]
    pub(super) fn is_due(&self) -> bool {
        let due = &self.due;
        let any = due.request || due.response || due.reset || due.credit_update;
        any || due.credit_request || self.untold_ends().is_some()
    }

    /// Takes the next packet that is due: what it is for, and its flags.
    pub(super) fn next_due(&mut self) -> Option<(Op, u32)> {
        let due = &mut self.due;
        for (due, op) in [
            (&mut due.reset, Op::Reset),
            (&mut due.request, Op::Request),
            (&mut due.response, Op::Response),
        ] {
            if std::mem::take(due) {
                return Some((op, 0));
            }
        }
        if let Some(ends) = self.untold_ends() {
            self.told_ends = ends;
            return Some((Op::Shutdown, ends));
        }
        let due = &mut self.due;
        for (due, op) in [
            (&mut due.credit_update, Op::CreditUpdate),
            (&mut due.credit_request, Op::CreditRequest),
        ] {
            if std::mem::take(due) {
                return Some((op, 0));
            }
        }
        None
    }

    /// Which ends of the host's side the guest does not know of, with those it knows.
    fn untold_ends(&self) -> Option<u32> {
        let sends = if self.host_sends { 0 } else { SENDS_NO_MORE };
        let receives = if self.host_receives {
            0
        } else {
            RECEIVES_NO_MORE
        };
        let ends = sends | receives;
        (self.phase == Phase::Open && ends != self.told_ends).then_some(ends)
    }

    /// Writes into `header` how much room there is, which the guest knows then.
    pub(super) fn stamp(&mut self, header: &mut Header) {
        header.buf_alloc = ROOM;
        header.fwd_cnt = self.forwarded;
        self.told = self.forwarded;
        self.due.credit_update = false;
    }
}

#[cfg(test)]
mod tests;
