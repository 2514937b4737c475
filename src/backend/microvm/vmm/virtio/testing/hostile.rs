//! Requests that no driver would make: one table of them, for every device that takes guest addresses.
//!
//! A device joins by one test: `hostile::survives(|| Device::new(..), &[QUEUES])`.

use virtio_bindings::virtio_mmio;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;

use crate::backend::microvm::vmm::virtio::VirtioDevice;
use crate::backend::microvm::vmm::virtio::testing::BUFFERS;
use crate::backend::microvm::vmm::virtio::testing::Descriptor;
use crate::backend::microvm::vmm::virtio::testing::END;
use crate::backend::microvm::vmm::virtio::testing::GAP;
use crate::backend::microvm::vmm::virtio::testing::GAP_END;
use crate::backend::microvm::vmm::virtio::testing::Guest;
use crate::backend::microvm::vmm::virtio::testing::INDIRECT;
use crate::backend::microvm::vmm::virtio::testing::NEXT;
use crate::backend::microvm::vmm::virtio::testing::SIZE;
use crate::backend::microvm::vmm::virtio::testing::WRITE;

/// Where tables of descriptors outside the queue are put.
const TABLE: u64 = BUFFERS + 0x1_0000;

/// What a driver puts into a queue.
enum Case {
    /// Descriptors from the first on; the first is the head.
    Chain(Vec<Descriptor>),
    /// The same in a table of its own, that the head leads to.
    Table(Vec<Descriptor>),
    /// A head alone.
    Head(u16),
    /// More heads than the queue has entries.
    Flood,
}

fn buffer(address: u64, length: u32, flags: u16, next: u16) -> Descriptor {
    Descriptor {
        address,
        length,
        flags,
        next,
    }
}

/// Buffers that are not in memory, or not wholly.
fn places() -> Vec<(&'static str, u64, u32)> {
    vec![
        ("begins just before the gap", GAP - 8, 64),
        ("ends one byte in the gap", GAP - 4096, 4097),
        ("lies in the gap", GAP + 4096, 64),
        ("lies across the gap", GAP - 4096, 0x10_2000),
        ("begins in the gap", GAP_END - 8, 64),
        ("ends behind memory", END - 8, 64),
        ("lies behind memory", END, 1),
        ("goes around", u64::MAX - 8, 64),
        ("is as long as can be", BUFFERS, u32::MAX),
        ("has no bytes", BUFFERS, 0),
    ]
}

fn cases() -> Vec<(String, Case)> {
    let mut cases = Vec::new();
    for (name, address, length) in places() {
        for (way, flags) in [("given", 0), ("room", WRITE)] {
            let bad = buffer(address, length, flags, 0);
            let good = buffer(BUFFERS, 16, flags | NEXT, 1);
            cases.push((format!("{way} {name}"), Case::Chain(vec![bad])));
            cases.push((
                format!("{way}, second {name}"),
                Case::Chain(vec![good, bad]),
            ));
            cases.push((
                format!("{way} in a table {name}"),
                Case::Table(vec![good, bad]),
            ));
        }
        let table = buffer(address, length / 16 * 16, INDIRECT, 0);
        cases.push((format!("a table {name}"), Case::Chain(vec![table])));
    }
    cases.extend(
        chains()
            .into_iter()
            .map(|(name, case)| (name.to_owned(), case)),
    );
    cases
}

fn chains() -> Vec<(&'static str, Case)> {
    let good = |flags, next| buffer(BUFFERS, 16, flags, next);
    let table = |flags| buffer(TABLE, 32, INDIRECT | flags, 1);
    vec![
        ("leads to itself", Case::Chain(vec![good(NEXT, 0)])),
        (
            "goes in a circle",
            Case::Chain(vec![good(NEXT, 1), good(NEXT, 0)]),
        ),
        (
            "goes in a circle of room",
            Case::Chain(vec![good(NEXT | WRITE, 1), good(NEXT | WRITE, 0)]),
        ),
        (
            "leads behind the table",
            Case::Chain(vec![good(NEXT, SIZE)]),
        ),
        (
            "leads far behind the table",
            Case::Chain(vec![good(NEXT, u16::MAX)]),
        ),
        (
            "gives behind room",
            Case::Chain(vec![good(NEXT | WRITE, 1), good(0, 0)]),
        ),
        (
            "goes in a circle in a table",
            Case::Table(vec![good(NEXT, 1), good(NEXT, 0)]),
        ),
        (
            "leads behind its own table",
            Case::Table(vec![good(NEXT, 2), good(0, 0)]),
        ),
        (
            "has a table in a table",
            Case::Table(vec![table(0), good(0, 0)]),
        ),
        (
            "has a table and goes on",
            Case::Chain(vec![table(NEXT), good(0, 0)]),
        ),
        (
            "has a table of half a descriptor",
            Case::Chain(vec![buffer(TABLE, 24, INDIRECT, 0)]),
        ),
        (
            "has a table of too many",
            Case::Chain(vec![buffer(TABLE, 16 << 16, INDIRECT, 0)]),
        ),
        ("has a head behind the table", Case::Head(SIZE)),
        ("has a head far behind the table", Case::Head(u16::MAX)),
        ("is one of too many", Case::Flood),
    ]
}

fn put(guest: &mut Guest, queue: usize, case: &Case) {
    match case {
        Case::Chain(descriptors) => {
            for (index, descriptor) in (0..).zip(descriptors) {
                guest.describe(queue, index, *descriptor);
            }
            guest.offer_head(queue, 0);
        }
        Case::Table(descriptors) => {
            let bytes: Vec<u8> = descriptors.iter().flat_map(|one| one.bytes()).collect();
            guest.put(TABLE, &bytes);
            let length = u32::try_from(bytes.len()).unwrap();
            guest.describe(queue, 0, buffer(TABLE, length, INDIRECT, 0));
            guest.offer_head(queue, 0);
        }
        Case::Head(head) => guest.offer_head(queue, *head),
        Case::Flood => {
            for _ in 0..=SIZE {
                guest.offer_head(queue, 0);
            }
        }
    }
    guest.kick(queue);
}

/// Puts every hostile request into each of `queues` of a device: it says that it needs a reset, tells why, and can be
/// set up again.
pub(crate) fn survives<D: VirtioDevice + 'static>(make: impl Fn() -> D, queues: &[usize]) {
    for queue in queues {
        for (name, case) in cases() {
            let mut guest = Guest::ready(make());
            put(&mut guest, *queue, &case);
            refused(&mut guest, *queue, &name);
            guest.set_up(u64::MAX);
            guest.settle();
            assert_eq!(guest.troubles().len(), 1, "queue {queue}: after {name}");
        }
        let mut guest = Guest::new(make());
        not_agreed_on(&mut guest, *queue);
        twice(&mut guest, *queue);
    }
}

/// The device needs a reset, because of what is in this queue.
fn refused(guest: &mut Guest, queue: usize, name: &str) {
    guest.wait(&format!("refusal of: {name}"), |guest| {
        let status = guest.register(virtio_mmio::VIRTIO_MMIO_STATUS);
        (status == 0x4f).then_some(())
    });
    let told = guest.troubles();
    let expected = format!("queue {queue}: ");
    assert!(told[0].starts_with(&expected), "{name}: {told:?}");
}

/// A table, though the driver did not say that it would have any.
fn not_agreed_on(guest: &mut Guest, queue: usize) {
    guest.set_up(!(1 << VIRTIO_RING_F_INDIRECT_DESC));
    let case = Case::Table(vec![buffer(BUFFERS, 16, WRITE, 0)]);
    put(guest, queue, &case);
    refused(guest, queue, "a table that was not agreed on");
}

/// One request given twice at once: served one after the other, or refused; never both at the same time.
fn twice(guest: &mut Guest, queue: usize) {
    for flags in [0, WRITE] {
        guest.set_up(u64::MAX);
        guest.describe(queue, 0, buffer(BUFFERS, 4096, flags, 0));
        guest.offer_head(queue, 0);
        guest.offer_head(queue, 0);
        guest.kick(queue);
        guest.settle();
    }
}

/// A descriptor that leads to a table.
pub(crate) fn table_of_one() -> Descriptor {
    buffer(TABLE, 16, INDIRECT, 0)
}
