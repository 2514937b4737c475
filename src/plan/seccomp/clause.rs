//! Turns the conditions of rules into clauses: tests that must all hold, and what is returned when they do.
//!
//! The first clause that holds decides. Where all clauses of a call return the same, their order does not
//! matter. Where they differ, [`in_order`] puts them as libseccomp does, whatever the order in the profile:
//! higher argument first, equality before upper before lower bounds, and among those the tighter one first.

use crate::spec::seccomp::Condition;
use crate::spec::seccomp::Operator;

/// A condition as one architecture sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Test {
    pub(super) index: u32,
    pub(super) how: Operator,
    /// Bits that are looked at; all of the width but for [`Operator::MaskedEqual`].
    pub(super) mask: u64,
    pub(super) value: u64,
}

/// A value that is returned where every test holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clause {
    /// By ascending argument, at most one for each; none means always.
    pub(super) tests: Vec<Test>,
    /// What the filter returns.
    pub(super) value: u32,
    /// Which rule of the profile said so.
    pub(super) rule: usize,
}

impl Test {
    /// What is left of a condition on an architecture; nothing where it always holds.
    fn new(condition: &Condition, wide: bool) -> Option<Self> {
        let width = if wide { u64::MAX } else { u64::from(u32::MAX) };
        let (mask, value) = match condition.op {
            Operator::MaskedEqual => (condition.value & width, condition.value_two),
            Operator::NotEqual
            | Operator::Less
            | Operator::LessOrEqual
            | Operator::Equal
            | Operator::GreaterOrEqual
            | Operator::Greater => (width, condition.value),
        };
        let test = Self {
            index: condition.index,
            how: condition.op,
            mask,
            value: value & mask,
        };
        (mask != 0).then_some(test)
    }

    /// The first argument of a multiplexer names the operation.
    fn is_operation(number: u32) -> Self {
        Self {
            index: 0,
            how: Operator::Equal,
            mask: u64::from(u32::MAX),
            value: u64::from(number),
        }
    }
}

/// The clauses of one rule for one call: one with all conditions or, where two conditions are on the same
/// argument, one for each condition, any of which is enough, as runc does.
pub(super) fn of_rule(
    conditions: &[Condition],
    wide: bool,
    operation: Option<u32>,
) -> Vec<Vec<Test>> {
    let repeated = conditions.iter().enumerate().any(|(at, condition)| {
        conditions
            .iter()
            .take(at)
            .any(|earlier| earlier.index == condition.index)
    });
    let groups: Vec<&[Condition]> = match repeated {
        true => conditions.chunks(1).collect(),
        false => vec![conditions],
    };
    groups
        .into_iter()
        .map(|group| tests(group, wide, operation))
        .collect()
}

/// The tests of one clause. A condition on the first argument of a multiplexed call cannot be expressed,
/// for that argument is now the operation: it is dropped, as libseccomp does.
fn tests(conditions: &[Condition], wide: bool, operation: Option<u32>) -> Vec<Test> {
    let mut tests: Vec<Test> = conditions
        .iter()
        .filter(|condition| operation.is_none() || condition.index != 0)
        .filter_map(|condition| Test::new(condition, wide))
        .chain(operation.map(|number| {
            let mut test = Test::is_operation(number);
            test.mask |= if wide { u64::MAX } else { 0 };
            test
        }))
        .collect();
    tests.sort_by_key(|test| test.index);
    tests
}

/// Orders clauses so that the first that holds is the one libseccomp would choose.
pub(super) fn in_order(clauses: Vec<Clause>, wide: bool) -> Vec<Clause> {
    if clauses
        .iter()
        .all(|clause| Some(clause.value) == clauses.first().map(|one| one.value))
    {
        return clauses;
    }
    let mut level = Level::default();
    for clause in clauses {
        let nodes: Vec<Node> = clause
            .tests
            .iter()
            .flat_map(|test| Node::of(test, wide))
            .collect();
        level.place(&nodes, clause);
    }
    let mut ordered = Vec::new();
    level.flatten(&mut ordered);
    ordered
}

/// A comparison of half an argument: what libseccomp orders.
#[derive(Debug, Clone, Copy)]
struct Node {
    argument: u32,
    high: bool,
    how: Operator,
    mask: u32,
    value: u32,
}

impl Node {
    fn of(test: &Test, wide: bool) -> impl Iterator<Item = Self> {
        let high = wide.then(|| Self::half(test, 32, true));
        [high, Some(Self::half(test, 0, false))]
            .into_iter()
            .flatten()
    }

    fn half(test: &Test, shift: u32, high: bool) -> Self {
        let part = |number: u64| u32::try_from(number >> shift & 0xffff_ffff).unwrap_or_default();
        Self {
            argument: test.index,
            high,
            how: test.how,
            mask: part(test.mask),
            value: part(test.value),
        }
    }

    /// What the comparison comes down to: the same for an operator and its negation, and for
    /// all orderings of a high half.
    fn kind(&self) -> Operator {
        match self.how {
            Operator::Equal | Operator::NotEqual => Operator::Equal,
            Operator::MaskedEqual => Operator::MaskedEqual,
            _ if self.high => Operator::Greater,
            Operator::Greater | Operator::LessOrEqual => Operator::Greater,
            Operator::GreaterOrEqual | Operator::Less => Operator::GreaterOrEqual,
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        let facts = |node: &Self| (node.argument, node.high, node.kind(), node.mask, node.value);
        facts(self) == facts(other)
    }

    /// Nodes with a greater rank are looked at first.
    fn rank(&self) -> (u32, bool, u8, u32) {
        let (class, value) = match self.how {
            Operator::Equal | Operator::NotEqual | Operator::MaskedEqual => (3, self.value),
            Operator::Less | Operator::LessOrEqual => (2, !self.value),
            Operator::Greater | Operator::GreaterOrEqual => (1, self.value),
        };
        (self.argument, self.high, class, value)
    }
}

/// Clauses that share what was tested so far.
#[derive(Debug, Default)]
struct Level {
    /// The clause that tests nothing more.
    ends: Option<Clause>,
    next: Vec<(Node, Level)>,
}

impl Level {
    fn place(&mut self, nodes: &[Node], clause: Clause) {
        let Some((first, rest)) = nodes.split_first() else {
            self.ends.get_or_insert(clause);
            return;
        };
        let at = self
            .next
            .iter()
            .position(|(node, _)| node.is_same(first) || node.rank() < first.rank())
            .unwrap_or(self.next.len());
        let known = self
            .next
            .get(at)
            .is_some_and(|(node, _)| node.is_same(first));
        if !known {
            self.next.insert(at, (*first, Self::default()));
        }
        if let Some((_, level)) = self.next.get_mut(at) {
            level.place(rest, clause);
        }
    }

    fn flatten(self, into: &mut Vec<Clause>) {
        into.extend(self.ends);
        for (_, level) in self.next {
            level.flatten(into);
        }
    }
}
