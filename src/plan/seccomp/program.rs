//! Writes classic BPF from the end to the beginning, so that every jump knows how far it goes.
//!
//! A conditional jump reaches 255 instructions. Where its target is farther, an unconditional one, which
//! reaches as far as a program can be long, is put next to it; a far `return` is simply repeated nearby.

use super::SockFilter;

/// How far a conditional jump reaches.
const REACH: usize = 255;

/// Offsets into what the kernel shows a filter (`struct seccomp_data`).
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// Codes of the instructions that `seccomp(2)` allows and we use.
mod code {
    pub(super) const LOAD: u16 = 0x20;
    pub(super) const AND: u16 = 0x54;
    pub(super) const JUMP: u16 = 0x05;
    pub(super) const RETURN: u16 = 0x06;
    pub(super) const IF_EQUAL: u16 = 0x15;
    pub(super) const IF_GREATER: u16 = 0x25;
    pub(super) const IF_GREATER_OR_EQUAL: u16 = 0x35;
}

/// A place in a program that is written backwards: how many instructions follow it, and itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label(usize);

/// A comparison of the accumulator with a constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compare {
    Equal,
    Greater,
    GreaterOrEqual,
}

/// Half of a 64-bit argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    Low,
    High,
}

/// A program of which the end is written.
#[derive(Debug, Default)]
pub(super) struct Program {
    backwards: Vec<SockFilter>,
    /// The return of each value that was written last.
    returns: Vec<(u32, Label)>,
    big_endian: bool,
}

impl Program {
    /// A program for machines of one byte order.
    pub(super) fn new(big_endian: bool) -> Self {
        Self {
            backwards: Vec::with_capacity(512),
            returns: Vec::new(),
            big_endian,
        }
    }

    /// The instructions, first to last.
    pub(super) fn finish(mut self) -> Vec<SockFilter> {
        self.backwards.reverse();
        self.backwards
    }

    /// A place that returns `value`. Must not be asked for between an
    /// instruction and the load before it.
    pub(super) fn returns(&mut self, value: u32) -> Label {
        let known = self.returns.iter_mut().find(|(known, _)| *known == value);
        let length = self.backwards.len();
        match known {
            Some((_, label)) if length - label.0 < REACH - 1 => *label,
            Some((_, label)) => {
                self.backwards.push(SockFilter {
                    code: code::RETURN,
                    jt: 0,
                    jf: 0,
                    k: value,
                });
                *label = Label(length + 1);
                *label
            }
            None => {
                let label = self.push(code::RETURN, value);
                self.returns.push((value, label));
                label
            }
        }
    }

    /// Loads the number of the system call, then goes on.
    pub(super) fn load_number(&mut self) -> Label {
        self.push(code::LOAD, NUMBER)
    }

    /// Loads the architecture, then goes on.
    pub(super) fn load_architecture(&mut self) -> Label {
        self.push(code::LOAD, ARCHITECTURE)
    }

    /// Loads half an argument, masks it where the mask does anything, then goes on.
    pub(super) fn load_argument(&mut self, index: u32, half: Half, mask: u32) -> Label {
        if mask != u32::MAX {
            self.push(code::AND, mask);
        }
        let second = self.big_endian == (half == Half::Low);
        self.push(
            code::LOAD,
            ARGUMENTS + 8 * index + if second { 4 } else { 0 },
        )
    }

    /// Goes one way where the accumulator compares so with `k`, the other where it does not.
    pub(super) fn branch(&mut self, how: Compare, k: u32, then: Label, or: Label) -> Label {
        let then = self.reach(then);
        let or = self.reach(or);
        let code = match how {
            Compare::Equal => code::IF_EQUAL,
            Compare::Greater => code::IF_GREATER,
            Compare::GreaterOrEqual => code::IF_GREATER_OR_EQUAL,
        };
        let jump = SockFilter {
            code,
            jt: self.distance(then),
            jf: self.distance(or),
            k,
        };
        self.backwards.push(jump);
        Label(self.backwards.len())
    }

    fn push(&mut self, code: u16, k: u32) -> Label {
        self.backwards.push(SockFilter {
            code,
            jt: 0,
            jf: 0,
            k,
        });
        Label(self.backwards.len())
    }

    /// A place that leads to `target` and that the next two instructions written can reach.
    fn reach(&mut self, target: Label) -> Label {
        let skipped = self.backwards.len() - target.0;
        if skipped < REACH {
            return target;
        }
        self.push(code::JUMP, u32::try_from(skipped).unwrap_or(u32::MAX))
    }

    /// How many instructions the next one skips to reach `target`.
    fn distance(&self, target: Label) -> u8 {
        u8::try_from(self.backwards.len() - target.0).unwrap_or(u8::MAX)
    }
}
