//! What stands in a processor's registers before its first instruction.

use kvm_bindings::MsrList;
use kvm_bindings::Msrs;
use kvm_bindings::kvm_msr_entry;
use kvm_bindings::kvm_regs;
use kvm_bindings::kvm_segment;
use kvm_bindings::kvm_sregs;
use kvm_ioctls::VcpuFd;
use vm_memory::Bytes;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryError;

use crate::backend::microvm::vmm::boot::Entry;
use crate::backend::microvm::vmm::layout;
use crate::backend::microvm::vmm::memory::Memory;

/// `CR0.PE` and `CR0.ET`: protected mode.
const PROTECTED: u64 = 1 | 1 << 4;
/// `CR0.PG`.
const PAGING: u64 = 1 << 31;
/// `CR4.PAE`.
const PAE: u64 = 1 << 5;
/// `EFER.LME` and `EFER.LMA`.
const LONG: u64 = 1 << 8 | 1 << 10;
/// The bit of the flags that is always set.
const FLAGS: u64 = 2;

/// Selectors of the segments, and their descriptors' places in the table.
const CODE: u16 = 0x10;
const DATA: u16 = 0x18;
const TASK: u16 = 0x20;

/// Writes the segment table, and for 64 bits the page tables.
pub(super) fn tables(memory: &Memory, entry: Entry) -> Result<(), GuestMemoryError> {
    let segments = [
        0,
        0,
        descriptor(&code(entry)),
        descriptor(&data()),
        descriptor(&task()),
    ];
    for (index, descriptor) in (0..).zip(segments) {
        memory.write_obj(descriptor, GuestAddress(layout::GDT + index * 8))?;
    }
    if matches!(entry, Entry::Linux(_)) {
        let [top, middle, bottom] = layout::PAGE_TABLES;
        /// Present and writable.
        const TABLE: u64 = 0b11;
        /// A page of 2 MiB, too.
        const LARGE: u64 = 0b1000_0011;
        memory.write_obj(middle | TABLE, GuestAddress(top))?;
        memory.write_obj(bottom | TABLE, GuestAddress(middle))?;
        for index in 0..512 {
            memory.write_obj(index << 21 | LARGE, GuestAddress(bottom + index * 8))?;
        }
    }
    Ok(())
}

/// General registers, with the entry and what is handed over.
pub(super) fn general(entry: Entry) -> kvm_regs {
    let common = kvm_regs {
        rflags: FLAGS,
        ..kvm_regs::default()
    };
    match entry {
        Entry::Pvh(rip) => kvm_regs {
            rip,
            rbx: layout::PVH_START,
            ..common
        },
        Entry::Linux(rip) => kvm_regs {
            rip,
            rsi: layout::ZERO_PAGE,
            rsp: layout::BOOT_STACK,
            rbp: layout::BOOT_STACK,
            ..common
        },
    }
}

/// Segments and modes.
pub(super) fn special(vcpu: &VcpuFd, entry: Entry) -> Result<kvm_sregs, kvm_ioctls::Error> {
    let mut special = vcpu.get_sregs()?;
    special.cs = code(entry);
    for segment in [
        &mut special.ds,
        &mut special.es,
        &mut special.fs,
        &mut special.gs,
        &mut special.ss,
    ] {
        *segment = data();
    }
    special.tr = task();
    special.gdt.base = layout::GDT;
    special.gdt.limit = 5 * 8 - 1;
    special.idt.base = 0;
    special.idt.limit = 0;
    special.cr0 = PROTECTED;
    special.cr4 = 0;
    special.efer = 0;
    if matches!(entry, Entry::Linux(_)) {
        special.cr0 |= PAGING;
        special.cr3 = layout::PAGE_TABLES[0];
        special.cr4 |= PAE;
        special.efer |= LONG;
    }
    Ok(special)
}

/// A flat segment.
fn flat(selector: u16, kind: u8) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_: kind,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..kvm_segment::default()
    }
}

fn code(entry: Entry) -> kvm_segment {
    let long = u8::from(matches!(entry, Entry::Linux(_)));
    kvm_segment {
        l: long,
        db: 1 - long,
        ..flat(CODE, 0xb)
    }
}

fn data() -> kvm_segment {
    flat(DATA, 0x3)
}

fn task() -> kvm_segment {
    kvm_segment {
        limit: 0x67,
        db: 0,
        s: 0,
        g: 0,
        ..flat(TASK, 0xb)
    }
}

/// A segment as it stands in the table.
fn descriptor(segment: &kvm_segment) -> u64 {
    let limit = u64::from(if segment.g == 1 {
        segment.limit >> 12
    } else {
        segment.limit
    });
    let access = u64::from(segment.type_)
        | u64::from(segment.s) << 4
        | u64::from(segment.dpl) << 5
        | u64::from(segment.present) << 7;
    let flags = u64::from(segment.avl)
        | u64::from(segment.l) << 1
        | u64::from(segment.db) << 2
        | u64::from(segment.g) << 3;
    (limit & 0xffff) | access << 40 | (limit >> 16 & 0xf) << 48 | flags << 52
}

/// Sets those registers of the model that a kernel counts on and that this kernel lets be set.
///
/// A kernel that takes only some of them is left with its own values for the rest: they are what a processor has after
/// reset, and a guest starts with them too.
pub(super) fn model_specific(vcpu: &VcpuFd, known: &MsrList) -> Result<(), kvm_ioctls::Error> {
    /// `IA32_MISC_ENABLE`: fast strings.
    const MISC_ENABLE: (u32, u64) = (0x1a0, 1);
    /// `IA32_MTRR_DEF_TYPE`: memory is cached and written back.
    const MTRR_DEFAULT: (u32, u64) = (0x2ff, 1 << 11 | 6);
    let entries: Vec<kvm_msr_entry> = [MISC_ENABLE, MTRR_DEFAULT]
        .into_iter()
        .filter(|(index, _)| known.as_slice().contains(index))
        .map(|(index, data)| kvm_msr_entry {
            index,
            data,
            ..kvm_msr_entry::default()
        })
        .collect();
    let mut rest = entries.as_slice();
    while !rest.is_empty() {
        let Ok(list) = Msrs::from_entries(rest) else {
            return Ok(());
        };
        // The count says how many were taken before one that was not.
        let taken = vcpu.set_msrs(&list)?;
        rest = rest.get(taken + 1..).unwrap_or_default();
    }
    Ok(())
}

/// The two local lines as a PC's firmware leaves them: the old controller's, and the non-maskable one.
pub(super) fn local_apic(vcpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
    const LINE_0: usize = 0x350;
    const LINE_1: usize = 0x360;
    const EXTERNAL: u8 = 0x7;
    const NON_MASKABLE: u8 = 0x4;
    let mut apic = vcpu.get_lapic()?;
    for (register, mode) in [(LINE_0, EXTERNAL), (LINE_1, NON_MASKABLE)] {
        // The mode stands in bits 8 to 10.
        if let Some(byte) = apic.regs.get_mut(register + 1) {
            *byte = ((byte.cast_unsigned() & !0x7) | mode).cast_signed();
        }
    }
    vcpu.set_lapic(&apic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_those_of_every_flat_machine() {
        assert_eq!(descriptor(&code(Entry::Linux(0))), 0x00af_9b00_0000_ffff);
        assert_eq!(descriptor(&code(Entry::Pvh(0))), 0x00cf_9b00_0000_ffff);
        assert_eq!(descriptor(&data()), 0x00cf_9300_0000_ffff);
        assert_eq!(descriptor(&task()), 0x0000_8b00_0000_0067);
    }
}
