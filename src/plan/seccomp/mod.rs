//! Compiles a seccomp profile to the classic BPF program that the kernel runs at every system call.
//!
//! A profile means here what it means to runc with libseccomp, verdict for verdict; the tests compare the
//! programs of both. What differs is the shape: the kernel is given ranges of numbers as a balanced tree,
//! made in tens of microseconds from a table that is built by the compiler.
//!
//! How names, several rules for one call, conditions and newer calls are treated is said in the modules
//! `names`, `verdict`, `clause` and `unnamed`.

mod clause;
mod machine;
mod names;
mod program;
mod tree;
mod unnamed;
mod verdict;

use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use crate::spec::seccomp::Action;
use crate::spec::seccomp::Arch;
use crate::spec::seccomp::Flag;
use crate::spec::seccomp::Seccomp;
use crate::spec::seccomp::SeccompSpecError;

pub use machine::native;

use self::machine::Machine;
use self::program::Compare;
use self::program::Program;
use self::verdict::Rules;

/// Longest program that the kernel takes (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// What a call of an architecture that the profile does not list gets: the end of the thread.
const BAD_ARCHITECTURE: u32 = 0;

/// `EPERM`: what a denied call returns where the profile names no number.
const DEFAULT_ERRNO: u32 = 1;

/// `ENOSYS`.
const NOT_IMPLEMENTED: u32 = 38;

/// A compiled profile, ready to be loaded by the process it confines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// The program, at most [`MAX_INSTRUCTIONS`] long.
    pub instructions: Vec<SockFilter>,
    /// `SECCOMP_FILTER_FLAG_*` for `seccomp(2)`.
    pub flags: u64,
    /// Who is asked about calls that the profile leaves to an agent; then `flags` ask for a listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<Listener>,
}

/// The agent that answers for the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Its socket on the host.
    pub path: PathBuf,
    /// What it is told with the descriptor, unread by us.
    pub metadata: String,
}

/// One instruction of classic BPF, as `struct sock_filter` of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u16, u8, u8, u32)", into = "(u16, u8, u8, u32)")]
pub struct SockFilter {
    /// What is done.
    pub code: u16,
    /// Instructions to skip if a comparison holds.
    pub jt: u8,
    /// Instructions to skip if it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

impl From<(u16, u8, u8, u32)> for SockFilter {
    fn from((code, jt, jf, k): (u16, u8, u8, u32)) -> Self {
        Self { code, jt, jf, k }
    }
}

impl From<SockFilter> for (u16, u8, u8, u32) {
    fn from(SockFilter { code, jt, jf, k }: SockFilter) -> Self {
        (code, jt, jf, k)
    }
}

/// Why a profile cannot be compiled. Each message starts with the field at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeccompError {
    /// The profile does not say what to do.
    #[error(transparent)]
    Spec(#[from] SeccompSpecError),
    /// An architecture was listed whose system call numbers are unknown.
    #[error("linux.seccomp.architectures[{index}]: the system calls of {arch} are not known")]
    NoTable {
        /// Position in the list.
        index: usize,
        /// What was listed.
        arch: Arch,
    },
    /// One filter cannot serve machines of both byte orders.
    #[error(
        "linux.seccomp.architectures[{index}]: {arch} has another byte order than this machine"
    )]
    OtherByteOrder {
        /// Position in the list.
        index: usize,
        /// What was listed.
        arch: Arch,
    },
    /// Two rules have the same conditions for the same call, and different actions.
    #[error("linux.seccomp.syscalls[{rule}]: differs from syscalls[{other}] only in what is done")]
    Contradiction {
        /// Position of the later rule.
        rule: usize,
        /// Position of the earlier one.
        other: usize,
    },
    /// The rules are too many for one filter.
    #[error(
        "linux.seccomp.syscalls: {needed} instructions are needed, the kernel takes {MAX_INSTRUCTIONS}"
    )]
    TooLong {
        /// Length of the program.
        needed: usize,
    },
}

/// Compiles a profile for a machine whose programs are of the architecture `native` (see [`native()`]),
/// which is allowed beside those that the profile lists. Not to be asked for a profile that
/// [is absent](Seccomp::is_absent).
///
/// # Errors
///
/// Fails where the profile is no valid one, where an architecture is unknown, and where the program
/// would be longer than the kernel takes.
pub fn compile(profile: &Seccomp, native: Arch) -> Result<Filter, SeccompError> {
    profile.validate()?;
    let action = profile
        .default_action
        .ok_or(SeccompSpecError::NoDefaultAction)?;
    let default = returned(action, profile.default_errno_ret);
    let newer = match action {
        Action::Allow | Action::Log | Action::Trace => default,
        Action::Kill
        | Action::KillThread
        | Action::KillProcess
        | Action::Trap
        | Action::Errno
        | Action::Notify => returned(Action::Errno, Some(NOT_IMPLEMENTED)),
    };
    let rules = Rules::new(profile, default, newer);

    let machines = machines(profile, native)?;
    let mut program = Program::new(machines.first().is_some_and(Machine::is_big_endian));
    let mut entries = Vec::new();
    for same in machines.chunk_by(|one, other| one.audit == other.audit) {
        let ranges = rules.ranges(same)?;
        let audit = same.first().map_or(0, |machine| machine.audit);
        entries.push((audit, tree::write(&mut program, &ranges, default)));
    }
    let mut next = program.returns(BAD_ARCHITECTURE);
    for (audit, entry) in entries {
        next = program.branch(Compare::Equal, audit, entry, next);
    }
    program.load_architecture();
    let instructions = program.finish();
    if instructions.len() > MAX_INSTRUCTIONS {
        return Err(SeccompError::TooLong {
            needed: instructions.len(),
        });
    }
    Ok(Filter {
        instructions,
        flags: flags(profile),
        listener: listener(profile),
    })
}

/// The machines a filter is for: the native one last, so that it is asked for first; those that the
/// kernel cannot tell apart by name stand together.
fn machines(profile: &Seccomp, native: Arch) -> Result<Vec<Machine>, SeccompError> {
    let own = Machine::of(native).ok_or(SeccompError::NoTable {
        index: 0,
        arch: native,
    })?;
    let mut machines = vec![own];
    for (index, &arch) in profile.architectures.iter().enumerate() {
        let machine = Machine::of(arch).ok_or(SeccompError::NoTable { index, arch })?;
        if machine.is_big_endian() != own.is_big_endian() {
            return Err(SeccompError::OtherByteOrder { index, arch });
        }
        if !machines.contains(&machine) {
            machines.push(machine);
        }
    }
    machines.sort_by_key(|machine| (machine.audit == own.audit, machine.audit));
    Ok(machines)
}

/// What a filter returns for an action (`SECCOMP_RET_*`).
fn returned(action: Action, number: Option<u32>) -> u32 {
    let data = number.unwrap_or(DEFAULT_ERRNO) & 0xffff;
    match action {
        Action::Kill | Action::KillThread => 0x0000_0000,
        Action::KillProcess => 0x8000_0000,
        Action::Trap => 0x0003_0000,
        Action::Errno => 0x0005_0000 | data,
        Action::Notify => 0x7fc0_0000,
        Action::Trace => 0x7ff0_0000 | data,
        Action::Log => 0x7ffc_0000,
        Action::Allow => 0x7fff_0000,
    }
}

/// The kernel gives a descriptor for the agent.
const NEW_LISTENER: u64 = 1 << 3;

/// What the kernel is asked with for a flag (`SECCOMP_FILTER_FLAG_*`).
#[must_use]
pub fn bits(flag: Flag) -> u64 {
    match flag {
        Flag::Tsync => 1,
        Flag::Log => 1 << 1,
        Flag::SpecAllow => 1 << 2,
        // The kernel takes this only where there is somebody to wait for.
        Flag::WaitKillableRecv => 1 << 5 | NEW_LISTENER,
    }
}

/// How the filter is loaded.
fn flags(profile: &Seccomp) -> u64 {
    const TSYNC_ESRCH: u64 = 1 << 4;
    const TSYNC: u64 = 1;
    let notifies = profile.notifies();
    let asked = profile.load_flags().iter();
    let asked = asked.filter(|flag| notifies || **flag != Flag::WaitKillableRecv);
    let asked = asked.fold(0, |flags, flag| flags | bits(*flag));
    let listens = if notifies { NEW_LISTENER } else { 0 };
    // Both return something, so the kernel wants to be told which.
    let both = if notifies && asked & TSYNC != 0 {
        TSYNC_ESRCH
    } else {
        0
    };
    asked | listens | both
}

fn listener(profile: &Seccomp) -> Option<Listener> {
    let path = profile.listener().filter(|_| profile.notifies())?;
    let metadata = profile.listener_metadata.clone().unwrap_or_default();
    Some(Listener {
        path: path.clone(),
        metadata,
    })
}
