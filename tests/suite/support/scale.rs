//! How often something is tried: a few times in every run of the tests, as often as promised in `make soak`.

/// The variable that `make soak` sets: the share of the long version to run, 1 being all of it.
const SHARE: &str = "BULKHEAD_SOAK";

/// The share of the long version that is asked for; nothing in the usual run.
pub(crate) fn share() -> Option<f64> {
    let asked = std::env::var(SHARE).ok()?.parse::<f64>().ok();
    asked.filter(|share| *share > 0.0)
}

/// `short` tries, or in a long run a share of `long` ones, but not fewer than `short`.
pub(crate) fn times(short: u32, long: u32) -> u32 {
    let asked = share().map(|share| (f64::from(long) * share).ceil());
    // A share makes no number that `u32` does not have: tries are counted in thousands.
    asked.map_or(short, |asked| {
        format!("{asked}").parse().unwrap_or(long).max(short)
    })
}

/// Says how far a long run has come; a short one says nothing.
#[expect(
    clippy::print_stderr,
    reason = "whoever waits for hours wants to see that it goes on"
)]
pub(crate) fn progress(what: &str, done: u32, all: u32) {
    let step = (all / 20).max(1);
    if share().is_some() && (done.is_multiple_of(step) || done == all) {
        eprintln!("{what}: {done} of {all}");
    }
}
