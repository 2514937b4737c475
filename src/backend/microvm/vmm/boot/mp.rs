//! The MP table (Intel's MultiProcessor Specification 1.4): processors and interrupts for a kernel without ACPI.

use vm_memory::Bytes;
use vm_memory::GuestAddress;

use crate::backend::microvm::vmm::boot::BootError;
use crate::backend::microvm::vmm::layout;
use crate::backend::microvm::vmm::memory::Memory;

const VERSION: u8 = 4;
const APIC_VERSION: u8 = 0x14;
/// Kinds of entries.
const PROCESSOR: u8 = 0;
const BUS: u8 = 1;
const IO_APIC: u8 = 2;
const INTERRUPT: u8 = 3;
const LOCAL_INTERRUPT: u8 = 4;
/// The inputs of the I/O APIC that have an entry: those of the ISA bus, and those of the windows above.
const INPUTS: u8 = 24;

/// Writes the pointer and the table behind it.
pub(super) fn write(memory: &Memory, vcpus: u32) -> Result<(), BootError> {
    let table = table(u8::try_from(vcpus).unwrap_or(u8::MAX));
    let pointer = pointer(layout::MP_TABLE + 16);
    memory.write_slice(&pointer, GuestAddress(layout::MP_TABLE))?;
    memory.write_slice(&table, GuestAddress(layout::MP_TABLE + 16))?;
    Ok(())
}

/// The 16 bytes that a kernel looks for.
fn pointer(table: u64) -> [u8; 16] {
    let mut pointer = [0; 16];
    pointer[..4].copy_from_slice(b"_MP_");
    let address = u32::try_from(table).unwrap_or_default();
    pointer[4..8].copy_from_slice(&address.to_le_bytes());
    pointer[8] = 1;
    pointer[9] = VERSION;
    pointer[10] = complement(&pointer);
    pointer
}

fn table(vcpus: u8) -> Vec<u8> {
    let mut entries = Vec::new();
    for id in 0..vcpus {
        let flags = if id == 0 { 0b11 } else { 0b01 };
        entries.push([PROCESSOR, id, APIC_VERSION, flags].to_vec());
        // Signature and features: the kernel asks the processor itself.
        if let Some(entry) = entries.last_mut() {
            entry.extend([0; 16]);
        }
    }
    entries.push([&[BUS, 0][..], b"ISA   "].concat());
    let address = layout::IO_APIC.to_le_bytes();
    entries.push([&[IO_APIC, vcpus, APIC_VERSION, 1][..], &address].concat());
    for input in 0..INPUTS {
        entries.push(vec![INTERRUPT, 0, 0, 0, 0, input, vcpus, input]);
    }
    // The old controller's line and the non-maskable one, as on every PC.
    entries.push(vec![LOCAL_INTERRUPT, 3, 0, 0, 0, 0, 0, 0]);
    entries.push(vec![LOCAL_INTERRUPT, 1, 0, 0, 0, 0, 0xff, 1]);
    let count = u16::try_from(entries.len()).unwrap_or_default();
    let entries = entries.concat();
    let mut table = b"PCMP".to_vec();
    let length = u16::try_from(44 + entries.len()).unwrap_or_default();
    table.extend(length.to_le_bytes());
    table.extend([VERSION, 0]);
    table.extend(b"BULKHEADMICROVM     ");
    table.extend([0; 6]);
    table.extend(count.to_le_bytes());
    table.extend(layout::LOCAL_APIC.to_le_bytes());
    table.extend([0; 4]);
    table.extend(entries);
    table[7] = complement(&table);
    table
}

/// What makes the sum of all bytes zero.
fn complement(bytes: &[u8]) -> u8 {
    let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    sum.wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_its_length_and_sums_up_to_zero() {
        for vcpus in [1, 32] {
            let table = table(vcpus);
            assert_eq!(complement(&table), 0);
            let length = u16::from_le_bytes([table[4], table[5]]);
            assert_eq!(usize::from(length), table.len());
        }
        assert_eq!(complement(&pointer(layout::MP_TABLE)), 0);
    }

    #[test]
    fn the_table_for_the_most_processors_fits_below_the_hole_of_the_pc() {
        assert!(layout::MP_TABLE + 16 + (table(32).len() as u64) < 0xa0000);
    }
}
