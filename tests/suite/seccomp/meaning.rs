//! Rules are done as they are written: our programs beside a reading of the profile that takes no short cut.
//!
//! This judges what libseccomp cannot be asked about. The order of rules plays no part: all have one action.

use bulkhead::plan::seccomp;
use bulkhead::spec::seccomp::Action;
use bulkhead::spec::seccomp::Arch;
use bulkhead::spec::seccomp::Condition;
use bulkhead::spec::seccomp::Operator;
use bulkhead::spec::seccomp::Rule;
use bulkhead::spec::seccomp::Seccomp;
use proptest::prelude::*;

use super::bpf;
use super::bpf::SystemCall;
use super::compare;
use super::generated;
use super::oracle;

fn holds(condition: &Condition, args: &[u64; 6]) -> bool {
    let (argument, value) = (args[condition.index as usize], condition.value);
    match condition.op {
        Operator::NotEqual => argument != value,
        Operator::Less => argument < value,
        Operator::LessOrEqual => argument <= value,
        Operator::Equal => argument == value,
        Operator::GreaterOrEqual => argument >= value,
        Operator::Greater => argument > value,
        Operator::MaskedEqual => argument & value == condition.value_two & value,
    }
}

/// All conditions, but any where two are on one argument.
fn applies(rule: &Rule, args: &[u64; 6]) -> bool {
    let mut indexes: Vec<u32> = rule.args.iter().map(|arg| arg.index).collect();
    indexes.sort_unstable();
    indexes.dedup();
    let mut conditions = rule.args.iter();
    if indexes.len() == rule.args.len() {
        conditions.all(|condition| holds(condition, args))
    } else {
        conditions.any(|condition| holds(condition, args))
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "proptest hands over what it made"
)]
fn as_written(profile: Seccomp) -> Result<(), TestCaseError> {
    let program = seccomp::compile(&profile, Arch::X86_64)
        .unwrap()
        .instructions;
    let default = oracle::value(profile.default_action.unwrap(), profile.default_errno_ret);
    let named = [
        ("read", 0),
        ("socket", 41),
        ("connect", 42),
        ("openat", 257),
    ];
    for ((name, number), args) in named.iter().flat_map(|call| {
        compare::mixtures(&profile)
            .into_iter()
            .map(move |a| (*call, a))
    }) {
        let rules = || {
            profile
                .syscalls
                .iter()
                .filter(|rule| rule.names.iter().any(|n| n == name))
        };
        prop_assume!(rules().count() > 0);
        let rule = rules().find(|rule| applies(rule, &args));
        let meant = rule.map_or(default, |rule| oracle::value(rule.action, rule.errno_ret));
        let call = SystemCall {
            number,
            arch: compare::X86_64,
            args,
        };
        prop_assert_eq!(bpf::run(&program, &call), meant, "{:x?}", call);
    }
    Ok(())
}

/// Profiles that name every call that is asked about.
fn profiles() -> impl Strategy<Value = Seccomp> {
    generated::profile_of_one_action(3).prop_map(|mut profile| {
        profile.syscalls.iter_mut().for_each(|rule| {
            rule.names = ["read", "socket", "connect", "openat"]
                .map(str::to_owned)
                .to_vec();
        });
        profile
    })
}

#[test]
fn a_call_gets_the_action_of_the_rules_that_apply() {
    generated::for_each(profiles(), as_written);
}

#[test]
fn bounds_whose_upper_halves_differ_are_told_apart() {
    let bound = |op, value| Rule {
        names: vec!["clone".to_owned()],
        action: Action::Allow,
        errno_ret: None,
        args: vec![Condition {
            index: 2,
            value,
            value_two: 0,
            op,
        }],
    };
    let profile = Seccomp {
        default_action: Some(Action::Log),
        syscalls: vec![
            bound(Operator::Less, 255),
            bound(Operator::Greater, 1 << 32 | 5),
        ],
        ..Seccomp::default()
    };
    let program = seccomp::compile(&profile, Arch::X86_64)
        .unwrap()
        .instructions;
    let verdict = |argument| {
        let call = SystemCall {
            number: 56,
            arch: compare::X86_64,
            args: [argument; 6],
        };
        bpf::run(&program, &call)
    };
    let (allow, log) = (0x7fff_0000, 0x7ffc_0000);
    let asked = [254, 255, 0xffff_ffff, 1 << 32 | 5, 1 << 32 | 6];
    assert_eq!(asked.map(verdict), [allow, log, log, log, allow]);
}
