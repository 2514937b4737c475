//! Decides what system call numbers get that no rule names.
//!
//! A program that asks for a call which is newer than its profile must not be told `EPERM`: it takes that
//! for an answer of the call, where it would do without the call if told `ENOSYS`. So, as in runc, where the
//! default is not to make the call, numbers above the greatest that the profile names are not implemented.
//!
//! Beside that, numbers with the x32 bit are as good as another architecture: not listed is the end of the
//! thread. The number -1 is spared, for it is what a tracer leaves where it skipped a call.

use crate::spec::seccomp::Arch;

use super::BAD_ARCHITECTURE;
use super::machine::Machine;
use super::machine::X32_BIT;
use super::verdict::Rules;

/// Numbers from here on are negative; some of them have the x32 bit.
const NEGATIVE: u32 = 0x8000_0000;

/// Start of each range, and what its numbers return.
pub(super) fn ranges(rules: &Rules<'_>, machines: &[Machine]) -> Vec<(u32, u32)> {
    let of = |arch: Arch| machines.iter().find(|machine| machine.arch == arch);
    match (of(Arch::X86_64), of(Arch::X32), machines.first()) {
        (Some(wide), Some(narrow), _) => x86_64_and_x32(rules, wide, narrow),
        (Some(wide), None, _) => x86_64(rules, wide),
        (None, Some(narrow), _) => x32(rules, narrow),
        (None, None, Some(machine)) => one(rules, machine),
        (None, None, None) => vec![(0, rules.default)],
    }
}

fn one(rules: &Rules<'_>, machine: &Machine) -> Vec<(u32, u32)> {
    let Some(newest) = rules.newest(machine) else {
        return vec![(0, rules.default)];
    };
    // Where a number does not fit the instruction, s390 asks for call 0 and puts the
    // number elsewhere; a number that the kernel does not know stays 0.
    let first = if matches!(machine.arch, Arch::S390 | Arch::S390X) {
        rules.newer
    } else {
        rules.default
    };
    vec![
        (0, first),
        (1, rules.default),
        (newest.saturating_add(1), rules.newer),
    ]
}

fn x86_64(rules: &Rules<'_>, machine: &Machine) -> Vec<(u32, u32)> {
    let newest = rules
        .newest(machine)
        .filter(|_| rules.newer != rules.default);
    vec![
        (0, rules.default),
        (
            newest.map_or(1, |number| number + 1),
            newest.map_or(rules.default, |_| rules.newer),
        ),
        (X32_BIT, BAD_ARCHITECTURE),
        (NEGATIVE, newest.map_or(BAD_ARCHITECTURE, |_| rules.newer)),
        (NEGATIVE | X32_BIT, BAD_ARCHITECTURE),
        (u32::MAX, rules.default),
    ]
}

fn x32(rules: &Rules<'_>, machine: &Machine) -> Vec<(u32, u32)> {
    let newest = rules.newest(machine);
    let newer = newest.map_or(rules.default, |_| rules.newer);
    vec![
        (0, BAD_ARCHITECTURE),
        (X32_BIT, rules.default),
        (newest.map_or(NEGATIVE, |number| number + 1), newer),
        (NEGATIVE, rules.default),
        (NEGATIVE | X32_BIT, newer),
    ]
}

fn x86_64_and_x32(rules: &Rules<'_>, wide: &Machine, narrow: &Machine) -> Vec<(u32, u32)> {
    let (newest_wide, newest_narrow) = (rules.newest(wide), rules.newest(narrow));
    let newer_wide = newest_wide.map_or(rules.default, |_| rules.newer);
    let newer_narrow = newest_narrow.map_or(rules.default, |_| rules.newer);
    vec![
        (0, rules.default),
        (newest_wide.map_or(1, |number| number + 1), newer_wide),
        (X32_BIT, rules.default),
        (
            newest_narrow.map_or(X32_BIT + 1, |number| number + 1),
            newer_narrow,
        ),
        (NEGATIVE, newer_wide),
        (NEGATIVE | X32_BIT, newer_narrow),
    ]
}
