//! Plans the program: its limits, identity and rights, in the one order in which they can be taken.
//!
//! What needs a right comes before the right is given up; what takes effect at `execve(2)` comes last.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::plan::Options;
use crate::plan::Outside;
use crate::plan::ProcessPlan;
use crate::plan::error::PlanError;
use crate::plan::namespaces;
use crate::plan::seccomp;
use crate::plan::step::Barrier;
use crate::plan::step::Capabilities;
use crate::plan::step::Console;
use crate::plan::step::Label;
use crate::plan::step::Limit;
use crate::plan::step::Program;
use crate::plan::step::Scheduling;
use crate::plan::step::Step;
use crate::plan::step::User;
use crate::spec::Spec;
use crate::spec::capability;
use crate::spec::list;
use crate::spec::process::IoPriorityClass;
use crate::spec::process::Process;
use crate::spec::process::RlimitKind;
use crate::spec::process::Scheduler;
use crate::spec::process::SchedulerFlag;
use crate::spec::process::SchedulerPolicy;

/// `CAP_SYS_ADMIN`, which loading a filter without `no_new_privs` needs.
const SYS_ADMIN: u64 = 1 << 21;
/// What files are not allowed by default (runtime-spec leaves it to the runtime; as the others do).
const UMASK: u32 = 0o022;

/// Plans one more program in a workspace that was made from `spec`.
///
/// # Errors
///
/// As [`crate::plan::build`].
pub fn exec(spec: &Spec, process: &Process, options: &Options) -> Result<ProcessPlan, PlanError> {
    let affinity = process.exec_cpu_affinity.clone().unwrap_or_default();
    let mut steps = vec![Step::Session];
    if process.terminal {
        steps.push(console(process, false));
    }
    let inside = namespaces::of(spec).has(namespaces::USER);
    let waits = process.oom_score_adj.is_some() || (inside && !process.rlimits.is_empty());
    let outside = Outside {
        oom_score: process.oom_score_adj,
        limits: if inside { limits(process) } else { Vec::new() },
        interfaces: Vec::new(),
    };
    if waits || options.placed_later {
        steps.push(Step::Await(Barrier::Outside));
    }
    let last = cpus(&affinity.last);
    if !last.is_empty() {
        steps.push(Step::Affinity(last));
    }
    steps.extend(labels(process, options)?);
    steps.extend(tuning(spec, process, inside));
    let Rights { before, after } = rights(spec, process, options)?;
    steps.extend(before);
    steps.extend(after);
    Ok(ProcessPlan {
        initial_cpus: cpus(&affinity.initial),
        outside,
        steps,
    })
}

fn cpus(text: &str) -> Vec<u32> {
    list::ranges(text)
        .unwrap_or_default()
        .into_iter()
        .flatten()
        .collect()
}

/// The terminal of a program.
pub(super) fn console(process: &Process, mount: bool) -> Step {
    let size = process.console_size.unwrap_or_default();
    let short = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    Step::Console(Console {
        rows: short(size.height),
        columns: short(size.width),
        uid: process.user.uid,
        mount,
    })
}

/// The labels that security modules are asked for.
pub(super) fn labels(process: &Process, options: &Options) -> Result<Vec<Step>, PlanError> {
    let mut steps = Vec::new();
    if !process.apparmor_profile.is_empty() {
        if !options.apparmor {
            let profile = process.apparmor_profile.clone();
            return Err(PlanError::NoAppArmor { profile });
        }
        steps.push(Step::Label(Label::AppArmor(
            process.apparmor_profile.clone(),
        )));
    }
    if !process.selinux_label.is_empty() {
        need_selinux("process.selinuxLabel", &process.selinux_label, options)?;
        steps.push(Step::Label(Label::Selinux(process.selinux_label.clone())));
    }
    Ok(steps)
}

/// Refuses a label where nobody would enforce it.
pub(super) fn need_selinux(
    field: &'static str,
    label: &str,
    options: &Options,
) -> Result<(), PlanError> {
    if options.selinux || label.is_empty() {
        return Ok(());
    }
    let label = label.to_owned();
    Err(PlanError::NoSelinux { field, label })
}

/// Limits, scheduling and memory placement.
pub(super) fn tuning(spec: &Spec, process: &Process, limits_outside: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    if !limits_outside {
        steps.extend(limits(process).into_iter().map(Step::Rlimit));
    }
    if let Some(scheduler) = &process.scheduler {
        steps.push(Step::Schedule(scheduling(scheduler)));
    }
    if let Some(priority) = &process.io_priority {
        let class = match priority.class {
            IoPriorityClass::RealTime => 1,
            IoPriorityClass::BestEffort => 2,
            IoPriorityClass::Idle => 3,
        };
        let level = u32::try_from(priority.priority).unwrap_or_default();
        steps.push(Step::IoPriority { class, level });
    }
    steps.extend(machine(spec));
    steps.push(Step::Umask(process.user.umask.unwrap_or(UMASK)));
    steps
}

/// What the spec says of the machine as the program sees it: memory policy and personality.
fn machine(spec: &Spec) -> Vec<Step> {
    let mut steps = Vec::new();
    if let Some(policy) = &spec.linux.memory_policy {
        let flags = policy.flags.iter().map(|flag| memory_flag(*flag));
        steps.push(Step::MemoryPolicy {
            mode: flags.fold(memory_mode(policy.mode), |mode, flag| mode | flag),
            nodes: cpus(&policy.nodes),
        });
    }
    if let Some(personality) = &spec.linux.personality {
        use crate::spec::linux::PersonalityDomain;
        steps.push(Step::Personality(match personality.domain {
            PersonalityDomain::Linux => 0,
            PersonalityDomain::Linux32 => 8,
        }));
    }
    steps
}

/// `MPOL_*` of `linux/mempolicy.h`.
fn memory_mode(mode: crate::spec::linux::MemoryPolicyMode) -> u32 {
    use crate::spec::linux::MemoryPolicyMode;
    match mode {
        MemoryPolicyMode::Default => 0,
        MemoryPolicyMode::Preferred => 1,
        MemoryPolicyMode::Bind => 2,
        MemoryPolicyMode::Interleave => 3,
        MemoryPolicyMode::Local => 4,
        MemoryPolicyMode::PreferredMany => 5,
        MemoryPolicyMode::WeightedInterleave => 6,
    }
}

/// `MPOL_F_*` of `linux/mempolicy.h`.
fn memory_flag(flag: crate::spec::linux::MemoryPolicyFlag) -> u32 {
    use crate::spec::linux::MemoryPolicyFlag;
    match flag {
        MemoryPolicyFlag::NumaBalancing => 1 << 13,
        MemoryPolicyFlag::RelativeNodes => 1 << 14,
        MemoryPolicyFlag::StaticNodes => 1 << 15,
    }
}

fn scheduling(asked: &Scheduler) -> Scheduling {
    Scheduling {
        policy: match asked.policy {
            SchedulerPolicy::Other => 0,
            SchedulerPolicy::Fifo => 1,
            SchedulerPolicy::Rr => 2,
            SchedulerPolicy::Batch => 3,
            SchedulerPolicy::Iso => 4,
            SchedulerPolicy::Idle => 5,
            SchedulerPolicy::Deadline => 6,
        },
        flags: asked
            .flags
            .iter()
            .fold(0, |flags, flag| flags | scheduler_flag(*flag)),
        nice: asked.nice,
        priority: u32::try_from(asked.priority).unwrap_or_default(),
        runtime: asked.runtime,
        deadline: asked.deadline,
        period: asked.period,
    }
}

/// `SCHED_FLAG_*` of `linux/sched.h`.
fn scheduler_flag(flag: SchedulerFlag) -> u64 {
    match flag {
        SchedulerFlag::ResetOnFork => 0x01,
        SchedulerFlag::Reclaim => 0x02,
        SchedulerFlag::DlOverrun => 0x04,
        SchedulerFlag::KeepPolicy => 0x08,
        SchedulerFlag::KeepParams => 0x10,
        SchedulerFlag::UtilClampMin => 0x20,
        SchedulerFlag::UtilClampMax => 0x40,
    }
}

/// The resource limits of a program.
pub(super) fn limits(process: &Process) -> Vec<Limit> {
    process
        .rlimits
        .iter()
        .map(|limit| {
            let (resource, name) = resource(limit.kind);
            Limit {
                name: name.to_owned(),
                resource,
                soft: limit.soft,
                hard: limit.hard,
            }
        })
        .collect()
}

/// `RLIMIT_*` of `asm-generic/resource.h`.
fn resource(kind: RlimitKind) -> (u32, &'static str) {
    match kind {
        RlimitKind::Cpu => (0, "RLIMIT_CPU"),
        RlimitKind::Fsize => (1, "RLIMIT_FSIZE"),
        RlimitKind::Data => (2, "RLIMIT_DATA"),
        RlimitKind::Stack => (3, "RLIMIT_STACK"),
        RlimitKind::Core => (4, "RLIMIT_CORE"),
        RlimitKind::Rss => (5, "RLIMIT_RSS"),
        RlimitKind::Nproc => (6, "RLIMIT_NPROC"),
        RlimitKind::Nofile => (7, "RLIMIT_NOFILE"),
        RlimitKind::Memlock => (8, "RLIMIT_MEMLOCK"),
        RlimitKind::As => (9, "RLIMIT_AS"),
        RlimitKind::Locks => (10, "RLIMIT_LOCKS"),
        RlimitKind::Sigpending => (11, "RLIMIT_SIGPENDING"),
        RlimitKind::Msgqueue => (12, "RLIMIT_MSGQUEUE"),
        RlimitKind::Nice => (13, "RLIMIT_NICE"),
        RlimitKind::Rtprio => (14, "RLIMIT_RTPRIO"),
        RlimitKind::Rttime => (15, "RLIMIT_RTTIME"),
    }
}

/// The last steps of every program, around the point where a first program waits for its start.
pub(super) struct Rights {
    /// Up to the point where all is built.
    pub(super) before: Vec<Step>,
    /// From the start on.
    pub(super) after: Vec<Step>,
}

/// Plans identity, capabilities, filter and the program itself.
///
/// A filter that is loaded without `no_new_privs` needs `CAP_SYS_ADMIN`. It is still loaded last, so that it
/// needs to allow nothing of ours but the dropping of that one capability and `execve(2)`.
pub(super) fn rights(
    spec: &Spec,
    process: &Process,
    options: &Options,
) -> Result<Rights, PlanError> {
    let wanted = capabilities(process);
    let bounding = process
        .capabilities
        .as_ref()
        .map_or(0, |sets| capability::bits(&sets.bounding));
    let filter = match &spec.linux.seccomp {
        Some(profile) if !profile.is_absent() => {
            Some(Box::new(seccomp::compile(profile, seccomp::native())?))
        }
        _ => None,
    };
    let late = filter.is_some() && !process.no_new_privileges;
    let held = if late {
        Capabilities {
            effective: wanted.effective | SYS_ADMIN,
            permitted: wanted.permitted | SYS_ADMIN,
            inheritable: wanted.inheritable,
            ambient: 0,
        }
    } else {
        wanted
    };
    let program = Box::new(program(process, options));
    let mut before = Vec::new();
    if process.no_new_privileges {
        before.push(Step::NoNewPrivileges);
    }
    before.extend([
        Step::WorkingDirectory(process.cwd.clone()),
        Step::Bound(bounding),
        Step::Become(user(process, options)),
        Step::Capabilities(held),
        Step::Lookup(program.clone()),
    ]);
    let mut after = Vec::new();
    after.extend(filter.map(Step::Seccomp));
    if late {
        after.push(Step::Capabilities(wanted));
    }
    after.push(Step::Execute(program));
    Ok(Rights { before, after })
}

fn capabilities(process: &Process) -> Capabilities {
    process
        .capabilities
        .as_ref()
        .map_or_else(Capabilities::default, |sets| Capabilities {
            effective: capability::bits(&sets.effective),
            permitted: capability::bits(&sets.permitted),
            inheritable: capability::bits(&sets.inheritable),
            ambient: capability::bits(&sets.ambient),
        })
}

fn user(process: &Process, options: &Options) -> User {
    let groups = process.user.additional_gids.clone();
    User {
        uid: process.user.uid,
        gid: process.user.gid,
        groups: (!options.rootless || !groups.is_empty()).then_some(groups),
    }
}

fn program(process: &Process, options: &Options) -> Program {
    Program {
        arguments: process.args.clone(),
        environment: last_of_each(&process.env),
        uid: process.user.uid,
        preserved: options.preserved,
    }
}

/// Where a name is given twice, the last value counts; programs would see the first.
fn last_of_each(entries: &[String]) -> Vec<String> {
    let mut places: HashMap<&str, usize> = HashMap::with_capacity(entries.len());
    let mut kept: Vec<String> = Vec::with_capacity(entries.len());
    for entry in entries {
        match places.entry(entry.split('=').next().unwrap_or_default()) {
            Entry::Occupied(place) => {
                if let Some(earlier) = kept.get_mut(*place.get()) {
                    earlier.clone_from(entry);
                }
            }
            Entry::Vacant(place) => {
                place.insert(kept.len());
                kept.push(entry.clone());
            }
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_a_name_counts() {
        let entries = ["PATH=/a".to_owned(), "B=1".to_owned(), "PATH=/b".to_owned()];
        assert_eq!(last_of_each(&entries), ["PATH=/b", "B=1"]);
    }
}
