//! Memory of a guest on both sides of the devices, and as many processors as there may be.

use serde_json::json;

use super::Machine;
use super::guest::Guest;
use crate::need;

/// The second of the page tables that a guest in 64 bits begins with: entries of 1 GiB each.
const DIRECTORIES: u32 = 0xa000;
/// A page that nobody uses, for a table of the guest's own.
const TABLE: u32 = 0xd000;
/// Where the guest sees what is above the devices: its second GiB.
const SEEN: u32 = 0x4000_0000;

/// A guest that maps the memory at an address as its second GiB.
fn mapping(high: u32, low: u32) -> Guest {
    /// Present and writable; and the same of a page of 2 MiB.
    const TABLE_OF: u32 = 0b11;
    const PAGE: u32 = 0b1000_0011;
    Guest::new()
        .pokes(TABLE, low | PAGE)
        .pokes(TABLE + 4, high)
        .pokes(DIRECTORIES + 8, TABLE | TABLE_OF)
        .pokes(DIRECTORIES + 12, 0)
}

#[test]
fn memory_goes_on_above_the_devices() {
    need!(kvm);
    let guest = mapping(1, 0)
        .tells(SEEN)
        .pokes(SEEN, 0x6c6c_6577)
        .tells(SEEN)
        .off();
    let machine = Machine::of(&guest.linux()).with("memory", json!(4_u64 << 30));
    let ended = machine.run();
    assert_eq!((ended.status, ended.complaint.as_str()), (0, ""));
    assert_eq!(machine.said(), b"\0\0\0\0well");
}

#[test]
fn memory_up_to_the_devices_is_memory_and_behind_all_of_it_is_nobody() {
    need!(kvm);
    let last = mapping(0, 0xbfe0_0000)
        .pokes(SEEN + 0x1f_fffc, 0x6c6c_6577)
        .tells(SEEN + 0x1f_fffc)
        .off();
    let machine = Machine::of(&last.linux()).with("memory", json!(4_u64 << 30));
    assert_eq!(machine.run().status, 0);
    assert_eq!(machine.said(), b"well");
    let beyond = mapping(1, 0x4000_0000)
        .pokes(SEEN, 0x6c6c_6577)
        .tells(SEEN)
        .off();
    let machine = Machine::of(&beyond.linux()).with("memory", json!(4_u64 << 30));
    assert_eq!(machine.run().status, 0);
    assert_eq!(machine.said(), [0xff; 4]);
}

#[test]
fn there_may_be_thirty_two_processors() {
    need!(kvm);
    let guest = Guest::new().says("all here\n").off();
    let ended = Machine::of(&guest.pvh()).with("vcpus", json!(32)).run();
    assert_eq!((ended.status, ended.complaint.as_str()), (0, ""));
    assert_eq!(ended.serial, "all here\n");
}

#[test]
fn huge_pages_that_are_not_there_are_named_with_the_way_out() {
    need!(kvm);
    let guest = Guest::new().off();
    let machine = Machine::of(&guest.pvh())
        .with("hugepages", json!(true))
        .with("memory", json!(1_u64 << 40));
    let ended = machine.run();
    assert_eq!(ended.status, 1, "{}", ended.serial);
    let words = "bulkhead @vmm: memory: 1099511627776 bytes cannot be had in huge pages";
    assert!(ended.complaint.starts_with(words), "{}", ended.complaint);
    assert!(
        ended.complaint.contains("vm.nr_hugepages"),
        "{}",
        ended.complaint
    );
}
