//! The program and the rules give the same answers: the one is run, the other is read.

use proptest::prelude::*;

use super::*;
use crate::plan::cgroup::device::program::*;

/// What the rules say, as their documentation does: of those that match, the last decides, for each access alone.
fn by_the_rules(rules: &[Rule], device: Device) -> bool {
    ACCESS
        .iter()
        .filter(|(_, bit)| device.access & bit != 0)
        .all(|(_, bit)| {
            rules
                .iter()
                .rfind(|rule| {
                    rule.access & bit != 0
                        && rule.kind.is_none_or(|kind| kind == device.kind)
                        && rule.major.is_none_or(|major| major == device.major)
                        && rule.minor.is_none_or(|minor| minor == device.minor)
                })
                .is_some_and(|rule| rule.allow)
        })
}

/// One question of the kernel's.
#[derive(Debug, Clone, Copy)]
struct Device {
    kind: Kind,
    major: u32,
    minor: u32,
    access: u8,
}

/// What the program says, run instruction by instruction.
fn by_the_program(program: &Program, device: Device) -> bool {
    let kind = match device.kind {
        Kind::Block => 1,
        Kind::Character => 2,
    };
    let context = [
        u32::from(device.access) << 16 | kind,
        device.major,
        device.minor,
    ];
    let mut registers = [0_u64; 11];
    let mut at = 0;
    loop {
        let [opcode, names, low, high, a, b, c, d] = program.instructions[at].to_le_bytes();
        let (to, from) = (usize::from(names & 15), usize::from(names >> 4));
        let offset = usize::from(u16::from_le_bytes([low, high]));
        let immediate = u32::from_le_bytes([a, b, c, d]);
        let wide = i64::from(immediate.cast_signed()).cast_unsigned();
        let narrow = u32::try_from(registers[to] & 0xffff_ffff).unwrap();
        at += 1;
        match opcode {
            LOAD => registers[to] = u64::from(context[offset / 4]),
            COPY => registers[to] = registers[from],
            SET => registers[to] = u64::from(immediate),
            AND => registers[to] = u64::from(narrow & immediate),
            OR_WITH => registers[to] = u64::from(narrow) | (registers[from] & 0xffff_ffff),
            DIFFER => registers[to] = u64::from(narrow ^ immediate),
            SHIFT_RIGHT => registers[to] = u64::from(narrow >> immediate),
            SHIFT_LEFT_WIDE => registers[to] <<= immediate,
            JOIN => registers[to] |= registers[from],
            JUMP_IF_OTHER_WIDE if registers[to] != wide => at += offset,
            JUMP_IF_EQUAL_WIDE if registers[to] == wide => at += offset,
            JUMP_IF_OTHER_WIDE | JUMP_IF_EQUAL_WIDE => {}
            JUMP_IF_OTHER if narrow != immediate => at += offset,
            JUMP_IF_EQUAL if narrow == immediate => at += offset,
            JUMP_IF_OTHER | JUMP_IF_EQUAL => {}
            EXIT => return registers[0] != 0,
            other => panic!("opcode {other:#x}"),
        }
    }
}

fn any_kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Block), Just(Kind::Character)]
}

/// Few numbers, so that rules and devices meet.
fn any_number() -> impl Strategy<Value = u32> {
    let edges = prop_oneof![
        2047..2049_u32,
        Just(4095),
        Just((1 << 20) - 1),
        Just(u32::MAX)
    ];
    prop_oneof![4 => 0..3_u32, 1 => edges]
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let number = || proptest::option::of(any_number());
    (
        any::<bool>(),
        proptest::option::of(any_kind()),
        number(),
        number(),
        1..8_u8,
    )
        .prop_map(|(allow, kind, major, minor, access)| Rule {
            allow,
            kind,
            major,
            minor,
            access,
        })
}

/// Numbers that the kernel has: 12 bits of one, 20 of the other.
fn any_device() -> impl Strategy<Value = Device> {
    let major = prop_oneof![4 => 0..3_u32, 1 => 2047..2049_u32, 1 => Just(4095)];
    let minor = prop_oneof![4 => 0..3_u32, 1 => Just((1 << 20) - 1)];
    (any_kind(), major, minor, 1..8_u8).prop_map(|(kind, major, minor, access)| Device {
        kind,
        major,
        minor,
        access,
    })
}

proptest! {
    #[test]
    fn the_program_answers_as_the_rules_do(
        rules in proptest::collection::vec(any_rule(), 0..8),
        devices in proptest::collection::vec(any_device(), 1..32),
    ) {
        let program = compile(&rules);
        for device in devices {
            prop_assert_eq!(
                by_the_program(&program, device),
                by_the_rules(&rules, device),
                "{:?}", device
            );
        }
    }
}

fn asked(allow: bool, kind: &str, numbers: [i64; 2], access: &str) -> DeviceRule {
    DeviceRule {
        allow,
        kind: Some(kind.to_owned()),
        major: Some(numbers[0]),
        minor: Some(numbers[1]),
        access: access.to_owned(),
    }
}

fn may_read(filter: &DeviceFilter, kind: Kind, major: u32, minor: u32) -> bool {
    by_the_program(
        &filter.program(),
        Device {
            kind,
            major,
            minor,
            access: 2,
        },
    )
}

#[test]
fn without_rules_only_the_usual_devices_are_open() {
    let filter = DeviceFilter::new(&[]);
    assert!(may_read(&filter, Kind::Character, 1, 3));
    assert!(may_read(&filter, Kind::Character, 136, 7));
    assert!(!may_read(&filter, Kind::Character, 1, 1));
    assert!(!may_read(&filter, Kind::Block, 8, 0));
}

#[test]
fn a_device_may_be_made_that_may_not_be_opened() {
    let program = DeviceFilter::new(&[]).program();
    let disk = Device {
        kind: Kind::Block,
        major: 8,
        minor: 0,
        access: 1,
    };
    assert!(by_the_program(&program, disk));
    assert!(!by_the_program(&program, Device { access: 3, ..disk }));
}

#[test]
fn a_later_rule_wins_over_an_earlier_one() {
    let filter = DeviceFilter::new(&[
        asked(true, "a", [-1, -1], "rwm"),
        asked(false, "b", [8, -1], "rw"),
        asked(true, "b", [8, 1], "r"),
    ]);
    assert!(may_read(&filter, Kind::Block, 8, 1));
    assert!(!may_read(&filter, Kind::Block, 8, 0));
    assert!(may_read(&filter, Kind::Block, 9, 0));
}

#[test]
fn a_bundle_cannot_lock_itself_out_of_the_usual_devices() {
    let filter = DeviceFilter::new(&[asked(false, "a", [-1, -1], "rwm")]);
    assert!(may_read(&filter, Kind::Character, 1, 3));
}

#[test]
fn what_comes_before_a_blanket_rule_is_not_compiled() {
    let blanket = asked(false, "a", [-1, -1], "rwm");
    let before = DeviceFilter::new(&[asked(true, "c", [9, 9], "r"), blanket.clone()]);
    assert_eq!(before.program(), DeviceFilter::new(&[blanket]).program());
}

#[test]
fn only_a_blanket_allowance_without_exception_allows_everything() {
    let everything = asked(true, "a", [-1, -1], "rwm");
    let exception = asked(false, "c", [1, 1], "r");
    assert!(DeviceFilter::new(std::slice::from_ref(&everything)).allows_everything());
    assert!(!DeviceFilter::new(&[everything, exception]).allows_everything());
    assert!(!DeviceFilter::new(&[]).allows_everything());
}

#[test]
fn what_systemd_can_say_it_is_told() {
    let list = DeviceFilter::new(&[
        asked(false, "a", [-1, -1], "rwm"),
        asked(true, "b", [8, 1], "rw"),
        asked(true, "c", [10, -1], "r"),
    ]);
    let list = list.as_list().unwrap();
    let first: Vec<(&str, &str)> = list
        .iter()
        .take(4)
        .map(|(name, access)| (name.as_str(), access.as_str()))
        .collect();
    assert_eq!(
        first,
        [
            ("/dev/block/8:1", "rw"),
            ("char-10", "r"),
            ("char-*", "m"),
            ("block-*", "m")
        ]
    );
}

#[test]
fn what_systemd_cannot_say_it_is_not_told() {
    let hole = [
        asked(true, "c", [10, -1], "r"),
        asked(false, "c", [10, 5], "r"),
    ];
    assert_eq!(DeviceFilter::new(&hole).as_list(), None);
    assert_eq!(
        DeviceFilter::new(&[asked(true, "a", [-1, -1], "rwm")]).as_list(),
        None
    );
    assert_eq!(
        DeviceFilter::new(&[asked(true, "c", [-1, 5], "r")]).as_list(),
        None
    );
}
