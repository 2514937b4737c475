//! The registers of a device: reads and writes of any width anywhere in its window, in any order, between drivers that
//! are in their senses.

use bulkhead::backend::microvm::vmm::virtio::rng::Rng;

use super::guest::BUFFERS;
use super::guest::Guest;
use super::guest::WRITE;
use super::source::Source;

/// Lets these bytes at the registers; afterwards the device works for whoever comes next.
pub fn run(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let mut guest = Guest::new(Rng::new().unwrap(), u64::MAX);
    while step(&mut guest, &mut source).is_some() {
        guest.turn();
    }
    guest.begin();
    assert!(!guest.stands_still());
    guest.describe(0, 0, (BUFFERS, 16), WRITE, 0);
    guest.offer(0, 0);
    guest.kick(0);
    guest.turn();
    assert_eq!(guest.answer(0), Some(0));
}

fn step(guest: &mut Guest, source: &mut Source<'_>) -> Option<()> {
    // Mostly where something is.
    let offset = match source.byte()? % 8 {
        0 => source.short()? % 0x1000,
        1 => 0x70,
        _ => u16::from(source.byte()?) * 4 % 0x110,
    };
    let width = source.one_of(&[4_usize, 4, 4, 4, 8, 1, 2, 0, 3])?;
    let value = match source.byte()? % 4 {
        0 => source.word()?,
        1 => u32::from(source.short()?),
        _ => u32::from(source.byte()? % 16),
    };
    match source.byte()? % 8 {
        0 => guest.peek(offset.into(), width),
        1 => guest.begin(),
        2 => guest.kick(usize::from(source.byte()?)),
        _ => guest.poke(offset.into(), value, width),
    }
    Some(())
}
