//! A driver gone mad: registers, rings and doorbells in any order, the same ones each time.

use proptest::prelude::Strategy;
use proptest::prop_oneof;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::backend::microvm::vmm::bus::BusDevice;
use crate::backend::microvm::vmm::virtio::VirtioDevice;
use crate::backend::microvm::vmm::virtio::testing::BUFFERS;
use crate::backend::microvm::vmm::virtio::testing::Descriptor;
use crate::backend::microvm::vmm::virtio::testing::END;
use crate::backend::microvm::vmm::virtio::testing::GAP;
use crate::backend::microvm::vmm::virtio::testing::Guest;
use crate::backend::microvm::vmm::virtio::testing::SIZE;

/// One thing that a driver does.
#[derive(Debug, Clone)]
enum Deed {
    Write(u64, Vec<u8>),
    Read(u64, usize),
    Describe(u16, Descriptor),
    Offer(u16),
    Kick,
    Begin,
}

fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => BUFFERS..BUFFERS + 0x2_0000,
        1 => 0..END,
        1 => GAP - 64..GAP + 64,
        1 => proptest::num::u64::ANY,
        // The rings themselves.
        2 => 0x1_0000_u64..0x2_4000,
    ]
}

fn descriptor() -> impl Strategy<Value = Descriptor> {
    let length = prop_oneof![8 => 1..256_u32, 2 => 1..70_000_u32, 1 => proptest::num::u32::ANY];
    let next = prop_oneof![8 => 0..SIZE, 1 => proptest::num::u16::ANY];
    let fields = (address(), length, 0..8_u16, next);
    fields.prop_map(|(address, length, flags, next)| Descriptor {
        address,
        length,
        // Tables are rare, or nearly nothing would be a buffer.
        flags: if flags < 7 { flags & 3 } else { flags },
        next,
    })
}

fn deed() -> impl Strategy<Value = Deed> {
    let register = prop_oneof![4 => 0x30..0x110_u64, 1 => 0..0x1000_u64];
    let value = prop_oneof![
        4 => 0..32_u32,
        2 => 0x1_0000..0x2_4000_u32,
        1 => proptest::num::u32::ANY,
    ];
    let width = prop_oneof![6 => 4..5_usize, 1 => 0..9_usize];
    let write = (register.clone(), value, width.clone()).prop_map(|(offset, value, width)| {
        let mut bytes = u64::from(value).to_le_bytes().to_vec();
        bytes.resize(width, 0);
        Deed::Write(if width == 4 { offset & !3 } else { offset }, bytes)
    });
    prop_oneof![
        3 => write,
        1 => (register, width).prop_map(|(offset, width)| Deed::Read(offset, width)),
        6 => (0..SIZE, descriptor()).prop_map(|(index, one)| Deed::Describe(index, one)),
        4 => prop_oneof![9 => 0..SIZE, 1 => proptest::num::u16::ANY].prop_map(Deed::Offer),
        3 => proptest::strategy::Just(Deed::Kick),
        1 => proptest::strategy::Just(Deed::Begin),
    ]
}

fn doing(guest: &mut Guest, queue: usize, deed: Deed) {
    match deed {
        Deed::Write(offset, bytes) => guest.transport.write(offset, &bytes),
        Deed::Read(offset, width) => guest.transport.read(offset, &mut vec![0; width]),
        Deed::Describe(index, one) => guest.describe(queue, index, one),
        Deed::Offer(head) => guest.offer_head(queue, head),
        Deed::Kick => guest.kick(queue),
        Deed::Begin => guest.set_up(u64::MAX),
    }
}

/// Lets a mad driver at a device, many times; at the end the device works for one in its senses.
pub(crate) fn survives<D: VirtioDevice + 'static>(make: impl Fn() -> D) {
    let mut runner = TestRunner::deterministic();
    let deeds = proptest::collection::vec(deed(), 40..120);
    let queues = make().queue_sizes().len();
    let mut guest = Guest::new(make());
    for round in 0..60 {
        let deeds = deeds.new_tree(&mut runner).unwrap().current();
        guest.set_up(u64::MAX);
        for deed in deeds {
            doing(&mut guest, round % queues, deed);
        }
        guest.set_up(u64::MAX);
        assert_eq!(guest.register(0x70), 0xf, "after round {round}");
    }
}
