//! Profiles that nobody would write mean the same to us as to runc.
//!
//! The profiles are the same in every run. libseccomp 2.5 is no judge of everything: it loses the load of
//! the call's number where a name has none on an architecture, and it compares with the wrong half of an
//! argument where bounds with different upper halves meet. Such profiles are left out here, and judged by
//! `meaning` instead.

use bulkhead::plan::seccomp;
use bulkhead::spec::seccomp::Action;
use bulkhead::spec::seccomp::Arch;
use bulkhead::spec::seccomp::Condition;
use bulkhead::spec::seccomp::Operator;
use bulkhead::spec::seccomp::Rule;
use bulkhead::spec::seccomp::Seccomp;
use proptest::prelude::*;
use proptest::test_runner::Config;
use proptest::test_runner::RngAlgorithm;
use proptest::test_runner::TestRng;
use proptest::test_runner::TestRunner;

use super::compare;
use super::oracle;

/// Calls that every architecture here has, multiplexed ones among them, and one that none has.
const NAMES: &[&str] = &[
    "read", "openat", "socket", "connect", "shmget", "clone", "ppoll", "prctl", "nosuch",
];

const ARCHS: &[Arch] = &[
    Arch::X86_64,
    Arch::X86,
    Arch::X32,
    Arch::Arm,
    Arch::Aarch64,
    Arch::Mipsel,
    Arch::Ppc64Le,
    Arch::Riscv64,
];

/// An action and the number it returns.
pub(super) fn action() -> impl Strategy<Value = (Action, Option<u32>)> {
    prop_oneof![
        Just((Action::Allow, None)),
        Just((Action::Log, None)),
        Just((Action::Trap, None)),
        Just((Action::Kill, None)),
        Just((Action::KillProcess, None)),
        Just((Action::Errno, None)),
        (1..4u32).prop_map(|number| (Action::Errno, Some(number))),
        (1..4u32).prop_map(|number| (Action::Trace, Some(number))),
    ]
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => 0..8u64,
        3 => prop::sample::select(&[0xff, 0x7fff_ffff, 0xffff_ffff, 1 << 32, 5 << 32 | 1, u64::MAX]),
        1 => any::<u64>(),
    ]
}

fn condition() -> impl Strategy<Value = Condition> {
    let parts = (
        0..3u32,
        value(),
        value(),
        prop::sample::select(Operator::ALL),
    );
    parts.prop_map(|(index, value, value_two, op)| Condition {
        index,
        value,
        value_two,
        op,
    })
}

fn rule(conditions: usize) -> impl Strategy<Value = Rule> {
    let names = prop::collection::vec(prop::sample::select(NAMES), 1..3);
    let args = prop::collection::vec(condition(), 0..=conditions);
    (names, action(), args).prop_map(|(names, (action, errno_ret), args)| Rule {
        names: names.into_iter().map(str::to_owned).collect(),
        action,
        errno_ret,
        args,
    })
}

/// Profiles of up to seven rules, each with up to so many conditions.
pub(super) fn profile(conditions: usize) -> impl Strategy<Value = Seccomp> {
    let rules = prop::collection::vec(rule(conditions), 0..8);
    let archs = prop::sample::subsequence(ARCHS, 0..4);
    (action(), rules, archs).prop_map(|((default, number), syscalls, architectures)| Seccomp {
        default_action: Some(default),
        default_errno_ret: number,
        architectures,
        syscalls,
        ..Seccomp::default()
    })
}

/// The same with one action in all rules, so that the order of rules does not matter.
pub(super) fn profile_of_one_action(conditions: usize) -> impl Strategy<Value = Seccomp> {
    (profile(conditions), action()).prop_map(|(mut profile, (action, number))| {
        for rule in &mut profile.syscalls {
            (rule.action, rule.errno_ret) = (action, number);
        }
        profile
    })
}

/// Asks about the same profiles in every run.
pub(super) fn for_each(
    profiles: impl Strategy<Value = Seccomp>,
    test: impl Fn(Seccomp) -> Result<(), TestCaseError>,
) {
    let config = Config {
        cases: 96,
        max_global_rejects: 10_000,
        failure_persistence: None,
        ..Config::default()
    };
    let seed = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    TestRunner::new_with_rng(config, seed)
        .run(&profiles, test)
        .unwrap();
}

/// Whether bounds on an argument of a call have different upper halves.
fn has_bounds_far_apart(profile: &Seccomp) -> bool {
    let rules = profile.syscalls.iter();
    let bounds: Vec<(&str, &Condition)> = rules
        .flat_map(|rule| {
            let bounds = rule.args.iter().filter(|arg| is_bound(arg.op));
            bounds.flat_map(|arg| rule.names.iter().map(move |name| (name.as_str(), arg)))
        })
        .collect();
    bounds.iter().enumerate().any(|(at, (name, bound))| {
        bounds.iter().take(at).any(|(other_name, other)| {
            name == other_name
                && bound.index == other.index
                && bound.value >> 32 != other.value >> 32
        })
    })
}

fn is_bound(operator: Operator) -> bool {
    !matches!(
        operator,
        Operator::Equal | Operator::NotEqual | Operator::MaskedEqual
    )
}

/// Both programs say the same, or both refuse the profile. Where libseccomp alone refuses, because of
/// rules that it cannot merge, we may say what we want.
#[expect(
    clippy::needless_pass_by_value,
    reason = "proptest hands over what it made"
)]
fn same(profile: Seccomp) -> Result<(), TestCaseError> {
    prop_assume!(!has_bounds_far_apart(&profile));
    let Ok(theirs) = oracle::compile(&profile) else {
        return Ok(());
    };
    prop_assert!(seccomp::compile(&profile, Arch::X86_64).is_ok());
    let (numbers, arguments) = (compare::numbers_of(&profile), compare::mixtures(&profile));
    prop_assert_eq!(
        compare::difference(&profile, &theirs, &numbers, &arguments),
        None
    );
    Ok(())
}

#[test]
fn rules_without_conditions_mean_the_same() {
    for_each(profile(0), same);
}

#[test]
fn conditions_mean_the_same() {
    for_each(profile_of_one_action(1), same);
}

#[test]
fn several_conditions_mean_the_same() {
    for_each(profile_of_one_action(3), same);
}

#[test]
fn rules_that_contradict_each_other_are_ranked_the_same() {
    for_each(profile(1), same);
}
