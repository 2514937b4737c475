//! The program to run, and all that it is given: its identity, limits, rights and place in the scheduler.

use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use super::absent::is_default;
use super::absent::null_is_default;

/// The first process of a container, or one that `exec` adds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// Whether its standard streams are a terminal of its own.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub terminal: bool,
    /// How large that terminal is at first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console_size: Option<ConsoleSize>,
    /// Who it runs as.
    #[serde(default, deserialize_with = "null_is_default")]
    pub user: User,
    /// The program and its arguments.
    #[serde(default, deserialize_with = "null_is_default")]
    pub args: Vec<String>,
    /// Its whole environment, `KEY=value`.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub env: Vec<String>,
    /// Where it starts, absolute inside the container.
    #[serde(default, deserialize_with = "null_is_default")]
    pub cwd: PathBuf,
    /// Which capabilities it has; absent means none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// Limits for it alone.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub rlimits: Vec<Rlimit>,
    /// Whether no program it runs can gain rights.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub no_new_privileges: bool,
    /// The AppArmor profile that it enters; empty for none.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub apparmor_profile: String,
    /// How gladly the kernel kills it when memory ends, -1000 to 1000; absent leaves it alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// The SELinux label that it runs under; empty for none.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub selinux_label: String,
    /// How the kernel schedules it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Scheduler>,
    /// How its input and output are ranked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_priority: Option<IoPriority>,
    /// Where `exec` runs it.
    #[serde(rename = "execCPUAffinity", skip_serializing_if = "Option::is_none")]
    pub exec_cpu_affinity: Option<CpuAffinity>,
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsoleSize {
    /// Lines.
    pub height: u32,
    /// Columns.
    pub width: u32,
}

/// Who a process runs as, in numbers of the container's user namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// User id.
    #[serde(default, deserialize_with = "null_is_default")]
    pub uid: u32,
    /// Group id.
    #[serde(default, deserialize_with = "null_is_default")]
    pub gid: u32,
    /// The mask for new files; absent means 0022.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub umask: Option<u32>,
    /// Further groups.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub additional_gids: Vec<u32>,
}

/// The five capability sets, by name as they were given: a name that nobody knows is warned about and passed over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Capabilities {
    /// What programs it runs can ever have.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub bounding: Vec<String>,
    /// What counts when the kernel checks.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub effective: Vec<String>,
    /// What is kept for programs that ask for it.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub inheritable: Vec<String>,
    /// What it may make effective.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub permitted: Vec<String>,
    /// What programs it runs get without asking.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub ambient: Vec<String>,
}

impl Capabilities {
    /// Each set with its name in `config.json`.
    pub fn by_name(&self) -> [(&'static str, &[String]); 5] {
        [
            ("bounding", &self.bounding),
            ("effective", &self.effective),
            ("inheritable", &self.inheritable),
            ("permitted", &self.permitted),
            ("ambient", &self.ambient),
        ]
    }
}

/// One limit of `setrlimit(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// What is limited.
    #[serde(rename = "type")]
    pub kind: RlimitKind,
    /// What counts; `u64::MAX` is no limit.
    pub soft: u64,
    /// Up to where the process may raise it; `u64::MAX` is no limit.
    pub hard: u64,
}

/// What a limit of `setrlimit(2)` limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RlimitKind {
    /// Address space, bytes.
    #[serde(rename = "RLIMIT_AS")]
    As,
    /// A core file, bytes.
    #[serde(rename = "RLIMIT_CORE")]
    Core,
    /// Processor time, seconds.
    #[serde(rename = "RLIMIT_CPU")]
    Cpu,
    /// Data segment, bytes.
    #[serde(rename = "RLIMIT_DATA")]
    Data,
    /// A file, bytes.
    #[serde(rename = "RLIMIT_FSIZE")]
    Fsize,
    /// File locks.
    #[serde(rename = "RLIMIT_LOCKS")]
    Locks,
    /// Locked memory, bytes.
    #[serde(rename = "RLIMIT_MEMLOCK")]
    Memlock,
    /// POSIX message queues, bytes.
    #[serde(rename = "RLIMIT_MSGQUEUE")]
    Msgqueue,
    /// How far nice may be lowered: 20 minus the value.
    #[serde(rename = "RLIMIT_NICE")]
    Nice,
    /// Descriptors.
    #[serde(rename = "RLIMIT_NOFILE")]
    Nofile,
    /// Processes of the user.
    #[serde(rename = "RLIMIT_NPROC")]
    Nproc,
    /// Resident memory; without effect since Linux 2.4.30.
    #[serde(rename = "RLIMIT_RSS")]
    Rss,
    /// Real-time priority.
    #[serde(rename = "RLIMIT_RTPRIO")]
    Rtprio,
    /// Processor time of a real-time process without a blocking call, microseconds.
    #[serde(rename = "RLIMIT_RTTIME")]
    Rttime,
    /// Queued signals of the user.
    #[serde(rename = "RLIMIT_SIGPENDING")]
    Sigpending,
    /// Stack, bytes.
    #[serde(rename = "RLIMIT_STACK")]
    Stack,
}

/// How the kernel schedules a process: `sched_setattr(2)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scheduler {
    /// By which rule.
    pub policy: SchedulerPolicy,
    /// -20 to 19, for `SCHED_OTHER` and `SCHED_BATCH`.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub nice: i32,
    /// 1 to 99, for `SCHED_FIFO` and `SCHED_RR`.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub priority: i32,
    /// Refinements.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub flags: Vec<SchedulerFlag>,
    /// Nanoseconds it may run in a period, for `SCHED_DEADLINE`.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub runtime: u64,
    /// Nanoseconds within which it must have run, for `SCHED_DEADLINE`.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub deadline: u64,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub period: u64,
}

/// A scheduling rule of `sched(7)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SchedulerPolicy {
    /// Shared fairly.
    #[serde(rename = "SCHED_OTHER")]
    Other,
    /// First in, first out, until it blocks.
    #[serde(rename = "SCHED_FIFO")]
    Fifo,
    /// As `SCHED_FIFO`, with time slices.
    #[serde(rename = "SCHED_RR")]
    Rr,
    /// Shared fairly, never seen as interactive.
    #[serde(rename = "SCHED_BATCH")]
    Batch,
    /// Named by the specification; Linux never had it.
    #[serde(rename = "SCHED_ISO")]
    Iso,
    /// Only when nothing else wants to run.
    #[serde(rename = "SCHED_IDLE")]
    Idle,
    /// A promised share of each period.
    #[serde(rename = "SCHED_DEADLINE")]
    Deadline,
}

/// A refinement of a scheduling rule, a flag of `sched_setattr(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SchedulerFlag {
    /// Children start with the default rule.
    #[serde(rename = "SCHED_FLAG_RESET_ON_FORK")]
    ResetOnFork,
    /// Unused time of others may be taken.
    #[serde(rename = "SCHED_FLAG_RECLAIM")]
    Reclaim,
    /// `SIGXCPU` tells of an overrun.
    #[serde(rename = "SCHED_FLAG_DL_OVERRUN")]
    DlOverrun,
    /// The rule stays what it is.
    #[serde(rename = "SCHED_FLAG_KEEP_POLICY")]
    KeepPolicy,
    /// The numbers stay what they are.
    #[serde(rename = "SCHED_FLAG_KEEP_PARAMS")]
    KeepParams,
    /// The lower clamp is set.
    #[serde(rename = "SCHED_FLAG_UTIL_CLAMP_MIN")]
    UtilClampMin,
    /// The upper clamp is set.
    #[serde(rename = "SCHED_FLAG_UTIL_CLAMP_MAX")]
    UtilClampMax,
}

/// How input and output are ranked: `ioprio_set(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoPriority {
    /// The class.
    pub class: IoPriorityClass,
    /// 0 (first) to 7 within the class.
    #[serde(default, deserialize_with = "null_is_default")]
    pub priority: i32,
}

/// A class of `ioprio_set(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum IoPriorityClass {
    /// Before all others.
    #[serde(rename = "IOPRIO_CLASS_RT")]
    RealTime,
    /// The usual.
    #[serde(rename = "IOPRIO_CLASS_BE")]
    BestEffort,
    /// When nobody else wants the disk.
    #[serde(rename = "IOPRIO_CLASS_IDLE")]
    Idle,
}

/// On which processors `exec` runs a process, as lists such as `0-3,7`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CpuAffinity {
    /// Before it is in the container's cgroup.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub initial: String,
    /// From then on.
    #[serde(
        rename = "final",
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub last: String,
}
