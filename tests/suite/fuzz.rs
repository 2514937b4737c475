//! Hostile bytes, the same each time: a short run of what `make fuzz` does for as long as it is let.

use std::fs;
use std::path::Path;

#[expect(unreachable_pub, reason = "a package of its own uses it too")]
#[path = "../../fuzz/src/lib.rs"]
mod targets;

/// The longest input, in bytes.
const LONGEST: u64 = 2048;

/// Numbers that look like chance (splitmix64), from a seed.
struct Dice(u64);

impl Dice {
    fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn bytes(&mut self) -> Vec<u8> {
        let words = self.throw() % (LONGEST / 8);
        let bytes = (0..words).flat_map(|_| self.throw().to_le_bytes());
        bytes.collect()
    }
}

/// What has found something before.
fn regressions(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/regressions")
        .join(target);
    let files = fs::read_dir(folder).into_iter().flatten();
    files
        .map(|file| fs::read(file.unwrap().path()).unwrap())
        .collect()
}

fn survives(target: &str, rounds: usize, run: fn(&[u8])) {
    for bytes in regressions(target) {
        run(&bytes);
    }
    let mut dice = Dice(1);
    for _ in 0..rounds {
        run(&dice.bytes());
    }
}

#[test]
fn a_guest_of_chance_is_survived_by_the_socket_device() {
    survives("vsock", 1500, targets::vsock::run);
}

#[test]
fn a_guest_of_chance_is_survived_by_every_other_device() {
    survives("devices", 1500, targets::devices::run);
}

#[test]
fn messages_of_chance_are_refused() {
    survives("wire", 2000, targets::wire::run);
}
