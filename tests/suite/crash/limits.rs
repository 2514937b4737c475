//! A limit of memory that is too low is told of with what was used, and the limit itself.

use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::residue;
use crate::support::scale;

/// The least that is tried, in KiB, and how many limits there are from each to twice as much. Where pages are few at a time
/// and shared ones are somebody else's, a quarter of a mebibyte has been seen to suffice.
const LEAST: u64 = 16;
const STEPS: u32 = 2;

/// Runs `true` with this limit of memory; gives whether that worked.
fn within(home: &Home, id: &str, limit: u64) -> bool {
    let bundle = residue::mark(Bundle::new(&["true"]), id).with(|config| {
        config["linux"]["resources"]["memory"] = serde_json::json!({"limit": limit, "swap": limit});
    });
    let said = home.bulkhead(["run", "-b", bundle.path().to_str().unwrap(), id]);
    let told = ["memory", "limit", "in use", "at most", &limit.to_string()];
    let told = told.iter().all(|word| said.err.contains(word));
    assert!(said.status == 0 || told, "within {limit} bytes: {said:?}");
    assert_eq!(
        residue::of(home, id),
        Vec::<String>::new(),
        "within {limit} bytes"
    );
    said.status == 0
}

#[test]
fn memory_that_does_not_suffice_is_said_to_be_too_low_with_the_limit_and_what_was_used() {
    need!(root, limits);
    let home = Home::new();
    let id = home.id();
    let mut outcomes = [0, 0];
    let mut least = None;
    for round in 0..scale::times(1, 5) {
        for step in 0..scale::times(18, 36) {
            let (doubled, more) = (step / STEPS, u64::from(step % STEPS));
            let limit = ((LEAST << 10) + more * (LEAST << 10) / u64::from(STEPS)) << doubled;
            let suffices = within(&home, &id, limit);
            outcomes[usize::from(suffices)] += 1;
            least = least.or_else(|| suffices.then_some(limit));
        }
        scale::progress("memory limits", round + 1, scale::times(1, 5));
    }
    println!("run of true needs a limit of {least:?} bytes");
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
}
