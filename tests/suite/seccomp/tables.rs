//! The numbers in our table are those that libseccomp knows.

use bulkhead::plan::seccomp;
use bulkhead::spec::seccomp::Action;
use bulkhead::spec::seccomp::Arch;
use bulkhead::spec::seccomp::Rule;
use bulkhead::spec::seccomp::Seccomp;

use super::bpf;
use super::bpf::SystemCall;
use super::compare;
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
    let machines = compare::MACHINES.iter();
    let wrong: Vec<String> = machines
        .flat_map(|&(arch, audit)| wrong(arch, audit))
        .collect();
    assert_eq!(wrong, Vec::<String>::new());
}
