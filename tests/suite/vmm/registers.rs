//! What a guest finds where its devices are.

use serde_json::json;

use super::Machine;
use super::guest::Guest;
use crate::need;

const WINDOW: u32 = 0xd000_0000;
const STATUS: u32 = 0x70;

#[test]
fn a_device_answers_in_its_window_and_nobody_in_the_next() {
    need!(kvm);
    let guest = Guest::new()
        .tells(WINDOW)
        .tells(WINDOW + 8)
        .tells(WINDOW + 0x1000)
        .off();
    let machine = Machine::of(&guest.pvh()).with("rng", json!(true));
    let ended = machine.run();
    assert_eq!(ended.status, 0, "{}", ended.complaint);
    let expected = [&b"virt"[..], &[4, 0, 0, 0], &[0xff; 4]].concat();
    assert_eq!(machine.said(), expected);
}

#[test]
fn a_register_keeps_what_a_driver_writes() {
    need!(kvm);
    let guest = Guest::new()
        .pokes(WINDOW + STATUS, 1)
        .pokes(WINDOW + STATUS, 3)
        .tells(WINDOW + STATUS)
        .off();
    let machine = Machine::of(&guest.pvh()).with("rng", json!(true));
    let ended = machine.run();
    assert_eq!(ended.status, 0, "{}", ended.complaint);
    assert_eq!(machine.said(), [3, 0, 0, 0]);
}
