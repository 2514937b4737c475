//! Where things are in a guest's address space, and which interrupts they have.
//!
//! Below 1 MiB stands what a kernel reads while it starts; memory goes up to 3 GiB and on from 4 GiB; between the two
//! are the windows of the devices and the interrupt controllers.

/// The boot processor's stack, should a kernel need one before it has its own.
pub(super) const BOOT_STACK: u64 = 0x8ff0;
/// Segment descriptors for the first instructions.
pub(super) const GDT: u64 = 0x500;
/// `struct hvm_start_info` of the PVH protocol.
pub(super) const PVH_START: u64 = 0x6000;
/// The one module of the PVH protocol: the initramfs.
pub(super) const PVH_MODULE: u64 = 0x6040;
/// The memory map of the PVH protocol.
pub(super) const PVH_MEMORY_MAP: u64 = 0x6080;
/// `struct boot_params` of the Linux protocol.
pub(super) const ZERO_PAGE: u64 = 0x7000;
/// Three page tables, of the first GiB.
pub(super) const PAGE_TABLES: [u64; 3] = [0x9000, 0xa000, 0xb000];
/// The command line.
pub(super) const CMDLINE: u64 = 0x20000;
/// The end of low memory that a kernel may use; the MP table follows.
pub(super) const LOW_END: u64 = 0x9fc00;
/// The MP table, where kernels look for it.
pub(super) const MP_TABLE: u64 = LOW_END;
/// ACPI's tables, where kernels look for them.
pub(super) const ACPI: u64 = 0xe0000;
/// Where a PC's firmware begins: a kernel that knows no other way to restart jumps there, in 16 bits.
pub(super) const FIRMWARE: u64 = 0xf_fff0;
/// Memory that any kernel may be loaded to.
pub(super) const HIGH: u64 = 0x10_0000;
/// Where a kernel's image goes that does not say.
pub(super) const KERNEL: u64 = 0x100_0000;

/// The end of memory below the devices.
pub(super) const HOLE: u64 = 0xc000_0000;
/// The beginning of memory above the devices.
pub(super) const HOLE_END: u64 = 0x1_0000_0000;

/// The windows of the virtio devices, one page each.
pub(super) const WINDOWS: u64 = 0xd000_0000;
/// The size of one.
pub(super) const WINDOW: u64 = 0x1000;
/// Interrupts of the windows, the first one's first.
pub(super) const WINDOW_GSI: u32 = 5;
/// The I/O APIC has 24 inputs.
pub(super) const WINDOWS_MAX: u32 = 24 - WINDOW_GSI;
/// Where a driver tells of work for a queue, in a window (`QueueNotify`).
pub(super) const QUEUE_NOTIFY: u64 = 0x50;

/// Three pages that KVM needs on Intel's processors.
pub(super) const TSS: usize = 0xfffb_d000;
/// The I/O APIC.
pub(super) const IO_APIC: u32 = 0xfec0_0000;
/// The local APICs.
pub(super) const LOCAL_APIC: u32 = 0xfee0_0000;

/// The serial port, COM1.
pub(super) const SERIAL: u16 = 0x3f8;
/// Its registers.
pub(super) const SERIAL_LENGTH: u16 = 8;
/// Its interrupt.
pub(super) const SERIAL_GSI: u32 = 4;
/// Ports of ACPI: sleep control, sleep status, reset.
pub(super) const POWER: u16 = 0x600;
/// The last of them.
pub(super) const POWER_RESET: u16 = POWER + 2;
/// How many.
pub(super) const POWER_LENGTH: u16 = 3;
/// The keyboard controller's command port, known for its reset line.
pub(super) const KEYBOARD: u16 = 0x64;

/// Ranges of memory that the guest may use, as addresses and lengths.
pub(super) fn usable(memory: u64) -> Vec<(u64, u64)> {
    let mut ranges = vec![(0, LOW_END), (HIGH, memory.min(HOLE) - HIGH)];
    ranges.extend((memory > HOLE).then(|| (HOLE_END, memory - HOLE)));
    ranges
}

#[cfg(test)]
mod tests {
    use super::usable;

    #[test]
    fn memory_leaves_the_devices_out() {
        assert_eq!(usable(64 << 20), [(0, 0x9fc00), (1 << 20, 63 << 20)]);
        assert_eq!(usable(5 << 30)[1], (1 << 20, (3 << 30) - (1 << 20)));
        assert_eq!(usable(5 << 30)[2], (4 << 30, 2 << 30));
    }
}
