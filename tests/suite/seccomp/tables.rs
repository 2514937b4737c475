//! The numbers in our table are those that libseccomp knows.

use bulkhead::plan::seccomp;
use bulkhead::spec::seccomp::Action;
use bulkhead::spec::seccomp::Arch;
use bulkhead::spec::seccomp::Rule;
use bulkhead::spec::seccomp::Seccomp;

use super::bpf;
use super::bpf::SystemCall;
use super::oracle;

/// Every call of an architecture that libseccomp knows, and its number.
fn known(arch: Arch) -> Vec<(u32, String)> {
    oracle::numbers(arch)
        .filter_map(|number| Some((u32::try_from(number).ok()?, oracle::name(arch, number)?)))
        .filter(|(number, name)| oracle::real_numbers(arch, name).contains(number))
        .collect()
}

/// Names that are given another number by our program than by libseccomp. Each call returns a number of
/// its own, so one program answers for the whole table.
fn wrong(arch: Arch, audit: u32) -> Vec<String> {
    let known = known(arch);
    assert!(known.len() > 300, "libseccomp knows {arch}");
    let rules = (1..).zip(&known).map(|(at, (_, name))| Rule {
        names: vec![name.clone()],
        action: Action::Trace,
        errno_ret: Some(at),
        args: Vec::new(),
    });
    let profile = Seccomp {
        default_action: Some(Action::Allow),
        syscalls: rules.collect(),
        ..Seccomp::default()
    };
    let program = seccomp::compile(&profile, arch).unwrap().instructions;
    let verdict = |number| {
        bpf::run(
            &program,
            &SystemCall {
                number,
                arch: audit,
                args: [0; 6],
            },
        )
    };
    (1..)
        .zip(known)
        .filter(|(at, (number, _))| verdict(*number) != oracle::value(Action::Trace, Some(*at)))
        .map(|(_, (number, name))| format!("{arch} {name} {number}"))
        .collect()
}

#[test]
fn every_number_that_libseccomp_knows_is_in_the_table() {
    let wrong: Vec<String> = [
        (Arch::X86_64, 0xc000_003e),
        (Arch::X86, 0x4000_0003),
        (Arch::X32, 0xc000_003e),
        (Arch::Arm, 0x4000_0028),
        (Arch::Aarch64, 0xc000_00b7),
        (Arch::Mips, 0x0000_0008),
        (Arch::Mips64, 0x8000_0008),
        (Arch::Mips64N32, 0xa000_0008),
        (Arch::Mipsel, 0x4000_0008),
        (Arch::Mipsel64, 0xc000_0008),
        (Arch::Mipsel64N32, 0xe000_0008),
        (Arch::Ppc, 0x0000_0014),
        (Arch::Ppc64, 0x8000_0015),
        (Arch::Ppc64Le, 0xc000_0015),
        (Arch::S390, 0x0000_0016),
        (Arch::S390X, 0x8000_0016),
        (Arch::Parisc, 0x0000_000f),
        (Arch::Parisc64, 0x8000_000f),
        (Arch::Riscv64, 0xc000_00f3),
    ]
    .into_iter()
    .flat_map(|(arch, audit)| wrong(arch, audit))
    .collect();
    assert_eq!(wrong, Vec::<String>::new());
}
