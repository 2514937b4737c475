//! Puts a kernel into a guest's memory, with everything that it reads before its first driver.

pub(super) mod acpi;
mod cmdline;
mod linux;
mod mp;
mod pvh;
mod source;

use std::fs::File;
use std::io::Seek;
use std::os::unix::fs::FileExt;

use linux_loader::loader::BzImage;
use linux_loader::loader::Elf;
use linux_loader::loader::KernelLoader;
use linux_loader::loader::bootparam::setup_header;
use linux_loader::loader::elf::PvhBootCapability;
use vm_memory::Address;
use vm_memory::Bytes;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryError;

use crate::backend::microvm::vmm::boot::source::Source;
use crate::backend::microvm::vmm::config::Discovery;
use crate::backend::microvm::vmm::config::MachineConfig;
use crate::backend::microvm::vmm::layout;
use crate::backend::microvm::vmm::memory::Memory;
use crate::backend::microvm::vmm::memory::gather;

/// How the first processor enters the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// In 32 bits without paging, `ebx` pointing to the start info (PVH).
    Pvh(u64),
    /// In 64 bits with the first GiB mapped, `rsi` pointing to the zero page (Linux).
    Linux(u64),
}

/// Why a kernel cannot be put into memory.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// It is no kernel of a known kind.
    #[error("kernel: neither a 64-bit ELF nor a bzImage with a 64-bit entry")]
    Unknown,
    /// It cannot be read.
    #[error("{field}: cannot be read")]
    Unread {
        /// Which file.
        field: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// The loader does not take it.
    #[error("kernel: cannot be loaded into {memory} bytes of memory")]
    Unloaded {
        /// What there is.
        memory: u64,
        /// Why not.
        source: linux_loader::loader::Error,
    },
    /// It does not fit.
    #[error("{field}: {needed} bytes do not fit into {memory} bytes of memory")]
    TooLarge {
        /// Which file.
        field: &'static str,
        /// Where it would end, or how long it is.
        needed: u64,
        /// What there is.
        memory: u64,
    },
    /// The command line has become too long.
    #[error("cmdline: {0} bytes with what finds the devices, fewer than 2048 fit")]
    Cmdline(usize),
    /// Something lies outside of memory.
    #[error("memory: too little for what a kernel reads while it starts")]
    Outside(#[from] GuestMemoryError),
}

/// A kernel in memory.
struct Loaded {
    entry: Entry,
    end: u64,
    header: Option<setup_header>,
}

/// Where the initramfs is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Initramfs {
    address: u64,
    size: u64,
}

/// What stands in memory and is told to the kernel.
struct Told {
    cmdline_length: u64,
    initramfs: Option<Initramfs>,
    /// Usable ranges, then one that ACPI's tables reserve.
    ranges: Vec<(u64, u64)>,
    rsdp: u64,
}

/// Loads kernel and initramfs and writes what the kernel reads; the devices are windows `0..windows`.
///
/// # Errors
///
/// [`BootError`].
pub(super) fn load(
    config: &MachineConfig,
    memory: &Memory,
    kernel: &mut File,
    initramfs: Option<&mut File>,
    windows: u32,
) -> Result<Entry, BootError> {
    let kernel = load_kernel(memory, kernel, config.memory)?;
    let initramfs = initramfs
        .map(|file| load_initramfs(memory, file, kernel.end, config.memory))
        .transpose()?;
    memory.write_slice(&firmware(), GuestAddress(layout::FIRMWARE))?;
    let line = cmdline::build(config, windows)?;
    memory.write_slice(&line, GuestAddress(layout::CMDLINE))?;
    let rsdp = match config.discovery {
        Discovery::Acpi => acpi::write(memory, config.vcpus, windows)?,
        Discovery::CommandLine => {
            mp::write(memory, config.vcpus)?;
            0
        }
    };
    let told = Told {
        cmdline_length: line.len() as u64,
        initramfs,
        ranges: layout::usable(config.memory),
        rsdp,
    };
    match kernel.entry {
        Entry::Pvh(_) => pvh::write(memory, &told)?,
        Entry::Linux(_) => linux::write(memory, &told, kernel.header)?,
    }
    Ok(kernel.entry)
}

/// All the firmware that there is, as 16-bit code: it asks for a reset. Linux ends here on a hardware-reduced machine
/// without EFI.
fn firmware() -> [u8; 9] {
    let [low, high] = layout::POWER_RESET.to_le_bytes();
    // mov al, RESET; mov dx, POWER_RESET; out dx, al; hlt; jmp to the hlt
    [0xb0, acpi::RESET, 0xba, low, high, 0xee, 0xf4, 0xeb, 0xfd]
}

fn load_kernel(memory: &Memory, file: &mut File, size: u64) -> Result<Loaded, BootError> {
    let unread = |source| BootError::Unread {
        field: "kernel",
        source,
    };
    let mut magic = [0; 4];
    file.read_exact_at(&mut magic, 0).map_err(unread)?;
    let loaded = if magic == *b"\x7fELF" {
        load_elf(memory, file, size)?
    } else {
        load_image(memory, file, size)?
    };
    if loaded.end > size.min(layout::HOLE) {
        return Err(BootError::TooLarge {
            field: "kernel",
            needed: loaded.end,
            memory: size,
        });
    }
    Ok(loaded)
}

/// A kernel that is not larger than this is worth no large pages.
const SMALL: u64 = 4 << 20;
/// What a kernel takes from the end of its memory before it counts pages: its tables of processors and names.
const EARLY: u64 = 4 << 20;
/// One part in so many of a kernel's memory is what it knows of each page, at the end of it as well.
const KNOWN: u64 = 64;

fn load_elf(memory: &Memory, file: &mut File, size: u64) -> Result<Loaded, BootError> {
    let high = Some(GuestAddress(layout::HIGH));
    let unloaded = |source| BootError::Unloaded {
        memory: size,
        source,
    };
    let mut source = Source::new(file, memory);
    source.rehearsal = true;
    let places = Elf::load(memory, None, &mut source, high).map_err(unloaded)?;
    let begin = places.kernel_load.raw_value();
    if places.kernel_end > begin.saturating_add(SMALL) {
        gather(memory, begin, places.kernel_end);
    }
    source.rehearsal = false;
    let loaded = Elf::load(memory, None, &mut source, high).map_err(unloaded)?;
    let entry = match loaded.pvh_boot_cap {
        PvhBootCapability::PvhEntryPresent(address) => Entry::Pvh(address.raw_value()),
        PvhBootCapability::PvhEntryNotPresent | PvhBootCapability::PvhEntryIgnored => {
            Entry::Linux(loaded.kernel_load.raw_value())
        }
    };
    Ok(Loaded {
        entry,
        end: loaded.kernel_end,
        header: None,
    })
}

/// The 64-bit entry of a bzImage stands this far behind its beginning.
const ENTRY_64: u64 = 0x200;
/// `XLF_KERNEL_64` of `xloadflags`: there is such an entry.
const HAS_ENTRY_64: u16 = 1;

fn load_image(memory: &Memory, file: &mut File, size: u64) -> Result<Loaded, BootError> {
    let place = Some(GuestAddress(layout::KERNEL));
    let source = &mut Source::new(file, memory);
    let loaded =
        BzImage::load(memory, place, source, None).map_err(|source| BootError::Unloaded {
            memory: size,
            source,
        })?;
    let header = loaded.setup_header.ok_or(BootError::Unknown)?;
    if header.xloadflags & HAS_ENTRY_64 == 0 {
        return Err(BootError::Unknown);
    }
    let needed = layout::KERNEL.saturating_add(header.init_size.into());
    Ok(Loaded {
        entry: Entry::Linux(layout::KERNEL + ENTRY_64),
        end: loaded.kernel_end.max(needed),
        header: Some(header),
    })
}

/// The initramfs goes to the end of low memory, where no kernel unpacks itself to.
fn load_initramfs(
    memory: &Memory,
    file: &mut File,
    after: u64,
    memory_size: u64,
) -> Result<Initramfs, BootError> {
    /// Older kernels take no address above (`initrd_addr_max`).
    const ADDRESS_MAX: u64 = 0x7fff_ffff;
    const PAGE: u64 = 4096;
    let unread = |source| BootError::Unread {
        field: "initramfs",
        source,
    };
    let size = file.metadata().map_err(unread)?.len();
    let end = memory_size.min(layout::HOLE).min(ADDRESS_MAX + 1);
    let address = end.checked_sub(size).map(|address| address / PAGE * PAGE);
    let address = address
        .filter(|address| *address >= after)
        .ok_or(BootError::TooLarge {
            field: "initramfs",
            needed: size,
            memory: memory_size,
        })?;
    file.rewind().map_err(unread)?;
    let length = usize::try_from(size).unwrap_or(usize::MAX);
    let early = address.saturating_sub(memory_size / KNOWN + EARLY);
    if size > SMALL && early > after {
        gather(memory, early, end);
    }
    let source = &mut Source::new(file, memory);
    memory.read_exact_volatile_from(GuestAddress(address), source, length)?;
    Ok(Initramfs { address, size })
}
