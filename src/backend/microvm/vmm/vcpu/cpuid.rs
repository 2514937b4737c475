//! What a processor says about itself: what KVM can do here, with a topology of its own.
//!
//! Each processor is a core of one package, with nobody else on it: the guest's scheduler has nothing to guess about
//! siblings that may be anywhere on the host.

use kvm_bindings::CpuId;
use kvm_bindings::kvm_cpuid_entry2;

/// Leaf 1, `ECX`: interrupts at a moment of the time stamp counter, which KVM's APIC always has.
const TSC_DEADLINE: u32 = 1 << 24;
/// Leaf 1, `ECX`: there is a hypervisor.
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1, `EDX`: the package has more than one processor.
const PACKAGE: u32 = 1 << 28;
/// Leaf 6: none of the machine's power management can be had.
const POWER: u32 = 6;
/// Leaf 10: counters of events, which would need the host's.
const COUNTERS: u32 = 0xa;

/// The leaves of the topology, older and newer; KVM leaves both empty.
const TOPOLOGY: u32 = 0xb;
const NEWER_TOPOLOGY: u32 = 0x1f;

/// The leaves for the processor `id` of `count`.
pub(super) fn of(supported: &CpuId, id: u32, count: u32) -> CpuId {
    let mut entries = supported.as_slice().to_vec();
    entries.retain(|entry| ![TOPOLOGY, NEWER_TOPOLOGY].contains(&entry.function));
    let mut levels = topology(id, count).to_vec();
    // One that does not fit into what the kernel takes is missed by nobody but a guest that asks for it.
    let room = kvm_bindings::KVM_MAX_CPUID_ENTRIES.saturating_sub(entries.len());
    levels.truncate(room);
    for entry in &mut entries {
        adapt(entry, id, count);
    }
    entries.extend(levels);
    CpuId::from_entries(&entries).unwrap_or_else(|_| supported.clone())
}

fn adapt(entry: &mut kvm_cpuid_entry2, id: u32, count: u32) {
    let width = count.next_power_of_two().trailing_zeros();
    match entry.function {
        1 => {
            entry.ebx = entry.ebx & 0x0000_ffff | count << 16 | id << 24;
            entry.ecx |= TSC_DEADLINE | HYPERVISOR;
            entry.edx &= !PACKAGE;
            entry.edx |= if count > 1 { PACKAGE } else { 0 };
        }
        4 => adapt_cache(entry, count, 26),
        POWER | COUNTERS => {
            (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0);
        }
        0x8000_0008 => entry.ecx = entry.ecx & !0xf0ff | (count - 1) | width << 12,
        0x8000_001d => adapt_cache(entry, count, u32::BITS),
        0x8000_001e => {
            entry.eax = id;
            entry.ebx = id & 0xff;
            entry.ecx = 0;
        }
        _ => {}
    }
}

/// Who shares a cache: nobody those of a core, all the last one. `cores` is the place of the number of cores, if there
/// is one.
fn adapt_cache(entry: &mut kvm_cpuid_entry2, count: u32, cores: u32) {
    if entry.eax & 0x1f == 0 {
        return;
    }
    let level = entry.eax >> 5 & 0x7;
    let sharing = if level >= 3 { count - 1 } else { 0 };
    entry.eax = entry.eax & 0x0000_3fff | sharing << 14;
    if cores < u32::BITS {
        entry.eax |= (count - 1) << cores;
    }
}

/// Levels of the topology: threads of a core (one), cores of the package (all), and the end.
fn topology(id: u32, count: u32) -> [kvm_cpuid_entry2; 3] {
    const THREADS: u32 = 1 << 8;
    const CORES: u32 = 2 << 8;
    let width = count.next_power_of_two().trailing_zeros();
    let level = |index, eax, ebx, ecx| kvm_cpuid_entry2 {
        function: TOPOLOGY,
        index,
        flags: kvm_bindings::KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax,
        ebx,
        ecx,
        edx: id,
        ..kvm_cpuid_entry2::default()
    };
    [
        level(0, 0, 1, THREADS),
        level(1, width, count, CORES | 1),
        level(2, 0, 0, 2),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32, index: u32, eax: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 {
            function,
            index,
            eax,
            ..kvm_cpuid_entry2::default()
        }
    }

    fn third_of_four(entry: kvm_cpuid_entry2) -> kvm_cpuid_entry2 {
        let supported = CpuId::from_entries(&[entry]).unwrap();
        of(&supported, 2, 4).as_slice()[0]
    }

    #[test]
    fn a_processor_knows_its_number_and_that_it_is_not_alone() {
        let first = third_of_four(leaf(1, 0, 0));
        assert_eq!((first.ebx >> 24, first.ebx >> 16 & 0xff), (2, 4));
        assert_eq!(first.edx & PACKAGE, PACKAGE);
        assert_eq!(
            first.ecx & (HYPERVISOR | TSC_DEADLINE),
            HYPERVISOR | TSC_DEADLINE
        );
    }

    #[test]
    fn cores_have_one_thread_and_the_package_has_all_cores() {
        let supported = CpuId::from_entries(&[leaf(0xb, 0, 7), leaf(0x1f, 0, 7)]).unwrap();
        let cpuid = of(&supported, 2, 4);
        let [threads, cores, _end] = cpuid.as_slice() else {
            unreachable!()
        };
        assert_eq!((threads.eax, threads.ebx, threads.edx), (0, 1, 2));
        assert_eq!((cores.eax, cores.ebx, cores.edx), (2, 4, 2));
    }

    #[test]
    fn only_the_last_cache_is_shared() {
        let first = third_of_four(leaf(4, 0, 1 << 5 | 1));
        let last = third_of_four(leaf(4, 3, 3 << 5 | 3));
        assert_eq!((first.eax >> 14 & 0xfff, first.eax >> 26), (0, 3));
        assert_eq!((last.eax >> 14 & 0xfff, last.eax >> 26), (3, 3));
    }
}
