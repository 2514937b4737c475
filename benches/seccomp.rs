//! Measures how long a seccomp profile takes from JSON to a program for the kernel.
//!
//! Run as `cargo bench --bench seccomp`. A start of a container pays the second line once.
#![expect(clippy::print_stdout, reason = "what is measured is printed")]

use std::hint::black_box;
use std::time::Duration;
use std::time::Instant;

use bulkhead::plan::seccomp;
use bulkhead::spec::seccomp::Seccomp;

#[expect(
    clippy::expect_used,
    reason = "a profile of ours that cannot be read is a mistake of ours"
)]
#[path = "../tests/suite/seccomp/engine.rs"]
mod engine;

/// Rounds that are measured, after as many that warm up.
const ROUNDS: usize = 2000;

fn main() {
    for (name, profile) in [("docker", engine::docker()), ("podman", engine::podman())] {
        report(name, &profile);
    }
}

fn report(name: &str, profile: &Seccomp) {
    let Ok(json) = serde_json::to_string(profile) else {
        return;
    };
    let read = median(|| {
        drop(black_box(serde_json::from_str::<Seccomp>(black_box(&json))));
    });
    let compiled = median(|| {
        drop(black_box(seccomp::compile(
            black_box(profile),
            seccomp::native(),
        )));
    });
    let length = seccomp::compile(profile, seccomp::native()).map_or(0, |f| f.instructions.len());
    println!("{name}: read in {:.1} us", micros(read));
    println!(
        "{name}: compiled in {:.1} us, {length} instructions",
        micros(compiled)
    );
}

fn median(mut work: impl FnMut()) -> Duration {
    (0..ROUNDS).for_each(|_| work());
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times.get(ROUNDS / 2).copied().unwrap_or_default()
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
