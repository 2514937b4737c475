//! Compiles device rules into a program for `BPF_PROG_TYPE_CGROUP_DEVICE`.
//!
//! The kernel asks about one device and a set of accesses at a time. The rules are gone through from the last to the
//! first with the set of accesses that no rule has decided yet: a denying rule that matches and shares one of them
//! answers no; an allowing rule that matches takes its accesses out, and answers yes once none is left. Whatever is
//! left at the end is denied.
//!
//! The kernel's verifier goes every way through a program before it takes it, and once more from where ways meet if it
//! has learnt something different of a register on each. So no register that a later rule reads is ever compared:
//! the differences are gathered in another, and each rule has one jump on that. A branch for each number would teach
//! it all combinations; for the usual rules it then took ten times as long as to make the cgroup itself. One that means a
//! single character device, as most do, or all of one major number, is a single comparison.

use crate::plan::cgroup::device::ALL_ACCESS;
use crate::plan::cgroup::device::Kind;
use crate::plan::cgroup::device::Rule;

/// Instructions of eBPF as the kernel takes them: opcode, registers, offset and immediate in 64 bits.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Program {
    /// The instructions, one a number in the byte order of this machine.
    pub instructions: Vec<u64>,
}

/// `BPF_LDX | BPF_MEM | BPF_W`: a register from 32 bits of the context.
pub(super) const LOAD: u8 = 0x61;
/// `BPF_ALU64 | BPF_MOV | BPF_X`.
pub(super) const COPY: u8 = 0xbf;
/// `BPF_ALU64 | BPF_MOV | BPF_K`.
pub(super) const SET: u8 = 0xb7;
/// `BPF_ALU | BPF_AND | BPF_K`.
pub(super) const AND: u8 = 0x54;
/// `BPF_ALU | BPF_OR | BPF_X`.
pub(super) const OR_WITH: u8 = 0x4c;
/// `BPF_ALU | BPF_XOR | BPF_K`.
pub(super) const DIFFER: u8 = 0xa4;
/// `BPF_ALU | BPF_RSH | BPF_K`.
pub(super) const SHIFT_RIGHT: u8 = 0x74;
/// `BPF_JMP32 | BPF_JNE | BPF_K`.
pub(super) const JUMP_IF_OTHER: u8 = 0x56;
/// `BPF_JMP32 | BPF_JEQ | BPF_K`.
pub(super) const JUMP_IF_EQUAL: u8 = 0x16;
/// `BPF_ALU64 | BPF_OR | BPF_X`.
pub(super) const JOIN: u8 = 0x4f;
/// `BPF_ALU64 | BPF_LSH | BPF_K`.
pub(super) const SHIFT_LEFT_WIDE: u8 = 0x67;
/// `BPF_JMP | BPF_JNE | BPF_K`, of 64 bits.
pub(super) const JUMP_IF_OTHER_WIDE: u8 = 0x55;
/// `BPF_JMP | BPF_JEQ | BPF_K`, of 64 bits.
pub(super) const JUMP_IF_EQUAL_WIDE: u8 = 0x15;
/// `BPF_JMP | BPF_EXIT`.
pub(super) const EXIT: u8 = 0x95;

/// Where the answer goes.
const ANSWER: u8 = 0;
/// Where the context is at the start: `{access << 16 | kind, major, minor}`, 32 bits each.
const CONTEXT: u8 = 1;
/// The kind of device.
const KIND: u8 = 2;
/// The accesses that are not decided yet.
const UNDECIDED: u8 = 3;
/// The device's major number.
const MAJOR: u8 = 4;
/// The device's minor number.
const MINOR: u8 = 5;
/// For what one rule needs.
const SCRATCH: u8 = 6;
/// For one difference more.
const ANOTHER: u8 = 7;
/// The device's number as the kernel has it (`MKDEV`), and above that what is not 0 unless it is a character device.
const CHARACTER: u8 = 8;
/// The same of its major number alone.
const CHARACTER_MAJOR: u8 = 9;

/// Bits of a minor number (`MINORBITS`), and of both.
const MINOR_BITS: u32 = 20;
const BITS: u32 = 32;
/// Of so many rules one instruction can jump over all.
const NEAR: usize = 1024;

const fn instruction(opcode: u8, to: u8, from: u8, offset: i16, immediate: i32) -> u64 {
    let [offset_low, offset_high] = offset.to_le_bytes();
    let [a, b, c, d] = immediate.to_le_bytes();
    u64::from_le_bytes([
        opcode,
        to | (from << 4),
        offset_low,
        offset_high,
        a,
        b,
        c,
        d,
    ])
}

/// Compiles `rules`.
pub(super) fn compile(rules: &[Rule]) -> Program {
    let mut instructions = vec![
        instruction(LOAD, KIND, CONTEXT, 0, 0),
        instruction(COPY, UNDECIDED, KIND, 0, 0),
        instruction(SHIFT_RIGHT, UNDECIDED, 0, 0, 16),
        instruction(AND, KIND, 0, 0, 0xffff),
        instruction(LOAD, MAJOR, CONTEXT, 4, 0),
        instruction(LOAD, MINOR, CONTEXT, 8, 0),
    ];
    if rules.iter().any(|rule| of_character(rule).is_some()) {
        instructions.extend(join_character());
    }
    let last_that_matters = rules.iter().rposition(Rule::is_blanket).unwrap_or_default();
    let (ends, rest) = match rules.get(last_that_matters) {
        Some(rule) if rule.is_blanket() => (rule.allow, &rules[last_that_matters + 1..]),
        _ => (false, rules),
    };
    let end_is_near = rest.len() <= NEAR;
    let mut to_the_end = Vec::new();
    for rule in rest.iter().rev() {
        match of_character(rule) {
            Some((register, number)) if end_is_near && allows_all(rule) => {
                to_the_end.push(instructions.len());
                instructions.push(instruction(JUMP_IF_EQUAL_WIDE, register, 0, 0, number));
            }
            _ => instructions.extend(one_rule(rule)),
        }
    }
    instructions.extend(answer(ends));
    let end = instructions.len();
    for at in &to_the_end {
        let over = offset(end.saturating_sub(at + 1));
        // It begins at the third byte.
        instructions[*at] |= u64::from(over.cast_unsigned()) << 16;
    }
    // The kernel takes no program with instructions that nothing leads to.
    if !to_the_end.is_empty() {
        instructions.extend(answer(true));
    }
    Program { instructions }
}

fn allows_all(rule: &Rule) -> bool {
    rule.allow && rule.access == ALL_ACCESS
}

/// Puts together what rules for character devices are compared with.
fn join_character() -> [u64; 7] {
    [
        instruction(COPY, CHARACTER, KIND, 0, 0),
        instruction(DIFFER, CHARACTER, 0, 0, said(Kind::Character)),
        instruction(
            SHIFT_LEFT_WIDE,
            CHARACTER,
            0,
            0,
            (BITS - MINOR_BITS).cast_signed(),
        ),
        instruction(JOIN, CHARACTER, MAJOR, 0, 0),
        instruction(COPY, CHARACTER_MAJOR, CHARACTER, 0, 0),
        instruction(SHIFT_LEFT_WIDE, CHARACTER, 0, 0, MINOR_BITS.cast_signed()),
        instruction(JOIN, CHARACTER, MINOR, 0, 0),
    ]
}

/// The register and the number in it if a device is the one, or of the major number, that a rule for character devices
/// means. Numbers that no device has, and those that would be taken for negative, are left to the long way.
fn of_character(rule: &Rule) -> Option<(u8, i32)> {
    let major = rule
        .major
        .filter(|major| *major < 1 << (BITS - MINOR_BITS - 1))?;
    let (register, number) = match rule.minor {
        Some(minor) if minor < 1 << MINOR_BITS => (CHARACTER, major << MINOR_BITS | minor),
        Some(_) => return None,
        None => (CHARACTER_MAJOR, major),
    };
    (rule.kind == Some(Kind::Character)).then_some((register, number.cast_signed()))
}

/// The instructions that end with an answer.
fn answer(allow: bool) -> [u64; 2] {
    [
        instruction(SET, ANSWER, 0, 0, i32::from(allow)),
        instruction(EXIT, 0, 0, 0, 0),
    ]
}

/// One rule: a jump behind the block if the rule does not match, then what it decides.
fn one_rule(rule: &Rule) -> Vec<u64> {
    let decision = if rule.allow {
        allow(rule.access)
    } else {
        deny(rule.access)
    };
    let behind = offset(decision.len());
    let mut block = Vec::new();
    if let Some((register, number)) = of_character(rule) {
        block.push(instruction(JUMP_IF_OTHER_WIDE, register, 0, behind, number));
    } else {
        block.extend(differences(rule));
        if !block.is_empty() {
            block.push(instruction(JUMP_IF_OTHER, SCRATCH, 0, behind, 0));
        }
    }
    block.extend(decision);
    block
}

/// How a kind of device is said to the program (`BPF_DEVCG_DEV_BLOCK`, `BPF_DEVCG_DEV_CHAR`).
const fn said(kind: Kind) -> i32 {
    match kind {
        Kind::Block => 1,
        Kind::Character => 2,
    }
}

/// Leaves 0 in a register if the device is the one that the rule means.
fn differences(rule: &Rule) -> Vec<u64> {
    let tests = [
        (KIND, rule.kind.map(said)),
        (MAJOR, rule.major.map(u32::cast_signed)),
        (MINOR, rule.minor.map(u32::cast_signed)),
    ];
    let mut block = Vec::new();
    for (register, wanted) in tests {
        let Some(wanted) = wanted else { continue };
        let first = block.is_empty();
        let into = if first { SCRATCH } else { ANOTHER };
        block.push(instruction(COPY, into, register, 0, 0));
        block.push(instruction(DIFFER, into, 0, 0, wanted));
        if !first {
            block.push(instruction(OR_WITH, SCRATCH, ANOTHER, 0, 0));
        }
    }
    block
}

fn allow(access: u8) -> Vec<u64> {
    if access == ALL_ACCESS {
        return answer(true).to_vec();
    }
    let mut block = vec![
        instruction(AND, UNDECIDED, 0, 0, i32::from(!access & ALL_ACCESS)),
        instruction(JUMP_IF_OTHER, UNDECIDED, 0, 2, 0),
    ];
    block.extend(answer(true));
    block
}

fn deny(access: u8) -> Vec<u64> {
    if access == ALL_ACCESS {
        return answer(false).to_vec();
    }
    let mut block = vec![
        instruction(COPY, SCRATCH, UNDECIDED, 0, 0),
        instruction(AND, SCRATCH, 0, 0, i32::from(access)),
        instruction(JUMP_IF_EQUAL, SCRATCH, 0, 2, 0),
    ];
    block.extend(answer(false));
    block
}

/// What a rule decides has at most five instructions, and what [`NEAR`] rules are less than 20 each, so this always fits.
fn offset(instructions: usize) -> i16 {
    i16::try_from(instructions).unwrap_or(i16::MAX)
}
