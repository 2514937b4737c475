//! What a kernel reads that is entered by the PVH protocol.

use linux_loader::loader::elf::start_info::hvm_memmap_table_entry;
use linux_loader::loader::elf::start_info::hvm_modlist_entry;
use linux_loader::loader::elf::start_info::hvm_start_info;
use vm_memory::Bytes;
use vm_memory::GuestAddress;

use crate::backend::microvm::vmm::boot::BootError;
use crate::backend::microvm::vmm::boot::Told;
use crate::backend::microvm::vmm::layout;
use crate::backend::microvm::vmm::memory::Memory;

/// `XEN_HVM_START_MAGIC_VALUE`.
const MAGIC: u32 = 0x336e_c578;
/// The kind of a range that is memory.
const RAM: u32 = 1;

/// Writes start info, module list and memory map.
pub(super) fn write(memory: &Memory, told: &Told) -> Result<(), BootError> {
    let entry = hvm_memmap_table_entry::default();
    let mut address = layout::PVH_MEMORY_MAP;
    for (addr, size) in &told.ranges {
        let entry = hvm_memmap_table_entry {
            addr: *addr,
            size: *size,
            type_: RAM,
            reserved: 0,
        };
        memory.write_obj(entry, GuestAddress(address))?;
        address += size_of_val(&entry) as u64;
    }
    let count = (address - layout::PVH_MEMORY_MAP) / size_of_val(&entry) as u64;
    if let Some(initramfs) = told.initramfs {
        let module = hvm_modlist_entry {
            paddr: initramfs.address,
            size: initramfs.size,
            ..hvm_modlist_entry::default()
        };
        memory.write_obj(module, GuestAddress(layout::PVH_MODULE))?;
    }
    let start = hvm_start_info {
        magic: MAGIC,
        version: 1,
        nr_modules: u32::from(told.initramfs.is_some()),
        modlist_paddr: told.initramfs.map_or(0, |_| layout::PVH_MODULE),
        cmdline_paddr: layout::CMDLINE,
        rsdp_paddr: told.rsdp,
        memmap_paddr: layout::PVH_MEMORY_MAP,
        memmap_entries: u32::try_from(count).unwrap_or_default(),
        ..hvm_start_info::default()
    };
    memory.write_obj(start, GuestAddress(layout::PVH_START))?;
    Ok(())
}
