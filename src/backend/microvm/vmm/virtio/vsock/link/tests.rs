//! What a stream does, packet by packet, and with a guest that keeps to the rules and does anything at any time.

use proptest::prelude::Strategy;
use proptest::prop_oneof;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::*;

/// A packet of a guest that has room for `room` bytes and has taken none.
fn packet(op: Op, room: u32) -> Header {
    Header {
        kind: STREAM,
        op: op.number(),
        buf_alloc: room,
        ..Header::default()
    }
}

fn bytes(count: u32) -> Header {
    Header {
        len: count,
        ..packet(Op::Payload, 1000)
    }
}

fn shutdown(flags: u32) -> Header {
    Header {
        flags,
        ..packet(Op::Shutdown, 1000)
    }
}

fn all_due(link: &mut Link) -> Vec<(Op, u32)> {
    std::iter::from_fn(|| link.next_due()).collect()
}

/// A stream that the guest has granted, with room for 1000 bytes.
fn open() -> Link {
    let mut link = Link::asking();
    assert_eq!(all_due(&mut link), [(Op::Request, 0)]);
    assert_eq!(link.take(&packet(Op::Response, 1000)), Taken::Granted);
    link
}

#[test]
fn nothing_flows_before_the_guest_has_granted() {
    let mut link = Link::asking();
    assert_eq!(link.credit(), 0);
    assert_eq!(link.take(&bytes(1)), Taken::Over);
    assert_eq!(all_due(&mut link), [(Op::Reset, 0)]);
}

#[test]
fn a_guest_that_refuses_is_not_answered() {
    let mut link = Link::asking();
    all_due(&mut link);
    assert_eq!(link.take(&packet(Op::Reset, 0)), Taken::Over);
    assert!(link.is_closed());
    assert_eq!(all_due(&mut link), []);
}

#[test]
fn what_the_guest_asks_for_and_gets_begins_with_a_response() {
    let mut link = Link::granting(&packet(Op::Request, 700));
    assert_eq!(link.credit(), 700);
    assert_eq!(all_due(&mut link), [(Op::Response, 0)]);
}

#[test]
fn credit_is_room_less_what_is_on_its_way() {
    let mut link = open();
    link.sent(400);
    assert_eq!(link.credit(), 600);
    let update = Header {
        fwd_cnt: 300,
        ..packet(Op::CreditUpdate, 1000)
    };
    assert_eq!(link.take(&update), Taken::Nothing);
    assert_eq!(link.credit(), 900);
}

#[test]
fn room_that_shrinks_below_what_is_on_its_way_is_no_credit() {
    let mut link = open();
    link.sent(400);
    link.take(&packet(Op::CreditUpdate, 100));
    assert_eq!(link.credit(), 0);
}

#[test]
fn a_guest_that_has_taken_more_than_it_was_sent_is_not_believed() {
    let mut link = open();
    link.sent(400);
    for lie in [401, 1000, u32::MAX] {
        let update = Header {
            fwd_cnt: lie,
            ..packet(Op::CreditUpdate, u32::MAX)
        };
        link.take(&update);
        assert_eq!(link.credit(), 600, "{lie}");
    }
}

#[test]
fn an_older_packet_that_comes_late_changes_nothing() {
    let mut link = open();
    link.sent(400);
    let update = Header {
        fwd_cnt: 300,
        ..packet(Op::CreditUpdate, 1000)
    };
    link.take(&update);
    link.take(&packet(Op::CreditUpdate, 1000));
    assert_eq!(link.credit(), 900);
}

#[test]
fn counters_go_round() {
    let mut link = open();
    for _ in 0..10_000 {
        link.sent(1000);
        let update = Header {
            fwd_cnt: link.sent,
            ..packet(Op::CreditUpdate, 1000)
        };
        link.take(&update);
        for _ in 0..2 {
            assert_eq!(link.take(&bytes(ROOM / 2)), Taken::Payload);
        }
        link.forwarded(ROOM);
    }
    assert!(u64::from(ROOM) * 10_000 > u64::from(u32::MAX));
    assert_eq!(link.credit(), 1000);
}

#[test]
fn a_guest_that_sends_more_than_it_was_granted_is_reset() {
    let mut link = open();
    assert_eq!(link.take(&bytes(ROOM)), Taken::Payload);
    assert_eq!(link.take(&bytes(1)), Taken::Over);
    assert_eq!(all_due(&mut link), [(Op::Reset, 0)]);
    assert!(link.is_closed());
}

#[test]
fn a_length_as_large_as_can_be_is_more_than_was_granted() {
    let mut link = open();
    assert_eq!(link.take(&bytes(1)), Taken::Payload);
    assert_eq!(link.take(&bytes(u32::MAX)), Taken::Over);
}

#[test]
fn the_guest_hears_of_room_before_it_has_none() {
    let mut link = open();
    link.take(&bytes(ROOM));
    link.forwarded(WORTH_TELLING - 1);
    assert_eq!(all_due(&mut link), []);
    link.forwarded(1);
    assert_eq!(all_due(&mut link), [(Op::CreditUpdate, 0)]);
    let mut header = Header::default();
    link.stamp(&mut header);
    assert_eq!((header.buf_alloc, header.fwd_cnt), (ROOM, WORTH_TELLING));
    link.forwarded(1);
    assert_eq!(all_due(&mut link), []);
}

#[test]
fn a_guest_that_asks_for_room_is_told() {
    let mut link = open();
    link.take(&packet(Op::CreditRequest, 1000));
    assert_eq!(all_due(&mut link), [(Op::CreditUpdate, 0)]);
}

#[test]
fn a_guest_without_room_is_asked_once_until_it_has_some() {
    let mut link = open();
    link.sent(1000);
    link.starve();
    link.starve();
    assert_eq!(all_due(&mut link), [(Op::CreditRequest, 0)]);
    link.take(&packet(Op::CreditUpdate, 1000));
    link.starve();
    assert_eq!(all_due(&mut link), []);
    let update = Header {
        fwd_cnt: 10,
        ..packet(Op::CreditUpdate, 1000)
    };
    link.take(&update);
    link.sent(10);
    link.starve();
    assert_eq!(all_due(&mut link), [(Op::CreditRequest, 0)]);
}

#[test]
fn each_direction_ends_by_itself() {
    let mut link = open();
    link.host_ended();
    assert_eq!(all_due(&mut link), [(Op::Shutdown, SENDS_NO_MORE)]);
    assert_eq!(link.credit(), 0);
    assert_eq!(link.take(&bytes(5)), Taken::Payload);
    link.forwarded(5);
    assert_eq!(link.take(&shutdown(SENDS_NO_MORE)), Taken::Ended);
    let both = SENDS_NO_MORE | RECEIVES_NO_MORE;
    assert_eq!(all_due(&mut link), [(Op::Shutdown, both)]);
    assert_eq!(link.take(&packet(Op::Reset, 0)), Taken::Over);
    assert_eq!(all_due(&mut link), []);
}

#[test]
fn the_guest_may_end_first_and_still_receive() {
    let mut link = open();
    assert_eq!(link.take(&shutdown(SENDS_NO_MORE)), Taken::Ended);
    assert!(!link.guest_sends());
    assert_eq!(link.credit(), 1000);
    assert_eq!(all_due(&mut link), []);
}

#[test]
fn a_guest_that_sends_after_its_end_is_reset() {
    let mut link = open();
    link.take(&shutdown(SENDS_NO_MORE));
    assert_eq!(link.take(&bytes(1)), Taken::Over);
    assert_eq!(all_due(&mut link), [(Op::Reset, 0)]);
}

#[test]
fn a_guest_that_receives_no_more_is_sent_nothing() {
    let mut link = open();
    link.take(&shutdown(RECEIVES_NO_MORE));
    assert_eq!(link.credit(), 0);
    link.starve();
    assert_eq!(all_due(&mut link), []);
}

#[test]
fn a_guest_that_closes_is_answered_when_its_bytes_are_delivered() {
    let mut link = open();
    link.take(&bytes(7));
    link.take(&shutdown(SENDS_NO_MORE | RECEIVES_NO_MORE));
    link.forwarded(6);
    assert_eq!(all_due(&mut link), []);
    link.forwarded(1);
    assert_eq!(all_due(&mut link), [(Op::Reset, 0)]);
    assert!(link.is_closed());
}

#[test]
fn nobody_to_receive_is_told_once() {
    let mut link = open();
    link.host_left();
    assert_eq!(all_due(&mut link), [(Op::Shutdown, RECEIVES_NO_MORE)]);
    link.host_left();
    assert_eq!(all_due(&mut link), []);
    assert_eq!(link.take(&bytes(3)), Taken::Payload);
}

#[test]
fn what_no_guest_does_ends_an_open_stream() {
    let seqpacket = Header {
        kind: 2,
        ..bytes(1)
    };
    let unknown = Header { op: 99, ..bytes(1) };
    let none = Header { op: 0, ..bytes(1) };
    let again = [packet(Op::Request, 1), packet(Op::Response, 1)];
    for wrong in again.into_iter().chain([seqpacket, unknown, none]) {
        let mut link = open();
        assert_eq!(link.take(&wrong), Taken::Over, "{wrong:?}");
        assert_eq!(all_due(&mut link), [(Op::Reset, 0)]);
        assert_eq!(link.take(&bytes(1)), Taken::Stray);
    }
}

#[test]
fn bytes_of_no_length_are_nothing_bad() {
    let mut link = open();
    assert_eq!(link.take(&bytes(0)), Taken::Payload);
    link.forwarded(0);
    assert_eq!(all_due(&mut link), []);
}

/// One thing that happens to a stream whose guest keeps to the rules.
#[derive(Debug, Clone)]
enum Deed {
    GuestSends(u32),
    ClientTakes(u32),
    ClientSends(u32),
    GuestTakes(u32),
    GuestTells,
    HostTells,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let size = || prop_oneof![1..100_u32, 1..200_000_u32];
    let deed = prop_oneof![
        3 => size().prop_map(Deed::GuestSends),
        3 => size().prop_map(Deed::ClientTakes),
        3 => size().prop_map(Deed::ClientSends),
        3 => size().prop_map(Deed::GuestTakes),
        1 => proptest::strategy::Just(Deed::GuestTells),
        2 => proptest::strategy::Just(Deed::HostTells),
    ];
    proptest::collection::vec(deed, 1..400)
}

/// What a guest knows, in numbers that do not go round.
#[derive(Debug, Default)]
struct Guest {
    room: u64,
    sent: u64,
    host_taken: u64,
    received: u64,
    taken: u64,
    client_took: u64,
}

impl Guest {
    fn header(&self, op: Op) -> Header {
        Header {
            fwd_cnt: u32::try_from(self.taken % (1 << 32)).unwrap(),
            ..packet(op, u32::try_from(self.room).unwrap())
        }
    }

    fn hear(&mut self, link: &mut Link) {
        let mut header = Header::default();
        link.stamp(&mut header);
        let news = header
            .fwd_cnt
            .wrapping_sub(u32::try_from(self.host_taken % (1 << 32)).unwrap());
        self.host_taken += u64::from(news);
    }

    fn does(&mut self, link: &mut Link, deed: &Deed) {
        match deed {
            Deed::GuestSends(count) => {
                let credit = u64::from(ROOM) - (self.sent - self.host_taken);
                let count = u64::from(*count).min(credit);
                let packet = Header {
                    len: u32::try_from(count).unwrap(),
                    ..self.header(Op::Payload)
                };
                assert_eq!(link.take(&packet), Taken::Payload);
                self.sent += count;
            }
            Deed::ClientTakes(count) => {
                let count = u64::from(*count).min(self.sent - self.client_took);
                link.forwarded(u32::try_from(count).unwrap());
                self.client_took += count;
                assert!(self.sent - self.client_took <= u64::from(ROOM));
            }
            Deed::ClientSends(count) => {
                let count = link.credit().min(*count);
                link.sent(count);
                self.received += u64::from(count);
                self.hear(link);
                assert!(self.received - self.taken <= self.room, "{self:?}");
            }
            Deed::GuestTakes(count) => {
                self.taken += u64::from(*count).min(self.received - self.taken);
            }
            Deed::GuestTells => {
                let update = self.header(Op::CreditUpdate);
                assert_eq!(link.take(&update), Taken::Nothing);
            }
            Deed::HostTells => {
                while link.next_due().is_some() {
                    self.hear(link);
                }
            }
        }
    }
}

#[test]
fn neither_side_ever_sends_more_than_the_other_has_room_for() {
    let mut runner = TestRunner::deterministic();
    for round in 0..200 {
        let room = 1 + round * 1777;
        let mut guest = Guest {
            room,
            ..Guest::default()
        };
        let mut link = Link::asking();
        link.next_due();
        link.take(&guest.header(Op::Response));
        for deed in deeds().new_tree(&mut runner).unwrap().current() {
            guest.does(&mut link, &deed);
        }
        // And nothing has come to a stand: what all have taken can be sent again.
        guest.does(&mut link, &Deed::ClientTakes(u32::MAX));
        guest.does(&mut link, &Deed::HostTells);
        guest.does(&mut link, &Deed::GuestTakes(u32::MAX));
        guest.does(&mut link, &Deed::GuestTells);
        assert_eq!(u64::from(link.credit()), room);
        assert!(guest.sent - guest.host_taken < u64::from(WORTH_TELLING));
    }
}
