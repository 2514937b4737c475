//! What the kernel did for a workspace outside of its tasks, between two looks.
//!
//! Stock Linux charges the receiving of packets to whoever was interrupted, and writes of the page cache to nobody.
//! [`ByPackets`] concludes the first from counts; the second is not known. Something that sees each soft interrupt as
//! it happens (a program in the kernel) would be another [`Attribution`], and nothing else would change.

use crate::accounting::moment::Moment;
use crate::accounting::usage::How;

/// Two looks at the host, and what passed through the workspace's interfaces between them.
#[derive(Debug, Clone)]
pub struct Interval<'a> {
    /// The host at the first look.
    pub before: &'a Moment,
    /// The host at the second.
    pub now: &'a Moment,
    /// Packets of the workspace, in and out.
    pub packets: u64,
}

/// Who knows how much the kernel has worked for a workspace.
pub trait Attribution: std::fmt::Debug {
    /// How good its answers are.
    fn how(&self) -> How;
    /// Time with the workspace's packets in an interval, in microseconds; none when it cannot be told.
    fn network_softirq_us(&self, interval: &Interval<'_>) -> Option<u64>;
}

/// The host's time in soft interrupts, times the workspace's share of all packets.
///
/// A packet that a workspace sends is received once by the host's end of its interface, and one that it receives once
/// by its own, so its packets in and out are its part of what all processors have received. That part is never more
/// than all. Soft interrupts for other things (timers, block devices) are in the time, so it is rather too much; a
/// packet that goes through a bridge to the host itself is received twice, so its part is rather too small.
#[derive(Debug, Clone, Copy, Default)]
pub struct ByPackets;

impl Attribution for ByPackets {
    fn how(&self) -> How {
        How::Estimated
    }

    fn network_softirq_us(&self, interval: &Interval<'_>) -> Option<u64> {
        let softirq_us = interval
            .now
            .softirq_us?
            .saturating_sub(interval.before.softirq_us?);
        let all = u64::from(interval.now.packets?.wrapping_sub(interval.before.packets?));
        Some(part(softirq_us, interval.packets, all))
    }
}

/// `whole * part / all`, and never more than the whole; nothing of nothing.
pub(super) fn part(whole: u64, part: u64, all: u64) -> u64 {
    if all == 0 {
        return 0;
    }
    let share = u128::from(whole) * u128::from(part.min(all)) / u128::from(all);
    u64::try_from(share).unwrap_or(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(softirq_us: u64, packets: u32) -> Moment {
        Moment {
            softirq_us: Some(softirq_us),
            packets: Some(packets),
            ..Moment::default()
        }
    }

    fn estimated(before: &Moment, now: &Moment, packets: u64) -> Option<u64> {
        let interval = Interval {
            before,
            now,
            packets,
        };
        ByPackets.network_softirq_us(&interval)
    }

    #[test]
    fn a_quarter_of_the_packets_is_a_quarter_of_the_time() {
        let (before, now) = (host(1000, 100), host(9000, 500));
        assert_eq!(estimated(&before, &now, 100), Some(2000));
    }

    #[test]
    fn nobody_gets_more_than_all_and_a_count_that_started_over_is_understood() {
        let (before, now) = (host(0, u32::MAX - 9), host(500, 10));
        assert_eq!(estimated(&before, &now, 10), Some(250));
        assert_eq!(estimated(&before, &now, 1_000_000), Some(500));
        assert_eq!(estimated(&now, &now, 5), Some(0));
    }

    #[test]
    fn what_the_host_does_not_tell_is_not_guessed() {
        assert_eq!(estimated(&Moment::default(), &host(1, 1), 5), None);
    }
}
