//! What the host as a whole has done up to one moment: the other half of every share.

use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde::Serialize;

use crate::accounting::energy;
use crate::accounting::energy::Package;
use crate::sys::pseudo;

/// Microseconds in one tick of `/proc/stat`: `USER_HZ` is 100 wherever this program runs.
const TICK_US: u64 = 10_000;

/// The host at one moment; what it does not tell is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// The clock that runs from boot on, without the time the host was asleep.
    pub clock_us: u64,
    /// Time that its processors were busy.
    pub busy_us: Option<u64>,
    /// Of that, with soft interrupts. Without `IRQ_TIME_ACCOUNTING` it is sampled at each tick.
    pub softirq_us: Option<u64>,
    /// Packets that were received on any interface of any network namespace, modulo 2^32.
    pub packets: Option<u32>,
    /// What the processors' packages have taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub energy: Vec<Package>,
}

impl Moment {
    /// Looks at the host now.
    #[must_use]
    pub fn look() -> Self {
        let (busy_us, softirq_us) = processors(&first_line("/proc/stat"));
        let softnet = pseudo::read("/proc/net/softnet_stat").unwrap_or_default();
        Self {
            clock_us: clock_us(),
            busy_us,
            softirq_us,
            packets: packets(&String::from_utf8_lossy(&softnet)),
            energy: energy::read(Path::new(energy::POWERCAP)),
        }
    }
}

/// The clock that runs from boot on.
fn clock_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    seconds * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or_default() / 1000
}

/// The first line of a file whose others are many.
fn first_line(path: &str) -> String {
    let mut some = [0; 256];
    let read = std::fs::File::open(path).and_then(|mut file| file.read(&mut some));
    let line = some[..read.unwrap_or_default()].split(|byte| *byte == b'\n');
    String::from_utf8_lossy(line.into_iter().next().unwrap_or_default()).into_owned()
}

/// Time busy, and in soft interrupts, from the first line: `cpu user nice system idle iowait irq softirq steal …`.
/// Time in guests is contained in that of user.
fn processors(stat: &str) -> (Option<u64>, Option<u64>) {
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line
        .split_ascii_whitespace()
        .skip(1)
        .map_while(|word| word.parse().ok())
        .collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = ticks[..] else {
        return (None, None);
    };
    let busy = user + nice + system + irq + softirq;
    (Some(busy * TICK_US), Some(softirq * TICK_US))
}

/// The first column of each processor's line, in hexadecimal: packets received. Each is of 32 bits and starts over, so
/// their sum is one of 32 bits too.
fn packets(softnet: &str) -> Option<u32> {
    let columns = softnet
        .lines()
        .map(|line| u32::from_str_radix(line.split_ascii_whitespace().next()?, 16).ok());
    let columns: Option<Vec<u32>> = columns.collect();
    let columns = columns.filter(|columns| !columns.is_empty())?;
    Some(columns.into_iter().fold(0, u32::wrapping_add))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_time_is_all_but_idle_and_stolen() {
        let stat = "cpu  10 1 5 1000 50 2 3 7 4 0\ncpu0 …";
        assert_eq!(processors(stat), (Some(210_000), Some(30_000)));
        assert_eq!(processors("cpu 1 2"), (None, None));
    }

    #[test]
    fn packets_are_added_over_processors_and_may_start_over() {
        assert_eq!(packets("0000000a 0 0\n00000005 0 0\n"), Some(15));
        assert_eq!(packets("ffffffff 0\n00000002 0\n"), Some(1));
        assert_eq!(packets(""), None);
    }

    #[test]
    fn this_host_tells_of_its_processors() {
        let (one, other) = (Moment::look(), Moment::look());
        assert!(one.busy_us.unwrap() > 0 && one.softirq_us.is_some());
        assert!(other.clock_us >= one.clock_us);
    }
}
