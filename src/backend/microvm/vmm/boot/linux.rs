//! What a kernel reads that is entered by Linux's own 64-bit protocol.

use linux_loader::loader::bootparam::boot_e820_entry;
use linux_loader::loader::bootparam::boot_params;
use linux_loader::loader::bootparam::setup_header;
use vm_memory::Bytes;
use vm_memory::GuestAddress;

use crate::backend::microvm::vmm::boot::BootError;
use crate::backend::microvm::vmm::boot::Told;
use crate::backend::microvm::vmm::layout;
use crate::backend::microvm::vmm::memory::Memory;

/// `boot_flag`: what ends a boot sector.
const BOOT_FLAG: u16 = 0xaa55;
/// `header`: "HdrS".
const HEADER: u32 = 0x5372_6448;
/// `type_of_loader`: none of those that have a number.
const UNDEFINED_LOADER: u8 = 0xff;
/// The kind of a range that is memory.
const RAM: u32 = 1;

/// Writes the zero page; `header` is the one of a bzImage.
pub(super) fn write(
    memory: &Memory,
    told: &Told,
    header: Option<setup_header>,
) -> Result<(), BootError> {
    let mut params = boot_params {
        hdr: header.unwrap_or_default(),
        acpi_rsdp_addr: told.rsdp,
        ..boot_params::default()
    };
    params.hdr.boot_flag = BOOT_FLAG;
    params.hdr.header = HEADER;
    params.hdr.type_of_loader = UNDEFINED_LOADER;
    params.hdr.cmd_line_ptr = low(layout::CMDLINE);
    params.hdr.cmdline_size = low(told.cmdline_length);
    if let Some(initramfs) = told.initramfs {
        params.hdr.ramdisk_image = low(initramfs.address);
        params.hdr.ramdisk_size = low(initramfs.size);
    }
    let mut table = params.e820_table;
    for (entry, (addr, size)) in table.iter_mut().zip(&told.ranges) {
        *entry = boot_e820_entry {
            addr: *addr,
            size: *size,
            type_: RAM,
        };
        params.e820_entries += 1;
    }
    params.e820_table = table;
    memory.write_obj(params, GuestAddress(layout::ZERO_PAGE))?;
    Ok(())
}

/// An address or length below 4 GiB.
fn low(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
