//! libseccomp, used as runc uses it: what our programs are compared with.
#![expect(unsafe_code, reason = "libseccomp is a C library")]

use std::ffi::CStr;
use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::io::Seek;
use std::os::fd::AsRawFd;

use bulkhead::plan::seccomp::SockFilter;
use bulkhead::spec::seccomp::Action;
use bulkhead::spec::seccomp::Arch;
use bulkhead::spec::seccomp::Condition;
use bulkhead::spec::seccomp::Operator;
use bulkhead::spec::seccomp::Rule;
use bulkhead::spec::seccomp::Seccomp;
use libseccomp_sys as c;

/// libseccomp's refusal, as an errno.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused(pub(super) i32);

/// Compiles a profile with libseccomp as runc drives it, without runc's own stub for new calls.
pub(super) fn compile(profile: &Seccomp) -> Result<Vec<SockFilter>, Refused> {
    let default = value(profile.default_action.unwrap(), profile.default_errno_ret);
    let context = Context::new(default);
    for arch in &profile.architectures {
        context.add_architecture(token(*arch));
    }
    for rule in &profile.syscalls {
        let action = value(rule.action, rule.errno_ret);
        for name in rule.names.iter().filter(|_| action != default) {
            if let Some(number) = resolve(name) {
                context.add_rule(action, number, rule)?;
            }
        }
    }
    Ok(context.export())
}

/// The number that libseccomp gives to a call on an architecture; negative ones are its own.
fn number(arch: Arch, name: &str) -> Option<i32> {
    let name = CString::new(name).unwrap();
    // SAFETY: the name is a C string that lives through the call.
    let number = unsafe { c::seccomp_syscall_resolve_name_arch(token(arch), name.as_ptr()) };
    (number != c::__NR_SCMP_ERROR).then_some(number)
}

/// The numbers by which a program can make a call on an architecture: the call's own, and that of the
/// call that multiplexes it.
pub(super) fn real_numbers(arch: Arch, called: &str) -> Vec<u32> {
    let Some(number) = number(arch, called) else {
        return Vec::new();
    };
    let own = numbers(arch);
    let own = own.filter(|own| number < 0 && name(arch, *own).as_deref() == Some(called));
    let called = CString::new(called).unwrap();
    // SAFETY: the name is a C string that lives through the call.
    let multiplexer =
        unsafe { c::seccomp_syscall_resolve_name_rewrite(token(arch), called.as_ptr()) };
    own.chain([number, multiplexer])
        .filter_map(|number| u32::try_from(number).ok())
        .collect()
}

/// The numbers in which an architecture's calls are, and ARM's own.
pub(super) fn numbers(arch: Arch) -> impl Iterator<Item = i32> {
    let is = |archs: &[Arch]| archs.contains(&arch);
    let first = if is(&[Arch::Mips, Arch::Mipsel]) {
        4000
    } else if is(&[Arch::Mips64, Arch::Mipsel64]) {
        5000
    } else if is(&[Arch::Mips64N32, Arch::Mipsel64N32]) {
        6000
    } else if arch == Arch::X32 {
        0x4000_0000
    } else {
        0
    };
    (first..first + 600).chain(0xf_0001..0xf_0007)
}

/// The name that libseccomp gives to a number on an architecture.
pub(super) fn name(arch: Arch, number: i32) -> Option<String> {
    // SAFETY: takes two numbers; returns a string that is ours to free, or null.
    let name = unsafe { c::seccomp_syscall_resolve_num_arch(token(arch), number) };
    if name.is_null() {
        return None;
    }
    // SAFETY: not null, so it is a C string.
    let copy = unsafe { CStr::from_ptr(name) }.to_str().unwrap().to_owned();
    // SAFETY: libseccomp allocated it with malloc and nothing else holds it.
    unsafe { libc::free(name.cast_mut().cast()) };
    Some(copy)
}

/// `SCMP_ACT_*`, which are the kernel's `SECCOMP_RET_*`.
pub(super) fn value(action: Action, number: Option<u32>) -> u32 {
    let number = u16::try_from(number.unwrap_or(1)).unwrap();
    match action {
        Action::Kill | Action::KillThread => c::SCMP_ACT_KILL_THREAD,
        Action::KillProcess => c::SCMP_ACT_KILL_PROCESS,
        Action::Trap => c::SCMP_ACT_TRAP,
        Action::Errno => c::SCMP_ACT_ERRNO(number),
        Action::Trace => c::SCMP_ACT_TRACE(number),
        Action::Allow => c::SCMP_ACT_ALLOW,
        Action::Log => c::SCMP_ACT_LOG,
        Action::Notify => c::SCMP_ACT_NOTIFY,
    }
}

fn resolve(name: &str) -> Option<i32> {
    let name = CString::new(name).unwrap();
    // SAFETY: the name is a C string that lives through the call.
    let number = unsafe { c::seccomp_syscall_resolve_name(name.as_ptr()) };
    (number != c::__NR_SCMP_ERROR).then_some(number)
}

fn token(arch: Arch) -> u32 {
    match arch {
        Arch::X86 => c::SCMP_ARCH_X86,
        Arch::X86_64 => c::SCMP_ARCH_X86_64,
        Arch::X32 => c::SCMP_ARCH_X32,
        Arch::Arm => c::SCMP_ARCH_ARM,
        Arch::Aarch64 => c::SCMP_ARCH_AARCH64,
        Arch::Mips => c::SCMP_ARCH_MIPS,
        Arch::Mips64 => c::SCMP_ARCH_MIPS64,
        Arch::Mips64N32 => c::SCMP_ARCH_MIPS64N32,
        Arch::Mipsel => c::SCMP_ARCH_MIPSEL,
        Arch::Mipsel64 => c::SCMP_ARCH_MIPSEL64,
        Arch::Mipsel64N32 => c::SCMP_ARCH_MIPSEL64N32,
        Arch::Ppc => c::SCMP_ARCH_PPC,
        Arch::Ppc64 => c::SCMP_ARCH_PPC64,
        Arch::Ppc64Le => c::SCMP_ARCH_PPC64LE,
        Arch::S390 => c::SCMP_ARCH_S390,
        Arch::S390X => c::SCMP_ARCH_S390X,
        Arch::Parisc => c::SCMP_ARCH_PARISC,
        Arch::Parisc64 => c::SCMP_ARCH_PARISC64,
        Arch::Riscv64 => c::SCMP_ARCH_RISCV64,
        Arch::Loongarch64 | Arch::M68k | Arch::Sh | Arch::Sheb => {
            panic!("libseccomp 2.5 does not know {arch}")
        }
    }
}

/// A filter in the making.
struct Context(c::scmp_filter_ctx);

impl Context {
    fn new(default: u32) -> Self {
        // SAFETY: takes a number.
        let context = unsafe { c::seccomp_init(default) };
        assert!(
            !context.is_null(),
            "libseccomp knows the action {default:#x}"
        );
        Self(context)
    }

    fn add_architecture(&self, token: u32) {
        // SAFETY: the context is alive.
        let added = unsafe { c::seccomp_arch_add(self.0, token) };
        assert!(
            [0, -libc::EEXIST].contains(&added),
            "architecture {token:#x}: {added}"
        );
    }

    /// Where two conditions are on the same argument, one rule for each, as runc does.
    fn add_rule(&self, action: u32, number: i32, rule: &Rule) -> Result<(), Refused> {
        let mut indexes: Vec<u32> = rule.args.iter().map(|arg| arg.index).collect();
        indexes.sort_unstable();
        indexes.dedup();
        if indexes.len() == rule.args.len() {
            return self.add(action, number, &rule.args);
        }
        rule.args
            .chunks(1)
            .try_for_each(|condition| self.add(action, number, condition))
    }

    fn add(&self, action: u32, number: i32, conditions: &[Condition]) -> Result<(), Refused> {
        let conditions: Vec<c::scmp_arg_cmp> = conditions.iter().map(comparison).collect();
        let count = u32::try_from(conditions.len()).unwrap();
        // SAFETY: the context is alive, and the conditions are as many as said.
        let added = unsafe {
            c::seccomp_rule_add_array(self.0, action, number, count, conditions.as_ptr())
        };
        if added == 0 {
            Ok(())
        } else {
            Err(Refused(-added))
        }
    }

    fn export(&self) -> Vec<SockFilter> {
        let file = rustix::fs::memfd_create("filter", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        // SAFETY: the context and the descriptor are alive.
        let written = unsafe { c::seccomp_export_bpf(self.0, file.as_raw_fd()) };
        assert_eq!(written, 0, "libseccomp writes its program");
        let (mut file, mut bytes) = (File::from(file), Vec::new());
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes.chunks_exact(8).map(instruction).collect()
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: made by seccomp_init, and nobody uses it afterwards.
        unsafe { c::seccomp_release(self.0) }
    }
}

fn instruction(bytes: &[u8]) -> SockFilter {
    SockFilter {
        code: u16::from_le_bytes([bytes[0], bytes[1]]),
        jt: bytes[2],
        jf: bytes[3],
        k: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
    }
}

fn comparison(condition: &Condition) -> c::scmp_arg_cmp {
    use c::scmp_compare as how;
    c::scmp_arg_cmp {
        arg: condition.index,
        op: match condition.op {
            Operator::NotEqual => how::SCMP_CMP_NE,
            Operator::Less => how::SCMP_CMP_LT,
            Operator::LessOrEqual => how::SCMP_CMP_LE,
            Operator::Equal => how::SCMP_CMP_EQ,
            Operator::GreaterOrEqual => how::SCMP_CMP_GE,
            Operator::Greater => how::SCMP_CMP_GT,
            Operator::MaskedEqual => how::SCMP_CMP_MASKED_EQ,
        },
        datum_a: condition.value,
        datum_b: condition.value_two,
    }
}
