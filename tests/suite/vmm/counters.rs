//! What a machine has done, read by somebody else.

use bulkhead::enclosure::counters::machine::MachineCounters;

use super::Machine;
use super::guest::Guest;
use crate::need;
use crate::support::home::eventually;

#[test]
fn the_exits_of_a_guest_are_counted_and_read_from_outside() {
    need!(kvm, root);
    let guest = Guest::new().says(&"x".repeat(50)).stands();
    let machine = Machine::of(&guest.pvh());
    let mut child = machine.start();
    eventually("the guest's last word", || machine.said().len() == 50);
    let counters = MachineCounters::of(i32::try_from(child.id()).unwrap()).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(counters.exits >= 50, "{counters:?}");
}
