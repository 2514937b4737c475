//! Writes verdicts as a balanced tree of comparisons: about the logarithm of the number of ranges for any call.

use crate::spec::seccomp::Operator;

use super::clause::Clause;
use super::clause::Test;
use super::program::Compare;
use super::program::Half;
use super::program::Label;
use super::program::Program;
use super::verdict::Range;
use super::verdict::Verdict;

/// Writes what is done with the calls of one architecture, and returns where that begins.
pub(super) fn write(program: &mut Program, ranges: &[Range], default: u32) -> Label {
    let root = write_ranges(program, ranges, default);
    match ranges {
        [] | [_] => root,
        _ => program.load_number(),
    }
}

/// Writes the choice between ranges.
fn write_ranges(program: &mut Program, ranges: &[Range], default: u32) -> Label {
    let (below, above) = ranges.split_at(ranges.len() / 2);
    let Some(border) = above.first() else {
        return program.returns(default);
    };
    if below.is_empty() {
        return write_verdict(program, &border.verdict, default);
    }
    let then = write_ranges(program, above, default);
    let or = write_ranges(program, below, default);
    program.branch(Compare::GreaterOrEqual, border.start, then, or)
}

fn write_verdict(program: &mut Program, verdict: &Verdict, default: u32) -> Label {
    match verdict {
        Verdict::Returns(value) => program.returns(*value),
        Verdict::Depends { clauses, wide } => {
            let mut otherwise = program.returns(default);
            let runs: Vec<&[Clause]> = clauses.chunk_by(|a, b| are_alike(a, b, *wide)).collect();
            for run in runs.into_iter().rev() {
                otherwise = write_run(program, run, *wide, otherwise);
            }
            otherwise
        }
    }
}

/// Whether two clauses look for a value of the same argument, with the same upper half, and return the same.
fn are_alike(one: &Clause, other: &Clause, wide: bool) -> bool {
    let ([one_test], [other_test]) = (&one.tests[..], &other.tests[..]) else {
        return false;
    };
    let facts = |test: &Test| {
        (
            test.how,
            test.index,
            if wide { high(test.value) } else { 0 },
        )
    };
    one.value == other.value
        && one_test.how == Operator::Equal
        && facts(one_test) == facts(other_test)
}

/// Writes clauses that are alike, loading the argument once; or one clause.
fn write_run(program: &mut Program, run: &[Clause], wide: bool, or: Label) -> Label {
    let Some((first, others)) = run.split_first() else {
        return or;
    };
    let hit = program.returns(first.value);
    if others.is_empty() {
        let tests = first.tests.iter().rev();
        return tests.fold(hit, |then, test| {
            write_test(program, test, wide, (then, or))
        });
    }
    let values = run
        .iter()
        .rev()
        .flat_map(|clause| clause.tests.iter().map(|test| test.value));
    let index = first.tests.first().map_or(0, |test| test.index);
    let mut next = or;
    let mut upper = 0;
    for value in values {
        next = program.branch(Compare::Equal, low(value), hit, next);
        upper = high(value);
    }
    let lower = program.load_argument(index, Half::Low, u32::MAX);
    if !wide {
        return lower;
    }
    program.branch(Compare::Equal, upper, lower, or);
    program.load_argument(index, Half::High, u32::MAX)
}

/// Writes one test, and where to go if it holds and if not.
fn write_test(program: &mut Program, test: &Test, wide: bool, (then, or): (Label, Label)) -> Label {
    match test.how {
        Operator::Equal | Operator::MaskedEqual => write_equal(program, test, then, or),
        Operator::NotEqual => write_equal(program, test, or, then),
        Operator::Greater => write_bound(program, test, wide, (Compare::Greater, then, or)),
        Operator::LessOrEqual => write_bound(program, test, wide, (Compare::Greater, or, then)),
        Operator::GreaterOrEqual => {
            write_bound(program, test, wide, (Compare::GreaterOrEqual, then, or))
        }
        Operator::Less => write_bound(program, test, wide, (Compare::GreaterOrEqual, or, then)),
    }
}

/// Equality of the halves of which the mask shows anything; on a narrow machine that is the low one.
fn write_equal(program: &mut Program, test: &Test, mut then: Label, or: Label) -> Label {
    let Test {
        index, mask, value, ..
    } = *test;
    if low(mask) != 0 {
        program.branch(Compare::Equal, low(value), then, or);
        then = program.load_argument(index, Half::Low, low(mask));
    }
    if high(mask) != 0 {
        program.branch(Compare::Equal, high(value), then, or);
        then = program.load_argument(index, Half::High, high(mask));
    }
    then
}

/// A bound: the upper halves decide unless they are equal.
fn write_bound(
    program: &mut Program,
    test: &Test,
    wide: bool,
    (how, then, or): (Compare, Label, Label),
) -> Label {
    let Test { index, value, .. } = *test;
    program.branch(how, low(value), then, or);
    let lower = program.load_argument(index, Half::Low, u32::MAX);
    if !wide {
        return lower;
    }
    let equal = program.branch(Compare::Equal, high(value), lower, or);
    program.branch(Compare::Greater, high(value), then, equal);
    program.load_argument(index, Half::High, u32::MAX)
}

fn low(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).unwrap_or_default()
}

fn high(number: u64) -> u32 {
    u32::try_from(number >> 32).unwrap_or_default()
}
