//! A driver cannot leave the order of things.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_mmio;
use vm_memory::Bytes;
use vm_memory::GuestAddress;
use vmm_sys_util::epoll::EventSet;

use crate::backend::microvm::vmm::bus::BusDevice;
use crate::backend::microvm::vmm::virtio::Activation;
use crate::backend::microvm::vmm::virtio::DeviceError;
use crate::backend::microvm::vmm::virtio::RING_FEATURES;
use crate::backend::microvm::vmm::virtio::Ring;
use crate::backend::microvm::vmm::virtio::VirtioDevice;
use crate::backend::microvm::vmm::virtio::Watch;
use crate::backend::microvm::vmm::virtio::read_bytes;
use crate::backend::microvm::vmm::virtio::testing::BUFFERS;
use crate::backend::microvm::vmm::virtio::testing::END;
use crate::backend::microvm::vmm::virtio::testing::GAP;
use crate::backend::microvm::vmm::virtio::testing::GAP_END;
use crate::backend::microvm::vmm::virtio::testing::Guest;
use crate::backend::microvm::vmm::virtio::testing::STAGES;
use crate::backend::microvm::vmm::virtio::testing::hostile;
use crate::backend::microvm::vmm::virtio::testing::random;

/// A device that gives back what it is given, in capitals.
#[derive(Default)]
struct Shouter {
    ring: Option<Ring>,
    written: [u8; 8],
    activations: Arc<AtomicU64>,
}

impl VirtioDevice for Shouter {
    fn kind(&self) -> u32 {
        42
    }

    fn queue_sizes(&self) -> &[u16] {
        &[256, 64]
    }

    fn features(&self) -> u64 {
        RING_FEATURES | 1
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_bytes(&self.written, offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        if let (0, Ok(bytes)) = (offset, data.try_into()) {
            self.written = bytes;
        }
    }

    fn activate(
        &mut self,
        mut activation: Activation,
        watch: &mut Watch<'_>,
    ) -> Result<(), DeviceError> {
        let ring = activation.ring(0)?;
        watch.ring(&ring)?;
        self.activations.fetch_add(1, Ordering::SeqCst);
        self.ring = Some(ring);
        Ok(())
    }

    fn process(&mut self, _: u32, _: EventSet, _: &mut Watch<'_>) -> Result<(), DeviceError> {
        let ring = self.ring.as_mut().unwrap();
        while let Some(chain) = ring.pop()? {
            let memory = ring.memory().clone();
            let mut reader = chain.reader(&memory);
            let length = reader.left().min(chain.writer(&memory).left());
            let mut bytes = vec![0; length];
            reader.read(&mut bytes)?;
            bytes.make_ascii_uppercase();
            chain.writer(&memory).write(&bytes)?;
            ring.push(chain.head(), u32::try_from(length).unwrap())?;
        }
        ring.listen()?;
        Ok(ring.notify()?)
    }

    fn reset(&mut self) {
        self.ring = None;
    }
}

fn shouts(guest: &mut Guest) -> bool {
    guest.put(BUFFERS, b"hello");
    let used = guest.ask(0, &[(BUFFERS, 2), (BUFFERS + 2, 3)], &[(BUFFERS + 64, 8)]);
    used == 5 && guest.get(BUFFERS + 64, 5) == b"HELLO"
}

#[test]
fn a_device_is_found_set_up_and_used() {
    let mut guest = Guest::new(Shouter::default());
    let seen: Vec<u32> = [0, 4, 8].map(|offset| guest.register(offset)).to_vec();
    assert_eq!(seen, [0x7472_6976, 2, 42]);
    guest.set_up(u64::MAX);
    assert!(shouts(&mut guest));
    assert!(shouts(&mut guest));
}

#[test]
fn a_ring_without_event_indices_and_tables_works_too() {
    let mut guest = Guest::new(Shouter::default());
    guest.set_up(1 << VIRTIO_F_VERSION_1);
    for _ in 0..40 {
        assert!(shouts(&mut guest));
    }
}

#[test]
fn a_device_that_was_reset_can_be_used_again() {
    let mut guest = Guest::ready(Shouter::default());
    assert!(shouts(&mut guest));
    guest.status(0);
    assert_eq!(guest.register(virtio_mmio::VIRTIO_MMIO_STATUS), 0);
    assert_eq!(guest.register(virtio_mmio::VIRTIO_MMIO_QUEUE_READY), 0);
    guest.set_up(u64::MAX);
    assert!(shouts(&mut guest));
}

/// Brings a new driver to a stage; it does what it must before the next.
fn brought_to(guest: &mut Guest, stages: &[u32]) {
    guest.status(0);
    for stage in stages {
        if *stage == 11 {
            guest.choose(1 << VIRTIO_F_VERSION_1);
        }
        guest.status(*stage);
        if *stage == 11 {
            assert!(guest.set_up_queue(0, 16));
        }
    }
}

#[test]
fn every_status_but_the_next_one_is_as_if_it_were_not_written() {
    let mut guest = Guest::new(Shouter::default());
    // Without features FEATURES_OK is not taken: who is at the third stage has chosen none here.
    let next = [1, 3, 3, 15, 15];
    for (index, stage) in [0].into_iter().chain(STAGES).enumerate() {
        for written in 1..=255 {
            brought_to(&mut guest, &STAGES[..index]);
            guest.status(written);
            let moves = written == next[index] || written == stage | 0x80;
            let expected = if moves { written } else { stage };
            let seen = guest.register(virtio_mmio::VIRTIO_MMIO_STATUS);
            assert_eq!(seen, expected, "{written:#x} at {stage:#x}");
        }
    }
}

#[test]
fn features_are_those_offered_and_do_not_change_afterwards() {
    let mut guest = Guest::new(Shouter::default());
    for bad in [0, 1, (1 << VIRTIO_F_VERSION_1) | 2, u64::MAX] {
        guest.status(0);
        guest.status(1);
        guest.status(3);
        guest.choose(bad);
        guest.status(11);
        assert_eq!(
            guest.register(virtio_mmio::VIRTIO_MMIO_STATUS),
            3,
            "{bad:#x}"
        );
    }
    let least = 1 << VIRTIO_F_VERSION_1;
    guest.negotiate(least);
    guest.choose(u64::MAX);
    assert!(guest.set_up_queue(0, 16));
    guest.status(15);
    guest.choose(u64::MAX);
    // A table would be read if the later choice counted.
    let table = hostile::table_of_one();
    guest.describe(0, 0, table);
    guest.offer_head(0, 0);
    guest.kick(0);
    guest.needs_reset();
}

#[test]
fn a_queue_is_taken_only_where_it_can_be() {
    let mut guest = Guest::new(Shouter::default());
    let good = Guest::parts(0);
    let part = |place: usize, address| {
        let mut parts = good;
        parts[place] = address;
        parts
    };
    let bad = [
        (16, part(0, 0)),
        (16, part(1, 0)),
        (16, part(2, 0)),
        (16, part(0, good[0] + 8)),
        (16, part(1, good[1] + 1)),
        (16, part(2, good[2] + 2)),
        (16, part(0, GAP - 16)),
        (16, part(1, GAP - 16)),
        (16, part(2, GAP - 16)),
        (16, part(0, GAP)),
        (16, part(1, GAP_END - 16)),
        (16, part(2, END - 16)),
        (16, part(0, END)),
        (16, part(2, u64::MAX - 3)),
        (256, part(0, GAP - 4080)),
        (0, good),
        (15, good),
        (512, good),
        (0x1_0010, good),
        (u32::MAX, good),
    ];
    guest.negotiate(u64::MAX);
    for (size, parts) in bad {
        assert!(!guest.set_up_queue_at(0, size, parts), "{size} {parts:x?}");
    }
    // The last byte of memory is memory.
    assert!(guest.set_up_queue_at(0, 16, part(0, END - 256)));
    assert!(!guest.set_up_queue(2, 16), "there is no third queue");
    assert!(!guest.set_up_queue(1, 128), "the second has 64 entries");
}

#[test]
fn queues_do_not_change_once_the_driver_is_ready() {
    let mut guest = Guest::ready(Shouter::default());
    assert!(shouts(&mut guest));
    // The driver may select, ring, acknowledge and reset.
    let frozen = (0x30..0x100).step_by(4);
    let frozen = frozen.filter(|offset| ![0x30, 0x50, 0x64, 0x70].contains(offset));
    let values = [0, 1, 8, 0x4000, u32::MAX];
    let writes = frozen.flat_map(|offset| values.map(|value| (offset, value)));
    for (queue, (offset, value)) in [0, 1].into_iter().flat_map(|queue| {
        let writes = writes.clone();
        writes.map(move |write| (queue, write))
    }) {
        guest.set(virtio_mmio::VIRTIO_MMIO_QUEUE_SEL, queue);
        guest.set(offset, value);
        assert_eq!(guest.register(virtio_mmio::VIRTIO_MMIO_QUEUE_READY), 1);
    }
    assert!(shouts(&mut guest));
    assert_eq!(guest.register(virtio_mmio::VIRTIO_MMIO_STATUS), 15);
}

#[test]
fn a_queue_that_is_ready_keeps_what_it_was_told() {
    let mut guest = Guest::new(Shouter::default());
    guest.negotiate(u64::MAX);
    assert!(guest.set_up_queue(0, 16));
    guest.set(virtio_mmio::VIRTIO_MMIO_QUEUE_NUM, 3);
    guest.set(virtio_mmio::VIRTIO_MMIO_QUEUE_DESC_LOW, 0x5000);
    guest.status(15);
    assert!(shouts(&mut guest));
}

#[test]
fn a_device_without_the_queue_that_it_needs_says_so() {
    let mut guest = Guest::new(Shouter::default());
    guest.negotiate(u64::MAX);
    guest.status(15);
    guest.needs_reset();
    assert_eq!(guest.troubles(), ["queue 0 is not set up"]);
    guest.set_up(u64::MAX);
    assert!(shouts(&mut guest));
}

#[test]
fn a_device_is_activated_once_for_each_driver() {
    let device = Shouter::default();
    let count = Arc::clone(&device.activations);
    let mut guest = Guest::ready(device);
    for status in [15, 15, 7, 1, 11, 15] {
        guest.status(status);
    }
    assert!(shouts(&mut guest));
    assert_eq!(count.load(Ordering::SeqCst), 1);
    guest.status(0);
    guest.set_up(u64::MAX);
    assert!(shouts(&mut guest));
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[test]
fn the_configuration_is_written_by_a_driver_alone() {
    let mut guest = Guest::new(Shouter::default());
    guest.transport.write(0x100, b"tooearly");
    assert_eq!(guest.config(0, 8), [0; 8]);
    guest.set_up(u64::MAX);
    guest.transport.write(0x100, b"intime!!");
    assert_eq!(guest.config(2, 4), b"time");
    assert_eq!(guest.config(6, 4), b"!!\0\0");
    assert_eq!(guest.config(0x1000, 4), [0; 4]);
    guest.status(15 | 0x80);
    guest.transport.write(0x100, b"gaveup!!");
    assert_eq!(guest.config(0, 8), b"intime!!");
}

#[test]
fn registers_are_read_whole_or_not_at_all() {
    let mut guest = Guest::new(Shouter::default());
    for (offset, length) in [(0, 1), (0, 2), (0, 8), (1, 4), (2, 4), (3, 1)] {
        let mut bytes = vec![0xff; length];
        guest.transport.read(offset, &mut bytes);
        assert_eq!(bytes, vec![0; length], "{length} bytes at {offset}");
        guest.transport.write(0x70 + offset, &vec![1; length]);
        assert_eq!(guest.register(virtio_mmio::VIRTIO_MMIO_STATUS), 0);
    }
}

#[test]
fn an_answer_is_told_of_once_when_the_driver_wants_it_so() {
    let mut guest = Guest::ready(Shouter::default());
    for _ in 0..3 {
        guest.offer(0, &[(BUFFERS, 1)], &[(BUFFERS + 64, 8)]);
    }
    // Only the third answer shall be told of.
    let wish = GuestAddress(Guest::parts(0)[1] + 4 + 32);
    guest.memory.write_obj(2_u16, wish).unwrap();
    guest.kick(0);
    let used = GuestAddress(Guest::parts(0)[2] + 2);
    guest.wait("three answers", |guest| {
        let used: u16 = guest.memory.read_obj(used).unwrap();
        (used == 3).then_some(())
    });
}

#[test]
fn no_driver_confuses_a_ring() {
    hostile::survives(Shouter::default, &[0]);
}

#[test]
fn a_mad_driver_does_not_break_a_device_for_its_successor() {
    random::survives(Shouter::default);
}
