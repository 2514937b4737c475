//! How much may go through a device: buckets that fill with time, and are emptied by what goes through.

use std::io;
use std::time::Duration;
use std::time::Instant;

use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::timerfd::TimerFd;

use crate::backend::microvm::vmm::config::Limit;
use crate::backend::microvm::vmm::virtio::device::DeviceError;
use crate::backend::microvm::vmm::virtio::event_loop::Watch;

/// Nanoseconds in a second.
const SECOND: u128 = 1_000_000_000;

/// A bucket that holds as much as flows in within a second.
///
/// Whoever finds something in it may take all that he needs, so that a request larger than the bucket is not stuck for
/// ever; the bucket is then in debt, and others wait until that is paid.
#[derive(Debug, Clone)]
struct Bucket {
    rate: u64,
    level: i128,
    /// When the level was as it is.
    since: Instant,
}

impl Bucket {
    fn new(rate: u64, now: Instant) -> Self {
        let rate = rate.max(1);
        Self {
            rate,
            level: rate.into(),
            since: now,
        }
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since).as_nanos();
        let gained = passed.saturating_mul(self.rate.into()) / SECOND;
        if gained == 0 {
            return;
        }
        // Only as much time as has become whole units: the rest counts the next time.
        let counted = gained.saturating_mul(SECOND) / u128::from(self.rate);
        let counted = Duration::from_nanos(u64::try_from(counted).unwrap_or(u64::MAX));
        self.since = self.since.checked_add(counted).unwrap_or(now);
        let level = self.level.saturating_add_unsigned(gained);
        self.level = level.min(self.rate.into());
    }

    /// How long until there is something in it; nothing if there is.
    fn wait(&self) -> Option<Duration> {
        let missing = u128::try_from(1 - self.level)
            .ok()
            .filter(|missing| *missing > 0)?;
        let wait = missing.saturating_mul(SECOND).div_ceil(self.rate.into());
        Some(Duration::from_nanos(
            u64::try_from(wait).unwrap_or(u64::MAX),
        ))
    }
}

/// Buckets for bytes and for operations; either may be missing.
#[derive(Debug, Clone)]
struct Limiter {
    bytes: Option<Bucket>,
    operations: Option<Bucket>,
}

impl Limiter {
    fn new(limit: Limit, now: Instant) -> Self {
        let bucket = |rate: Option<u64>| rate.map(|rate| Bucket::new(rate, now));
        Self {
            bytes: bucket(limit.bytes_per_second),
            operations: bucket(limit.operations_per_second),
        }
    }

    /// How long until something may pass; nothing if it may now.
    fn wait(&mut self, now: Instant) -> Option<Duration> {
        let buckets = [&mut self.bytes, &mut self.operations]
            .into_iter()
            .flatten();
        let waits = buckets.filter_map(|bucket| {
            bucket.fill(now);
            bucket.wait()
        });
        waits.max()
    }

    /// One operation of so many bytes has passed.
    fn charge(&mut self, bytes: u64) {
        for (bucket, cost) in [(&mut self.bytes, bytes), (&mut self.operations, 1)] {
            if let Some(bucket) = bucket {
                bucket.level = bucket.level.saturating_sub(cost.into());
            }
        }
    }
}

/// What holds a device back: a limiter, and the clock that wakes the device when it may go on.
#[derive(Debug)]
pub struct Throttle(Option<Limited>);

#[derive(Debug)]
struct Limited {
    limiter: Limiter,
    timer: TimerFd,
}

impl Throttle {
    /// Holds back by a limit; without one, nothing and at no cost.
    ///
    /// # Errors
    ///
    /// Fails as `timerfd_create(2)` does.
    pub fn new(limit: Option<Limit>) -> io::Result<Self> {
        let some = |limit: &Limit| {
            limit.bytes_per_second.is_some() || limit.operations_per_second.is_some()
        };
        let limited = limit.filter(some).map(|limit| {
            Ok::<_, io::Error>(Limited {
                limiter: Limiter::new(limit, Instant::now()),
                timer: TimerFd::new()?,
            })
        });
        limited.transpose().map(Self)
    }

    /// Whether there is a limit at all.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.0.is_some()
    }

    /// Watches for the moment when the device may go on.
    ///
    /// # Errors
    ///
    /// Fails as `epoll_ctl(2)` does.
    pub fn watch(&self, watch: &mut Watch<'_>, token: u32) -> Result<(), DeviceError> {
        let Some(limited) = &self.0 else {
            return Ok(());
        };
        // It is never read: each time that it goes off is an edge.
        watch.add(
            token,
            &limited.timer,
            EventSet::IN | EventSet::EDGE_TRIGGERED,
        )
    }

    /// Whether the device may go on; if not, the clock is set.
    ///
    /// # Errors
    ///
    /// Fails as `timerfd_settime(2)` does.
    pub fn passes(&mut self) -> Result<bool, DeviceError> {
        let Some(limited) = &mut self.0 else {
            return Ok(true);
        };
        let Some(wait) = limited.limiter.wait(Instant::now()) else {
            return Ok(true);
        };
        let set = limited.timer.reset(wait, None);
        set.map_err(DeviceError::host("set a timer"))?;
        Ok(false)
    }

    /// An operation of so many bytes has gone through.
    pub fn charge(&mut self, bytes: u64) {
        if let Some(limited) = &mut self.0 {
            limited.limiter.charge(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(bytes: Option<u64>, operations: Option<u64>, now: Instant) -> Limiter {
        let limit = Limit {
            bytes_per_second: bytes,
            operations_per_second: operations,
        };
        Limiter::new(limit, now)
    }

    #[test]
    fn a_full_bucket_lets_a_second_through_at_once_and_then_its_rate() {
        let start = Instant::now();
        let mut limiter = limiter(Some(1000), None, start);
        for _ in 0..10 {
            assert_eq!(limiter.wait(start), None);
            limiter.charge(100);
        }
        assert_eq!(limiter.wait(start), Some(Duration::from_millis(1)));
        let later = start + Duration::from_millis(100);
        assert_eq!(limiter.wait(later), None);
        limiter.charge(100);
        assert!(limiter.wait(later).is_some());
    }

    #[test]
    fn a_request_larger_than_the_bucket_passes_and_is_paid_for_afterwards() {
        let start = Instant::now();
        let mut limiter = limiter(Some(1000), None, start);
        assert_eq!(limiter.wait(start), None);
        limiter.charge(5000);
        assert!(limiter.wait(start + Duration::from_millis(3999)).is_some());
        assert_eq!(limiter.wait(start + Duration::from_millis(4001)), None);
    }

    #[test]
    fn the_tighter_of_two_limits_holds() {
        let start = Instant::now();
        let mut limiter = limiter(Some(1_000_000), Some(2), start);
        limiter.charge(1);
        assert_eq!(limiter.wait(start), None);
        limiter.charge(1);
        assert_eq!(limiter.wait(start), Some(Duration::from_millis(500)));
    }

    #[test]
    fn nothing_is_lost_to_looking_often() {
        let start = Instant::now();
        let mut limiter = limiter(Some(3), None, start);
        limiter.charge(1_000_000);
        let mut passed = 0;
        for millisecond in 1..=10_000 {
            let now = start + Duration::from_millis(millisecond);
            limiter.wait(now);
            passed = millisecond;
        }
        let paid = 1_000_000 - 3 + limiter.bytes.as_ref().unwrap().level;
        assert_eq!(paid, 30, "after {passed} ms");
    }

    #[test]
    fn a_long_rest_fills_a_bucket_no_further_than_full() {
        let start = Instant::now();
        let mut limiter = limiter(Some(10), Some(u64::MAX), start);
        let later = start + Duration::from_secs(1_000_000);
        assert_eq!(limiter.wait(later), None);
        limiter.charge(10);
        assert!(limiter.wait(later).is_some());
    }
}
