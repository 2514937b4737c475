//! What a machine costs the host when its guest does nothing, and when it does nothing but speak.

use std::time::Duration;
use std::time::Instant;

use serde_json::json;

use super::Machine;
use super::guest::Guest;
use super::jail::end;
use super::jail::standing;
use crate::need;
use crate::support::home::eventually;
use crate::support::processor::used;

/// How long a guest is looked at that does nothing.
const WATCHED: Duration = Duration::from_secs(3);

/// A guest that writes so many bytes to its serial port and then stands still.
fn flood(count: u32) -> Guest {
    let [a, b, c, d] = count.to_le_bytes();
    let [low, high] = 0x3f8_u16.to_le_bytes();
    // mov dx, SERIAL; mov al, 'x'; mov ecx, count; out dx, al; loop to the out
    Guest::new()
        .code(&[0x66, 0xba, low, high, 0xb0, b'x'])
        .code(&[0xb9, a, b, c, d, 0xee, 0xe2, 0xfd])
        .stands()
}

/// Kibibytes of a process that are its own, the guest's memory not among them.
fn own_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.unwrap().split_whitespace().next();
    number.unwrap().parse().unwrap()
}

#[test]
fn a_guest_that_floods_its_port_costs_no_memory_and_a_bounded_log_that_counts() {
    need!(kvm, root);
    const LIMIT: usize = 4096;
    let guest = flood(150_000);
    let machine = Machine::of(&guest.pvh());
    let log = json!({"to": {"path": machine.path("serial")}, "limit": LIMIT});
    let machine = machine.with("serial", log);
    let child = standing(&machine);
    eventually("the first words", || machine.said().len() > 100);
    let before = own_memory(child.id());
    let note = |lost: u32| format!("\n[the limit of this log: {lost} bytes more were not kept]\n");
    eventually("two steps of the counter", || {
        String::from_utf8_lossy(&machine.said()).ends_with(&note(2 << 16))
    });
    let after = own_memory(child.id());
    assert_eq!(machine.said().len(), LIMIT + note(2 << 16).len());
    assert!(after < before + 1024, "{before} KiB, then {after} KiB");
    end(child);
}

#[test]
fn a_machine_whose_guest_stands_still_uses_no_processor() {
    need!(kvm, root);
    let guest = Guest::new().says("here\n").stands();
    let machine = Machine::of(&guest.pvh())
        .with("vcpus", json!(4))
        .with("rng", json!(true))
        .with("balloon", json!({}));
    let child = standing(&machine);
    eventually("the guest's last word", || machine.said() == b"here\n");
    let before = used(child.id());
    // Not a wait for anything: it is what is measured.
    std::thread::park_timeout(WATCHED);
    let used = used(child.id()) - before;
    assert!(used < WATCHED / 100, "{used:?}");
    end(child);
}

#[test]
fn a_machine_at_rest_that_its_timer_wakes_uses_less_than_a_hundredth_of_a_processor() {
    need!(kvm, root);
    const PERIOD: Duration = Duration::from_millis(40);
    let guest = Guest::new().rests(u32::try_from(PERIOD.as_nanos()).unwrap());
    let machine = Machine::of(&guest.pvh())
        .with("rng", json!(true))
        .with("balloon", json!({}));
    let child = standing(&machine);
    eventually("the first wakes", || machine.said().len() > 5);
    let (before, said) = (used(child.id()), machine.said().len());
    let began = Instant::now();
    // Not a wait for anything: it is what is measured.
    std::thread::park_timeout(WATCHED);
    let (used, took) = (used(child.id()) - before, began.elapsed());
    let woken = machine.said().len() - said;
    let due = took.as_millis() / PERIOD.as_millis();
    assert!(woken as u128 * 2 > due, "woken {woken} times and not {due}");
    assert!(used < took / 100, "{used:?} of {took:?}");
    end(child);
}
