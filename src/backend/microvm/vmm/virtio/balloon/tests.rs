//! Pages that a guest gives back are the host's, and no others.

use std::io::Write;
use std::os::unix::fs::MetadataExt;

use vm_memory::GuestMemory;
use vm_memory::GuestMemoryRegion;

use crate::backend::microvm::vmm::bus::BusDevice;
use crate::backend::microvm::vmm::virtio::balloon::Balloon;
use crate::backend::microvm::vmm::virtio::balloon::runs;
use crate::backend::microvm::vmm::virtio::testing::BUFFERS;
use crate::backend::microvm::vmm::virtio::testing::END;
use crate::backend::microvm::vmm::virtio::testing::GAP;
use crate::backend::microvm::vmm::virtio::testing::GAP_END;
use crate::backend::microvm::vmm::virtio::testing::Guest;
use crate::backend::microvm::vmm::virtio::testing::hostile;
use crate::backend::microvm::vmm::virtio::testing::random;

/// Where the pages are that are given back.
const PAGES: u64 = GAP_END + 0x1_0000;
const PAGE: u64 = 4096;

/// How many bytes of the host the guest's memory is.
fn held(guest: &Guest) -> u64 {
    let region = guest.memory.iter().next().unwrap();
    let file = region.file_offset().unwrap().file();
    file.metadata().unwrap().blocks() * 512
}

fn numbers(pages: &[u64]) -> Vec<u8> {
    let numbers = pages.iter().map(|page| u32::try_from(page / PAGE).unwrap());
    numbers.flat_map(u32::to_le_bytes).collect()
}

#[test]
fn pages_in_the_balloon_are_given_back_and_their_neighbours_are_not() {
    let balloon = Balloon::new(true).unwrap();
    let handle = balloon.handle();
    let mut guest = Guest::ready(balloon);
    guest.put(PAGES, &[7; 0x4000]);
    let bytes = numbers(&[PAGES + PAGE, PAGES + 2 * PAGE]);
    guest.put(BUFFERS, &bytes);
    let before = held(&guest);
    guest.ask(0, &[(BUFFERS, bytes.len())], &[]);
    assert_eq!(before - held(&guest), 2 * PAGE);
    assert_eq!(handle.given_back(), 2 * PAGE);
    assert_eq!(guest.get(PAGES, 4096), [7; 4096]);
    assert_eq!(guest.get(PAGES + PAGE, 8192), [0; 8192]);
    assert_eq!(guest.get(PAGES + 3 * PAGE, 4096), [7; 4096]);
    // A page that is taken out again can be used at once.
    guest.ask(1, &[(BUFFERS, bytes.len())], &[]);
    guest.put(PAGES + PAGE, &[9; 4096]);
    assert_eq!(guest.get(PAGES + PAGE, 4096), [9; 4096]);
}

#[test]
fn free_pages_that_are_reported_are_given_back() {
    let mut guest = Guest::ready(Balloon::new(true).unwrap());
    guest.put(PAGES, &[7; 0x4000]);
    let before = held(&guest);
    // Whole pages alone: a report of parts of pages is for their insides.
    guest.ask(2, &[], &[(PAGES, 4096), (PAGES + PAGE + 1, 8192)]);
    assert_eq!(before - held(&guest), 2 * PAGE);
    assert_eq!(guest.get(PAGES + PAGE, 4096), [7; 4096]);
    assert_eq!(guest.get(PAGES + 2 * PAGE, 4096), [0; 4096]);
}

#[test]
fn pages_that_are_not_memory_stop_the_balloon() {
    let mut guest = Guest::ready(Balloon::new(false).unwrap());
    for page in [GAP, GAP_END - PAGE, END, 0xffff_ffff * PAGE] {
        let bytes = numbers(&[page]);
        guest.put(BUFFERS, &bytes);
        guest.offer(0, &[(BUFFERS, 4)], &[]);
        guest.kick(0);
        guest.needs_reset();
        guest.set_up(u64::MAX);
    }
    // Half a number, and more numbers than anybody sends.
    for buffers in [vec![(BUFFERS, 6)], vec![(BUFFERS, 0x8000); 3]] {
        guest.offer(0, &buffers, &[]);
        guest.kick(0);
        guest.needs_reset();
        guest.set_up(u64::MAX);
    }
}

#[test]
fn a_target_is_told_with_an_interrupt_and_answered_in_the_configuration() {
    let balloon = Balloon::new(true).unwrap();
    let handle = balloon.handle();
    let mut guest = Guest::ready(balloon);
    let generation = guest.register(0xfc);
    handle.want(10 * PAGE);
    guest.wait("a target", |guest| {
        (guest.config(0, 4) == [10, 0, 0, 0] && guest.register(0xfc) != generation).then_some(())
    });
    guest.transport.write(0x104, &7_u32.to_le_bytes());
    assert_eq!(handle.actual(), 7 * PAGE);
    guest.status(0);
    assert_eq!(handle.actual(), 0);
}

#[test]
fn the_last_order_from_outside_is_the_target() {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    let mut balloon = Balloon::new(true).unwrap();
    balloon.take_orders(std::os::fd::OwnedFd::from(theirs).into());
    let order = |pages: u64| (&ours).write_all(&(pages * PAGE).to_le_bytes()).unwrap();
    // What was ordered before there was a driver is not lost.
    order(3);
    let mut guest = Guest::ready(balloon);
    let told = |guest: &mut Guest, what: &str, pages: u8| {
        guest.wait(what, |guest| {
            (guest.config(0, 4) == [pages, 0, 0, 0]).then_some(())
        });
    };
    told(&mut guest, "the first order", 3);
    order(8);
    order(5);
    told(&mut guest, "the last order", 5);
}

#[test]
fn numbers_in_either_order_are_one_run() {
    let found = |numbers: &[u64]| runs(numbers.iter().copied());
    assert_eq!(found(&[5, 6, 7]), [(5, 3)]);
    assert_eq!(found(&[7, 6, 5]), [(5, 3)]);
    assert_eq!(found(&[5, 5, 9]), [(5, 1), (5, 1), (9, 1)]);
    assert_eq!(
        found(&[0, u64::from(u32::MAX)]),
        [(0, 1), (u64::from(u32::MAX), 1)]
    );
}

#[test]
fn no_driver_confuses_it() {
    hostile::survives(|| Balloon::new(true).unwrap(), &[0, 1, 2]);
}

#[test]
fn a_mad_driver_does_not_break_it_for_its_successor() {
    random::survives(|| Balloon::new(true).unwrap());
}
