//! How a machine ends, and how its process tells.

use serde_json::json;

use super::Machine;
use super::guest::Guest;
use crate::need;

#[test]
fn a_guest_that_switches_itself_off_ends_well_by_both_entries() {
    need!(kvm);
    let guest = Guest::new().says("hello\n").off();
    for kernel in [guest.linux(), guest.pvh()] {
        let ended = Machine::of(&kernel).run();
        assert_eq!((ended.status, ended.complaint.as_str()), (0, ""));
        assert_eq!(ended.serial, "hello\n");
        let expected = [
            json!({"event": "running"}),
            json!({"event": "ended", "reason": "power-off"}),
        ];
        assert_eq!(ended.events, expected);
    }
}

#[test]
fn a_reset_is_the_end_whichever_way_it_is_asked_for() {
    need!(kvm);
    let by_acpi = Guest::new().out(0x602, 1).stands();
    let by_keyboard = Guest::new().out(0x64, 0xfe).stands();
    for guest in [by_acpi, by_keyboard] {
        let ended = Machine::of(&guest.pvh()).run();
        assert_eq!(ended.status, 3, "{}", ended.complaint);
        assert_eq!(
            ended.events[1],
            json!({"event": "ended", "reason": "reset"})
        );
    }
}

#[test]
fn the_last_words_of_a_kernel_come_with_its_reset() {
    need!(kvm);
    let words = "[    1.0] Kernel panic - not syncing: no init\r\n";
    let guest = Guest::new().says(words).out(0x64, 0xfe).stands();
    let ended = Machine::of(&guest.pvh()).run();
    let expected = json!({"event": "ended", "reason": "reset", "panic": "no init"});
    assert_eq!(ended.events[1], expected);
}

#[test]
fn a_triple_fault_is_the_end() {
    need!(kvm);
    // ud2, with no table to find a handler in.
    let guest = Guest::new().says("now\n").code(&[0x0f, 0x0b]);
    let ended = Machine::of(&guest.linux()).run();
    assert_eq!((ended.status, ended.serial.as_str()), (4, "now\n"));
    let expected = json!({"event": "ended", "reason": "triple-fault"});
    assert_eq!(ended.events[1], expected);
}

#[test]
fn processors_that_nobody_woke_are_called_out_of_their_sleep() {
    need!(kvm);
    let guest = Guest::new().off();
    let ended = Machine::of(&guest.pvh()).with("vcpus", json!(8)).run();
    assert_eq!(ended.status, 0, "{}", ended.complaint);
}

#[test]
fn a_guest_that_floods_its_port_writes_up_to_the_limit() {
    need!(kvm);
    let guest = Guest::new().says(&"x".repeat(100)).off();
    let machine = Machine::of(&guest.pvh());
    let log = json!({"to": {"path": machine.path("serial")}, "limit": 10});
    let ended = machine.with("serial", log).run();
    assert_eq!(ended.status, 0, "{}", ended.complaint);
    let expected = "xxxxxxxxxx\n[the limit of this log: 90 bytes more were not kept]\n";
    assert_eq!(ended.serial, expected);
}

#[test]
fn what_cannot_be_is_named_and_nothing_runs() {
    need!(kvm);
    let guest = Guest::new().off().pvh();
    for (field, value, named) in [
        ("vcpus", json!(33), "vcpus: 33 is not 1 to 32"),
        ("memory", json!(1), "memory: 1 is not"),
        (
            "kernel",
            json!({"path": "/nowhere"}),
            "kernel: cannot open /nowhere",
        ),
        (
            "kernel",
            json!({"fd": 99}),
            "kernel: cannot open descriptor 99",
        ),
        ("kernel", json!({"path": "/proc/self/exe"}), "kernel: "),
        (
            "initramfs",
            json!({"path": "/proc/self/exe"}),
            "initramfs: ",
        ),
        ("colour", json!("blue"), "colour: unknown field"),
    ] {
        let ended = Machine::of(&guest).with(field, value).run();
        let wanted = format!("bulkhead @vmm: {named}");
        assert!(ended.complaint.starts_with(&wanted), "{}", ended.complaint);
        assert_eq!((ended.status, ended.events.len()), (1, 0));
        assert_eq!(ended.complaint.lines().count(), 1, "{}", ended.complaint);
    }
}
