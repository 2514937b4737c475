//! Hostile bytes, the same each time: a short run of what `make fuzz` does for as long as it is let.

use std::fs;
use std::path::Path;

use crate::need;
use crate::support::allocations;

#[expect(unreachable_pub, reason = "a package of its own uses it too")]
#[expect(
    clippy::cast_possible_truncation,
    reason = "numbers of a guest of ours, all of them small, and halves of greater ones"
)]
#[path = "../../fuzz/src/lib.rs"]
mod targets;

/// The most that a device may take of the host's memory at once for one request, in bytes.
const LARGEST: usize = 256 << 10;

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

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.throw() % u64::try_from(end.max(1)).unwrap()).unwrap()
    }

    /// The same bytes with a few of them changed, left out, or said twice.
    fn changed(&mut self, seed: &[u8]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=self.below(4) {
            let (from, to) = (self.below(bytes.len()), self.below(bytes.len()));
            let (from, to) = (from.min(to), from.max(to).min(from.min(to) + 64));
            match self.below(4) {
                0 => drop(bytes.drain(from..to)),
                1 => bytes.extend_from_within(from..to),
                2 => bytes.truncate(to.max(1)),
                _ => bytes[from..to]
                    .iter_mut()
                    .for_each(|byte| *byte ^= 1 << (from % 8)),
            }
        }
        bytes
    }
}

/// The files in a folder of the checkout.
fn kept(folder: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Lets a target have what has found something before, bytes of chance, and the seeds in these folders, changed.
fn survives(target: &str, rounds: usize, folders: &[&str], run: fn(&[u8])) {
    for bytes in kept(&format!("fuzz/regressions/{target}")) {
        run(&bytes);
    }
    let mut dice = Dice(1);
    for _ in 0..rounds {
        run(&dice.bytes());
    }
    let seeds: Vec<_> = folders.iter().flat_map(|folder| kept(folder)).collect();
    for seed in &seeds {
        run(seed);
        for _ in 0..rounds / seeds.len() {
            run(&dice.changed(seed));
        }
    }
    assert!(
        folders.is_empty() || !seeds.is_empty(),
        "no seeds in {folders:?}"
    );
}

#[test]
fn a_guest_of_chance_is_survived_by_the_socket_device() {
    survives("vsock", 1500, &[], targets::vsock::run);
}

#[test]
fn a_guest_of_chance_is_survived_by_every_other_device() {
    survives("devices", 1500, &[], targets::devices::run);
}

#[test]
fn messages_of_chance_are_refused() {
    survives("wire", 2000, &[], targets::wire::run);
}

#[test]
fn configurations_of_chance_are_refused_or_planned() {
    let folders = ["fuzz/seeds/config", "tests/fixtures/plans"];
    survives("config", 1000, &folders, targets::config::run);
}

#[test]
fn words_of_chance_are_options_of_a_mount_or_of_its_file_system() {
    let folders = ["fuzz/seeds/mount_options"];
    survives("mount_options", 2000, &folders, targets::mount_options::run);
}

#[test]
fn profiles_of_chance_are_refused_or_compile_to_programs_that_end() {
    let folders = ["fuzz/seeds/profile", "tests/fixtures/seccomp"];
    survives("profile", 200, &folders, targets::profile::run);
}

#[test]
fn ranges_of_chance_are_refused_or_give_each_id_one_counterpart() {
    survives("id_maps", 2000, &[], targets::id_maps::run);
}

#[test]
fn databases_of_chance_name_a_user_or_nobody() {
    let folders = ["fuzz/seeds/accounts"];
    survives("accounts", 2000, &folders, targets::accounts::run);
}

#[test]
fn paths_of_chance_lead_below_the_mount_of_cgroups_or_are_refused() {
    let folders = ["fuzz/seeds/cgroup_path"];
    survives("cgroup_path", 2000, &folders, targets::cgroup_path::run);
}

#[test]
fn records_of_chance_are_refused_or_read_back_the_same() {
    let folders = ["fuzz/seeds/record"];
    survives("record", 2000, &folders, targets::record::run);
}

#[test]
fn paths_of_chance_lead_where_a_model_says_and_never_outside() {
    survives("resolver", 40, &[], targets::resolver::run);
}

#[test]
fn reports_of_chance_are_none_or_arrive_as_they_were_sent() {
    let folders = ["fuzz/seeds/report"];
    survives("report", 2000, &folders, targets::report::run);
}

#[test]
fn registers_of_chance_leave_a_device_that_works() {
    survives("registers", 150, &[], targets::registers::run);
}

#[test]
fn a_guest_of_chance_is_survived_by_the_network_interface() {
    need!(root);
    survives("net", 800, &[], |bytes| assert!(targets::net::run(bytes)));
}

#[test]
fn a_file_server_that_says_anything_is_survived_by_its_device() {
    survives("server", 300, &[], targets::server::run);
}

#[test]
fn a_guest_that_answers_anything_is_survived_by_the_host() {
    survives("client", 1500, &[], targets::client::run);
}

#[test]
fn a_request_that_names_the_same_memory_again_and_again_takes_little_of_the_hosts() {
    targets::overlap::run(|name, serve| {
        let largest = allocations::largest_in(serve);
        assert!(largest <= LARGEST, "{name}: {largest} bytes at once");
    });
    // It is counted at all.
    let large = allocations::largest_in(&mut || drop(vec![0_u8; 2 * LARGEST]));
    assert_eq!(large, 2 * LARGEST);
}
