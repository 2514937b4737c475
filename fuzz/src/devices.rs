//! Disk, console, random numbers and balloon: their queues and their configuration.

use std::fs::File;

use bulkhead::backend::microvm::vmm::virtio::VirtioDevice;
use bulkhead::backend::microvm::vmm::virtio::balloon::Balloon;
use bulkhead::backend::microvm::vmm::virtio::block::Block;
use bulkhead::backend::microvm::vmm::virtio::block::BlockOptions;
use bulkhead::backend::microvm::vmm::virtio::console::Console;
use bulkhead::backend::microvm::vmm::virtio::rng::Rng;

use super::guest::BUFFERS;
use super::guest::Guest;
use super::guest::NEXT;
use super::guest::WRITE;
use super::source::Source;

/// Lets these bytes at one of the devices, which their first chooses.
pub fn run(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let Some(which) = source.byte() else {
        return;
    };
    match which % 4 {
        0 => drive(Block::new(disk(), &options(which)).unwrap(), source),
        1 => drive(Console::new(Some(disk()), 1 << 16), source),
        2 => drive(Rng::new().unwrap(), source),
        _ => drive(Balloon::new(true).unwrap(), source),
    }
}

/// A small disk in memory.
pub(crate) fn disk() -> File {
    let fd = rustix::fs::memfd_create("disk", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let file = File::from(fd);
    file.set_len(1 << 18).unwrap();
    file
}

fn options(which: u8) -> BlockOptions {
    BlockOptions {
        read_only: which & 4 != 0,
        direct: which & 8 != 0,
        ..BlockOptions::default()
    }
}

/// Lets a driver at a device until the bytes end, or the device waits for a reset.
pub(crate) fn drive(device: impl VirtioDevice + 'static, mut source: Source<'_>) {
    let queues = device.queue_sizes().len();
    let mut guest = Guest::new(device, u64::MAX);
    while !guest.stands_still() && step(&mut guest, queues, &mut source).is_some() {
        guest.turn();
    }
}

fn step(guest: &mut Guest, queues: usize, source: &mut Source<'_>) -> Option<()> {
    match source.byte()? % 8 {
        0 => {
            let (offset, value) = (source.byte()?, source.word()?);
            guest.configure(offset, value);
        }
        1 => {
            let queue = usize::from(source.byte()?) % queues;
            guest.deceive(queue, source)?;
        }
        _ => request(guest, queues, source)?,
    }
    Some(())
}

/// A request as a driver makes it: some words, some bytes, and room.
fn request(guest: &mut Guest, queues: usize, source: &mut Source<'_>) -> Option<()> {
    let queue = usize::from(source.byte()?) % queues;
    let mut words = Vec::new();
    for _ in 0..4 {
        words.extend(u32::from(source.byte()?).to_le_bytes());
    }
    guest.put(BUFFERS, &words);
    let given = u32::from(source.short()? % 0x1800);
    let room = u32::from(source.short()? % 0x1800);
    let read = source.byte()? & 1 != 0;
    let middle = if read { WRITE } else { 0 };
    guest.describe(queue, 0, (BUFFERS, 16), NEXT, 1);
    guest.describe(queue, 1, (BUFFERS + 0x1000, given), NEXT | middle, 2);
    guest.describe(queue, 2, (BUFFERS + 0x4000, room), WRITE, 0);
    let head = u16::from(source.byte()? % 3);
    guest.offer(queue, head);
    guest.kick(queue);
    Some(())
}
