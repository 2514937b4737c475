//! Decides what every system call number of one architecture gets, as ranges of numbers.
//!
//! Several rules for one call act as in libseccomp: the first rule without conditions wins over every other,
//! written before or after it; else the first clause that holds (see [`super::clause`]). A rule that returns
//! what the default returns says nothing and is left out, as in runc.

use crate::spec::seccomp::Condition;
use crate::spec::seccomp::Seccomp;

use super::SeccompError;
use super::clause;
use super::clause::Clause;
use super::machine::Machine;
use super::names::Call;
use super::names::Finder;
use super::names::Mux;
use super::returned;
use super::unnamed;

/// What a number gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The same whatever the arguments.
    Returns(u32),
    /// The value of the first clause that holds, else the default. Arguments are of 64 bits where wide.
    Depends { clauses: Vec<Clause>, wide: bool },
}

/// A verdict and the first number that gets it; the next range begins where it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: u32,
    pub(super) verdict: Verdict,
}

/// A profile with its names looked up.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    profile: &'a Seccomp,
    /// What each rule returns.
    values: Vec<u32>,
    /// What calls return that no rule names.
    pub(super) default: u32,
    /// What calls return that are newer than the profile.
    pub(super) newer: u32,
    /// Every known name, in the order written, and the rule it is in.
    named: Vec<(&'static Call, usize)>,
}

/// A call of one architecture that a rule names.
#[derive(Debug, Clone, Copy)]
struct Naming {
    number: u32,
    rule: usize,
    wide: bool,
    /// Operation, where `number` is a multiplexer.
    operation: Option<u32>,
}

impl<'a> Rules<'a> {
    /// Looks every name up; names that no kernel knows are passed over, as in runc.
    pub(super) fn new(profile: &'a Seccomp, default: u32, newer: u32) -> Self {
        let values = profile.syscalls.iter();
        let values = values
            .map(|rule| returned(rule.action, rule.errno_ret))
            .collect();
        let mut finder = Finder::default();
        let mut named = Vec::with_capacity(profile.syscalls.iter().map(|r| r.names.len()).sum());
        for (rule, entry) in profile.syscalls.iter().enumerate() {
            let calls = entry.names.iter().filter_map(|name| finder.find(name));
            named.extend(calls.map(|call| (call, rule)));
        }
        Self {
            profile,
            values,
            default,
            newer,
            named,
        }
    }

    /// The greatest number that the profile names on a machine, multiplexers among them. (runc leaves out
    /// calls that can be multiplexed, and so may answer `ENOSYS` to a call that the profile allows.)
    pub(super) fn newest(&self, machine: &Machine) -> Option<u32> {
        let numbers = self.named.iter().flat_map(|(call, rule)| {
            [
                direct(machine, call, *rule),
                operation(machine, call, *rule),
            ]
        });
        numbers
            .flatten()
            .map(|naming| naming.number)
            .max()
            .filter(|number| *number != 0)
    }

    /// The verdict on each number of machines that share an architecture of the kernel's, without gaps.
    pub(super) fn ranges(&self, machines: &[Machine]) -> Result<Vec<Range>, SeccompError> {
        let mut namings: Vec<Naming> = Vec::with_capacity(self.named.len() + 64);
        for machine in machines {
            for (call, rule) in self
                .named
                .iter()
                .filter(|(_, rule)| !self.says_nothing(*rule))
            {
                namings.extend(operation(machine, call, *rule));
                namings.extend(direct(machine, call, *rule));
            }
        }
        namings.sort_by_key(|naming| naming.number);

        let mut ranges = Ranges::new(unnamed::ranges(self, machines));
        for same in namings.chunk_by(|one, other| one.number == other.number) {
            ranges.name(
                same.first().map_or(0, |naming| naming.number),
                self.verdict(same)?,
            );
        }
        Ok(ranges.finish())
    }

    fn says_nothing(&self, rule: usize) -> bool {
        self.value(rule) == self.default
    }

    fn verdict(&self, namings: &[Naming]) -> Result<Verdict, SeccompError> {
        let plain = |naming: &&Naming| {
            naming.operation.is_none() && self.conditions(naming.rule).is_empty()
        };
        if let Some(naming) = namings.first().filter(plain) {
            return Ok(Verdict::Returns(self.value(naming.rule)));
        }
        let clauses: Vec<Clause> = namings
            .iter()
            .flat_map(|naming| self.clauses(naming))
            .collect();
        if let Some(always) = clauses.iter().find(|clause| clause.tests.is_empty()) {
            return Ok(Verdict::Returns(always.value));
        }
        let wide = namings.first().is_some_and(|naming| naming.wide);
        let clauses = clause::in_order(without_repetition(clauses)?, wide);
        Ok(Verdict::Depends { clauses, wide })
    }

    fn clauses(&self, naming: &Naming) -> impl Iterator<Item = Clause> {
        let Naming {
            rule,
            wide,
            operation,
            ..
        } = *naming;
        let value = self.value(rule);
        clause::of_rule(self.conditions(rule), wide, operation)
            .into_iter()
            .map(move |tests| Clause { tests, value, rule })
    }

    fn value(&self, rule: usize) -> u32 {
        self.values.get(rule).copied().unwrap_or(self.default)
    }

    fn conditions(&self, rule: usize) -> &[Condition] {
        self.profile
            .syscalls
            .get(rule)
            .map_or(&[], |rule| &rule.args)
    }
}

/// Drops clauses that were said before, and refuses those that were said otherwise.
fn without_repetition(clauses: Vec<Clause>) -> Result<Vec<Clause>, SeccompError> {
    let mut kept: Vec<Clause> = Vec::with_capacity(clauses.len());
    for clause in clauses {
        match kept.iter().find(|earlier| earlier.tests == clause.tests) {
            Some(earlier) if earlier.value != clause.value => {
                return Err(SeccompError::Contradiction {
                    rule: clause.rule,
                    other: earlier.rule,
                });
            }
            Some(_) => {}
            None => kept.push(clause),
        }
    }
    Ok(kept)
}

fn direct(machine: &Machine, call: &Call, rule: usize) -> Option<Naming> {
    let number = call.number(machine.column)?;
    Some(Naming {
        number,
        rule,
        wide: machine.wide,
        operation: None,
    })
}

/// The same call by way of `socketcall(2)` or `ipc(2)`.
fn operation(machine: &Machine, call: &Call, rule: usize) -> Option<Naming> {
    let (socketcall, ipc) = machine.multiplexers?;
    let (number, operation) = match call.mux? {
        Mux::Socket(operation) => (socketcall, operation),
        Mux::Ipc(operation) => (ipc, operation),
    };
    Some(Naming {
        number,
        rule,
        wide: machine.wide,
        operation: Some(operation),
    })
}

/// Ranges in the making, by ascending number.
#[derive(Debug)]
struct Ranges {
    done: Vec<Range>,
    /// What numbers get that no rule names, from the number on that is reached.
    unnamed: std::iter::Peekable<std::vec::IntoIter<(u32, u32)>>,
    current: u32,
}

impl Ranges {
    fn new(unnamed: Vec<(u32, u32)>) -> Self {
        let unnamed = unnamed.into_iter().peekable();
        Self {
            done: Vec::with_capacity(256),
            unnamed,
            current: 0,
        }
    }

    /// Gives one number a verdict.
    fn name(&mut self, number: u32, verdict: Verdict) {
        self.catch_up(number);
        self.set(number, verdict);
        if let Some(after) = number.checked_add(1) {
            self.set(after, Verdict::Returns(self.current));
        }
    }

    fn finish(mut self) -> Vec<Range> {
        self.catch_up(u32::MAX);
        self.done
    }

    /// Writes what begins at or before `number`.
    fn catch_up(&mut self, number: u32) {
        while let Some((start, value)) = self.unnamed.next_if(|(start, _)| *start <= number) {
            self.current = value;
            self.set(start, Verdict::Returns(value));
        }
    }

    /// Gives every number from `start` on a verdict.
    fn set(&mut self, start: u32, verdict: Verdict) {
        self.done.pop_if(|last| last.start == start);
        if self.done.last().is_none_or(|last| last.verdict != verdict) {
            self.done.push(Range { start, verdict });
        }
    }
}
