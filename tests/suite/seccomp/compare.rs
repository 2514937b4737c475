//! Asks two programs about every system call number and many arguments, and names the first difference.

use bulkhead::plan::seccomp;
use bulkhead::plan::seccomp::SockFilter;
use bulkhead::spec::seccomp::Action;
use bulkhead::spec::seccomp::Arch;
use bulkhead::spec::seccomp::Seccomp;

use super::bpf;
use super::bpf::SystemCall;
use super::oracle;

pub(super) const X86_64: u32 = 0xc000_003e;
const X32_BIT: u32 = 0x4000_0000;

/// What the kernel calls each architecture that libseccomp knows.
pub(super) const MACHINES: &[(Arch, u32)] = &[
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
];

fn audit(arch: Arch) -> u32 {
    MACHINES.iter().find(|(known, _)| *known == arch).unwrap().1
}

/// Every number that any table has, and the borders of what numbers can be.
pub(super) fn numbers() -> Vec<u32> {
    let borders = [
        X32_BIT - 1,
        0x7fff_ffff,
        0x8000_0000,
        0xbfff_ffff,
        0xc000_0000,
        0xffff_fffe,
        u32::MAX,
    ];
    (0..620)
        .chain(X32_BIT..X32_BIT + 620)
        .chain(4000..4620)
        .chain(5000..5620)
        .chain(6000..6620)
        .chain(0xf_0000..0xf_0010)
        .chain(borders)
        .collect()
}

/// Arguments around everything that a profile compares with, in every position, and some that it does not.
pub(super) fn arguments(profile: &Seccomp) -> Vec<[u64; 6]> {
    let conditions = profile.syscalls.iter().flat_map(|rule| &rule.args);
    let mut values: Vec<u64> = conditions
        .flat_map(|arg| [arg.value, arg.value_two])
        .collect();
    values.sort_unstable();
    values.dedup();
    let near = values.iter().flat_map(|&value| {
        [
            value,
            value.wrapping_sub(1),
            value.wrapping_add(1),
            value ^ 1 << 32,
            value << 32 | 5,
            !value,
        ]
    });
    let plain = [0, 1, u64::from(u32::MAX), u64::MAX, 1 << 32];
    near.chain(plain).map(|value| [value; 6]).collect()
}

/// The numbers of the calls that a profile names, and their neighbours.
pub(super) fn numbers_of(profile: &Seccomp) -> Vec<u32> {
    let archs = || profile.architectures.iter().copied().chain([Arch::X86_64]);
    let names = profile.syscalls.iter().flat_map(|rule| &rule.names);
    let named = names.flat_map(|name| archs().flat_map(|arch| oracle::real_numbers(arch, name)));
    let mut numbers: Vec<u32> = named
        .flat_map(|number| [number, number + 1, number ^ X32_BIT])
        .chain([0, 999])
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// Arguments that differ from each other, each of a value around what a profile compares with.
pub(super) fn mixtures(profile: &Seccomp) -> Vec<[u64; 6]> {
    let values: Vec<u64> = arguments(profile)
        .into_iter()
        .map(|[value, ..]| value)
        .collect();
    let mut state = 88_172_645_463_325_252_u64;
    let mut chosen = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        values[usize::try_from(state % values.len() as u64).unwrap()]
    };
    (0..48).map(|_| std::array::from_fn(|_| chosen())).collect()
}

/// What our program and runc's would say to a call.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) call: SystemCall,
    pub(super) ours: u32,
    pub(super) theirs: u32,
}

/// The first call that is treated otherwise by us than by runc, which puts its own stub before
/// libseccomp's program.
pub(super) fn difference(
    profile: &Seccomp,
    theirs: &[SockFilter],
    numbers: &[u32],
    arguments: &[[u64; 6]],
) -> Option<Difference> {
    let ours = seccomp::compile(profile, Arch::X86_64)
        .expect("a valid profile")
        .instructions;
    let newest = Newest::of(profile);
    let unlisted = 0x8000_0016;
    let mut machines: Vec<u32> = profile.architectures.iter().copied().map(audit).collect();
    machines.extend([X86_64, unlisted]);
    let calls = machines
        .into_iter()
        .flat_map(|arch| numbers.iter().map(move |&number| (arch, number)));
    calls
        .flat_map(|(arch, number)| {
            arguments
                .iter()
                .map(move |&args| SystemCall { number, arch, args })
        })
        .find_map(|call| {
            let ours = bpf::run(&ours, &call);
            let theirs = newest
                .stub(&call)
                .unwrap_or_else(|| bpf::run(theirs, &call));
            (ours != theirs).then_some(Difference { call, ours, theirs })
        })
}

/// runc's rule for calls that are newer than the profile: the greatest number that libseccomp gives to any
/// name of the profile on an architecture is the last that is answered by the profile. Where libseccomp
/// gives a number of its own, because the call can be multiplexed, runc looks no further; here the number
/// of the call or of its multiplexer counts.
struct Newest {
    of: Vec<(Arch, u32)>,
}

impl Newest {
    fn of(profile: &Seccomp) -> Self {
        let permissive = [Action::Allow, Action::Log, Action::Trace];
        if permissive.contains(&profile.default_action.unwrap()) {
            return Self { of: Vec::new() };
        }
        let mut archs = profile.architectures.clone();
        archs.push(Arch::X86_64);
        let names = || profile.syscalls.iter().flat_map(|rule| &rule.names);
        let greatest = |arch| {
            let numbers = names().flat_map(move |name| oracle::real_numbers(arch, name));
            numbers.max().filter(|max| *max > 0)
        };
        Self {
            of: archs
                .into_iter()
                .filter_map(|arch| Some((arch, greatest(arch)?)))
                .collect(),
        }
    }

    fn stub(&self, call: &SystemCall) -> Option<u32> {
        let x32 = call.number & X32_BIT != 0;
        let same = |arch: Arch| audit(arch) == call.arch && x32 == (arch == Arch::X32);
        let same = |arch: Arch| {
            if call.arch == X86_64 {
                same(arch)
            } else {
                audit(arch) == call.arch
            }
        };
        let (_, newest) = self.of.iter().find(|(arch, _)| same(*arch))?;
        (call.number > *newest).then_some(oracle::value(Action::Errno, Some(38)))
    }
}
