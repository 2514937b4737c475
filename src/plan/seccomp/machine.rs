//! Knows what a filter must know of each architecture beside its system call numbers.

use crate::spec::seccomp::Arch;

/// The bit in the number of every x32 call.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// One architecture, as filters see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Machine {
    /// Its name in profiles.
    pub(super) arch: Arch,
    /// What the kernel calls it (`AUDIT_ARCH_*`); shared by x86-64 and x32.
    pub(super) audit: u32,
    /// Its column in the table of numbers.
    pub(super) column: usize,
    /// Whether arguments are compared with 64 bits; else only the low half is
    /// looked at, even where the kernel hands over more (x32), as libseccomp does.
    pub(super) wide: bool,
    /// `socketcall(2)` and `ipc(2)`, where these stand for many calls.
    pub(super) multiplexers: Option<(u32, u32)>,
}

/// Bits of `AUDIT_ARCH_*`.
const LITTLE_ENDIAN: u32 = 0x4000_0000;

impl Machine {
    /// What is known of `arch`; nothing where no table has its numbers.
    pub(super) fn of(arch: Arch) -> Option<Self> {
        const CALLS: Option<(u32, u32)> = Some((102, 117));
        const MIPS: Option<(u32, u32)> = Some((4102, 4117));
        let (audit, column, wide, multiplexers) = match arch {
            Arch::X86_64 => (0xc000_003e, 0, true, None),
            Arch::X86 => (0x4000_0003, 1, false, CALLS),
            Arch::X32 => (0xc000_003e, 2, false, None),
            Arch::Arm => (0x4000_0028, 3, false, None),
            Arch::Aarch64 => (0xc000_00b7, 4, true, None),
            Arch::Loongarch64 => (0xc000_0102, 5, true, None),
            Arch::M68k => (0x0000_0004, 6, false, CALLS),
            Arch::Mips => (0x0000_0008, 7, false, MIPS),
            Arch::Mipsel => (0x4000_0008, 7, false, MIPS),
            Arch::Mips64 => (0x8000_0008, 8, true, None),
            Arch::Mipsel64 => (0xc000_0008, 8, true, None),
            Arch::Mips64N32 => (0xa000_0008, 9, false, None),
            Arch::Mipsel64N32 => (0xe000_0008, 9, false, None),
            Arch::Parisc => (0x0000_000f, 10, false, None),
            Arch::Parisc64 => (0x8000_000f, 11, true, None),
            Arch::Ppc => (0x0000_0014, 12, false, CALLS),
            Arch::Ppc64 => (0x8000_0015, 13, true, CALLS),
            Arch::Ppc64Le => (0xc000_0015, 13, true, CALLS),
            Arch::Riscv64 => (0xc000_00f3, 14, true, None),
            Arch::S390 => (0x0000_0016, 15, false, CALLS),
            Arch::S390X => (0x8000_0016, 16, true, CALLS),
            Arch::Sh | Arch::Sheb => return None,
        };
        Some(Self {
            arch,
            audit,
            column,
            wide,
            multiplexers,
        })
    }

    /// Whether the high half of an argument comes first in memory.
    pub(super) fn is_big_endian(&self) -> bool {
        self.audit & LITTLE_ENDIAN == 0
    }
}

/// The architecture this program was built for.
#[must_use]
pub const fn native() -> Arch {
    const {
        if cfg!(target_arch = "x86_64") {
            Arch::X86_64
        } else if cfg!(target_arch = "aarch64") {
            Arch::Aarch64
        } else if cfg!(target_arch = "riscv64") {
            Arch::Riscv64
        } else if cfg!(target_arch = "s390x") {
            Arch::S390X
        } else if cfg!(all(target_arch = "powerpc64", target_endian = "little")) {
            Arch::Ppc64Le
        } else if cfg!(target_arch = "loongarch64") {
            Arch::Loongarch64
        } else {
            panic!("seccomp profiles cannot be compiled on this architecture yet")
        }
    }
}
