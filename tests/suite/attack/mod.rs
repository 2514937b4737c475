//! What has opened other runtimes, done to this one: docs/security.md has the list, and which defence each test needs.

mod bounds;
mod house;
mod race;
mod rights;
mod seal;
mod sweep;
mod words;

use crate::support::need;

/// How often a race is run: 2,000 times; a tenth of that where processors are emulated; ten times as often in the long
/// version, `BULKHEAD_SOAK=1`, of which `BULKHEAD_SOAK=0.1` is a tenth.
fn tries() -> usize {
    let usual = if need::in_machine() { 200 } else { 2000 };
    let soak = std::env::var("BULKHEAD_SOAK").ok();
    let thousandths = soak.map(|share| (share.parse::<f64>().unwrap() * 1000.0).round());
    let thousandths = thousandths.map(|share| format!("{share}").parse::<usize>().unwrap());
    thousandths.map_or(usual, |share| (usual * share / 100).max(1))
}

/// How often something is done that takes `cost` times as long as a try of a race: once at least.
fn rounds(cost: usize) -> usize {
    tries().div_ceil(cost)
}
