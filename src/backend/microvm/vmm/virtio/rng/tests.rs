//! A guest gets random numbers, and not this process's memory.

use crate::backend::microvm::vmm::virtio::rng::Rng;
use crate::backend::microvm::vmm::virtio::testing::BUFFERS;
use crate::backend::microvm::vmm::virtio::testing::Descriptor;
use crate::backend::microvm::vmm::virtio::testing::Guest;
use crate::backend::microvm::vmm::virtio::testing::INDIRECT;
use crate::backend::microvm::vmm::virtio::testing::NEXT;
use crate::backend::microvm::vmm::virtio::testing::WRITE;
use crate::backend::microvm::vmm::virtio::testing::hostile;
use crate::backend::microvm::vmm::virtio::testing::random;

#[test]
fn all_the_room_is_filled_and_never_the_same() {
    let mut guest = Guest::ready(Rng::new().unwrap());
    let mut seen = Vec::new();
    for _ in 0..3 {
        let used = guest.ask(0, &[], &[(BUFFERS, 64), (BUFFERS + 0x100, 64)]);
        assert_eq!(used, 128);
        seen.push([guest.get(BUFFERS, 64), guest.get(BUFFERS + 0x100, 64)].concat());
    }
    seen.push(vec![0; 128]);
    seen.dedup();
    assert_eq!(seen.len(), 4);
}

#[test]
fn room_that_overlaps_a_thousand_times_costs_no_more_than_64_kib() {
    let mut guest = Guest::ready(Rng::new().unwrap());
    let table: Vec<u8> = (0..1000_u16)
        .flat_map(|index| {
            let more = if index < 999 { NEXT } else { 0 };
            let one = Descriptor {
                address: BUFFERS,
                length: 0x4_0000,
                flags: WRITE | more,
                next: index + 1,
            };
            one.bytes()
        })
        .collect();
    guest.put(BUFFERS + 0x4_0000, &table);
    let head = Descriptor {
        address: BUFFERS + 0x4_0000,
        length: 16_000,
        flags: INDIRECT,
        next: 0,
    };
    guest.describe(0, 0, head);
    guest.offer_head(0, 0);
    guest.kick(0);
    assert_eq!(guest.answer(0), (0, 64 << 10));
}

#[test]
fn no_driver_confuses_it() {
    hostile::survives(|| Rng::new().unwrap(), &[0]);
}

#[test]
fn a_mad_driver_does_not_break_it_for_its_successor() {
    random::survives(|| Rng::new().unwrap());
}
