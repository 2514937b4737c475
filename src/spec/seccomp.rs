//! What `linux.seccomp` asks for: which system calls a program may make, and what answers the others.
//!
//! The types follow the runtime-spec 1.3 word for word. A word that the specification does not know
//! (an action, an operator, an architecture, a flag) is refused while reading; what each value means
//! together with the others is checked by [`Seccomp::validate`]. Nothing here knows a syscall number.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::de::IntoDeserializer;

use super::absent::null_is_default;

/// Largest value that a filter can hand back beside an action (`SECCOMP_RET_DATA`).
const MAX_RETURN_DATA: u32 = 0xffff;

/// Largest index of a system call argument.
const MAX_ARGUMENT: u32 = 5;

/// The whole of `linux.seccomp`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Seccomp {
    /// What happens to a system call that no rule names. Absent together with
    /// every rule means that no filter is wanted.
    #[serde(
        deserialize_with = "empty_is_none",
        skip_serializing_if = "Option::is_none"
    )]
    pub default_action: Option<Action>,
    /// The number that [`Action::Errno`] or [`Action::Trace`] returns as the
    /// default action; `EPERM` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_errno_ret: Option<u32>,
    /// Architectures to allow beside the native one.
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub architectures: Vec<Arch>,
    /// How the filter is loaded; absent is not the same as empty
    /// (see [`Seccomp::load_flags`]).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flags: Option<Vec<Flag>>,
    /// Socket of the agent that is sent the listener; empty means absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener_path: Option<PathBuf>,
    /// What the agent is told beside the descriptor, passed on unread.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener_metadata: Option<String>,
    /// The rules, in the order written.
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub syscalls: Vec<Rule>,
}

/// One entry of `linux.seccomp.syscalls`: the same action for several system calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// Names of the system calls; one that no table knows is skipped.
    pub names: Vec<String>,
    /// What happens to them.
    pub action: Action,
    /// The number returned by [`Action::Errno`] or [`Action::Trace`]; `EPERM` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno_ret: Option<u32>,
    /// Conditions; the action is taken where all hold.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub args: Vec<Condition>,
}

/// A condition on one argument of a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Which argument, 0 to 5.
    pub index: u32,
    /// What the argument is compared with; the mask for [`Operator::MaskedEqual`].
    pub value: u64,
    /// What the masked argument is compared with; unused by the other operators.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub value_two: u64,
    /// How it is compared, as unsigned numbers.
    pub op: Operator,
}

/// What the kernel does with a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Action {
    /// Ends the thread; the older word for [`Action::KillThread`].
    #[serde(rename = "SCMP_ACT_KILL")]
    Kill,
    /// Ends the thread as if by `SIGSYS`.
    #[serde(rename = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    /// Ends the whole process as if by `SIGSYS`.
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    /// Sends `SIGSYS` without making the call.
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    /// Fails the call with the errno of the rule.
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    /// Stops for a tracer, which is told the number of the rule; `ENOSYS` without one.
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    /// Makes the call.
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    /// Makes the call and writes it to the audit log.
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    /// Asks the agent that holds the listener.
    #[serde(rename = "SCMP_ACT_NOTIFY")]
    Notify,
}

/// How an argument is compared, always as an unsigned 64-bit number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Operator {
    /// The argument differs from the value.
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    /// The argument is below the value.
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    /// The argument is at most the value.
    #[serde(rename = "SCMP_CMP_LE")]
    LessOrEqual,
    /// The argument is the value.
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    /// The argument is at least the value.
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterOrEqual,
    /// The argument is above the value.
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    /// The argument's bits under the mask `value` are `valueTwo`.
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

/// An instruction set and calling convention that a filter can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "each is the name of the architecture and nothing more"
)]
pub enum Arch {
    #[serde(rename = "SCMP_ARCH_X86")]
    X86,
    #[serde(rename = "SCMP_ARCH_X86_64")]
    X86_64,
    #[serde(rename = "SCMP_ARCH_X32")]
    X32,
    #[serde(rename = "SCMP_ARCH_ARM")]
    Arm,
    #[serde(rename = "SCMP_ARCH_AARCH64")]
    Aarch64,
    #[serde(rename = "SCMP_ARCH_MIPS")]
    Mips,
    #[serde(rename = "SCMP_ARCH_MIPS64")]
    Mips64,
    #[serde(rename = "SCMP_ARCH_MIPS64N32")]
    Mips64N32,
    #[serde(rename = "SCMP_ARCH_MIPSEL")]
    Mipsel,
    #[serde(rename = "SCMP_ARCH_MIPSEL64")]
    Mipsel64,
    #[serde(rename = "SCMP_ARCH_MIPSEL64N32")]
    Mipsel64N32,
    #[serde(rename = "SCMP_ARCH_PPC")]
    Ppc,
    #[serde(rename = "SCMP_ARCH_PPC64")]
    Ppc64,
    #[serde(rename = "SCMP_ARCH_PPC64LE")]
    Ppc64Le,
    #[serde(rename = "SCMP_ARCH_S390")]
    S390,
    #[serde(rename = "SCMP_ARCH_S390X")]
    S390X,
    #[serde(rename = "SCMP_ARCH_PARISC")]
    Parisc,
    #[serde(rename = "SCMP_ARCH_PARISC64")]
    Parisc64,
    #[serde(rename = "SCMP_ARCH_RISCV64")]
    Riscv64,
    #[serde(rename = "SCMP_ARCH_LOONGARCH64")]
    Loongarch64,
    #[serde(rename = "SCMP_ARCH_M68K")]
    M68k,
    #[serde(rename = "SCMP_ARCH_SH")]
    Sh,
    #[serde(rename = "SCMP_ARCH_SHEB")]
    Sheb,
}

/// How the filter is loaded (`seccomp(2)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Flag {
    /// All threads get the filter at once.
    #[serde(rename = "SECCOMP_FILTER_FLAG_TSYNC")]
    Tsync,
    /// Every action but allow is written to the audit log.
    #[serde(rename = "SECCOMP_FILTER_FLAG_LOG")]
    Log,
    /// Leaves the speculative store bypass mitigation off.
    #[serde(rename = "SECCOMP_FILTER_FLAG_SPEC_ALLOW")]
    SpecAllow,
    /// While the agent answers, only a fatal signal interrupts the call.
    #[serde(rename = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV")]
    WaitKillableRecv,
}

/// Why `linux.seccomp` cannot be honoured. Each message starts with the field at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeccompSpecError {
    /// There are rules, but nothing says what happens to all other calls.
    #[error("linux.seccomp.defaultAction: missing, but linux.seccomp.syscalls has rules")]
    NoDefaultAction,
    /// A number was given beside an action that returns none.
    #[error("linux.seccomp.{field}: {action} returns no number")]
    NoNumber {
        /// Path below `linux.seccomp`.
        field: String,
        /// The action beside it.
        action: Action,
    },
    /// A number does not fit what a filter can return.
    #[error("linux.seccomp.{field}: {asked} is out of range 0..{MAX_RETURN_DATA}")]
    NumberTooLarge {
        /// Path below `linux.seccomp`.
        field: String,
        /// What was written.
        asked: u32,
    },
    /// A system call has six arguments.
    #[error(
        "linux.seccomp.syscalls[{rule}].args[{arg}].index: {asked} is out of range 0..{MAX_ARGUMENT}"
    )]
    NoSuchArgument {
        /// Position of the rule.
        rule: usize,
        /// Position of the condition.
        arg: usize,
        /// What was written.
        asked: u32,
    },
    /// A rule for nothing is a mistake.
    #[error("linux.seccomp.syscalls[{rule}].names: empty")]
    NoNames {
        /// Position of the rule.
        rule: usize,
    },
    /// The empty string names no system call.
    #[error("linux.seccomp.syscalls[{rule}].names[{name}]: empty string is not a valid syscall")]
    EmptyName {
        /// Position of the rule.
        rule: usize,
        /// Position of the name.
        name: usize,
    },
    /// Nothing could ever be handed over to the agent.
    #[error("linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be used as default action")]
    NotifyByDefault,
    /// The listener's number is handed over by this call, after the filter is in force.
    #[error(
        "linux.seccomp.syscalls[{rule}]: SCMP_ACT_NOTIFY cannot be used for the {name} syscall"
    )]
    NotifyCannotBe {
        /// Position of the rule.
        rule: usize,
        /// The call.
        name: String,
    },
    /// Nobody would answer the calls that wait for an answer.
    #[error("linux.seccomp.listenerPath: missing, but SCMP_ACT_NOTIFY is used")]
    NobodyListens,
}

impl Seccomp {
    /// Whether no filter is wanted at all: neither a default action nor a rule.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.default_action.is_none() && self.syscalls.is_empty()
    }

    /// Whether some rule asks an agent.
    #[must_use]
    pub fn notifies(&self) -> bool {
        self.syscalls
            .iter()
            .any(|rule| rule.action == Action::Notify)
    }

    /// Where the agent listens; the empty path is no path.
    #[must_use]
    pub fn listener(&self) -> Option<&PathBuf> {
        self.listener_path
            .as_ref()
            .filter(|path| !path.as_os_str().is_empty())
    }

    /// How the filter is loaded: as written or, where nothing is written, with
    /// [`Flag::SpecAllow`] alone, as runc does: the mitigation costs every
    /// program much and protects only those that run foreign code themselves.
    #[must_use]
    pub fn load_flags(&self) -> &[Flag] {
        self.flags.as_deref().unwrap_or(&[Flag::SpecAllow])
    }

    /// Checks what the shape alone does not say.
    ///
    /// # Errors
    ///
    /// The first field at fault, by its path.
    pub fn validate(&self) -> Result<(), SeccompSpecError> {
        match self.default_action {
            None if self.syscalls.is_empty() => return Ok(()),
            None => return Err(SeccompSpecError::NoDefaultAction),
            Some(Action::Notify) => return Err(SeccompSpecError::NotifyByDefault),
            Some(action) => action.takes(self.default_errno_ret, || "defaultErrnoRet".into())?,
        }
        for (at, rule) in self.syscalls.iter().enumerate() {
            rule.validate(at)?;
        }
        if self.notifies() && self.listener().is_none() {
            return Err(SeccompSpecError::NobodyListens);
        }
        Ok(())
    }
}

impl Rule {
    fn validate(&self, rule: usize) -> Result<(), SeccompSpecError> {
        if self.names.is_empty() {
            return Err(SeccompSpecError::NoNames { rule });
        }
        if let Some(name) = self.names.iter().position(String::is_empty) {
            return Err(SeccompSpecError::EmptyName { rule, name });
        }
        self.action
            .takes(self.errno_ret, || format!("syscalls[{rule}].errnoRet"))?;
        let wrong = self
            .args
            .iter()
            .enumerate()
            .find(|(_, arg)| arg.index > MAX_ARGUMENT);
        if let Some((arg, condition)) = wrong {
            return Err(SeccompSpecError::NoSuchArgument {
                rule,
                arg,
                asked: condition.index,
            });
        }
        let needed = self
            .names
            .iter()
            .find(|name| self.action == Action::Notify && is_needed(name));
        needed.map_or(Ok(()), |name| {
            Err(SeccompSpecError::NotifyCannotBe {
                rule,
                name: name.clone(),
            })
        })
    }
}

/// The words of the specification: a value's text is the word that stands for it in JSON.
macro_rules! words {
    ($($kind:ident: $($variant:ident)*;)*) => {$(
        impl $kind {
            /// Every value, in the order declared.
            pub const ALL: &[Self] = &[$(Self::$variant),*];
        }

        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.serialize(f)
            }
        }
    )*};
}

words! {
    Action: Kill KillThread KillProcess Trap Errno Trace Allow Log Notify;
    Operator: NotEqual Less LessOrEqual Equal GreaterOrEqual Greater MaskedEqual;
    Arch: X86 X86_64 X32 Arm Aarch64 Mips Mips64 Mips64N32 Mipsel Mipsel64 Mipsel64N32 Ppc Ppc64
        Ppc64Le S390 S390X Parisc Parisc64 Riscv64 Loongarch64 M68k Sh Sheb;
    Flag: Tsync Log SpecAllow WaitKillableRecv;
}

impl Action {
    /// Whether `number` may stand beside this action; `field` is its path below `linux.seccomp`.
    fn takes(
        self,
        number: Option<u32>,
        field: impl FnOnce() -> String,
    ) -> Result<(), SeccompSpecError> {
        match number {
            None => Ok(()),
            Some(_) if !matches!(self, Self::Errno | Self::Trace) => {
                Err(SeccompSpecError::NoNumber {
                    field: field(),
                    action: self,
                })
            }
            Some(asked) if asked > MAX_RETURN_DATA => Err(SeccompSpecError::NumberTooLarge {
                field: field(),
                asked,
            }),
            Some(_) => Ok(()),
        }
    }
}

/// Whether this is how the listener's number leaves the confined process: waiting
/// for the agent's answer there would be waiting for ever.
fn is_needed(name: &str) -> bool {
    name == "write"
}

/// Reads the empty string, which callers written in Go write for an action that was never set, as none.
fn empty_is_none<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Action>, D::Error> {
    let Some(word) = Option::<Cow<'de, str>>::deserialize(from)?.filter(|word| !word.is_empty())
    else {
        return Ok(None);
    };
    Action::deserialize(word.into_deserializer()).map(Some)
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::Action;
    use super::Flag;
    use super::Seccomp;

    fn refusal(json: &str) -> String {
        let profile: Seccomp = serde_json::from_str(json).expect("shape is right");
        profile.validate().expect_err("must be refused").to_string()
    }

    #[test]
    fn nothing_asked_is_no_filter() {
        for json in ["{}", r#"{"defaultAction":""}"#, r#"{"defaultAction":null}"#] {
            let profile: Seccomp = serde_json::from_str(json).expect("empty is allowed");
            assert!(profile.is_absent());
            assert_eq!(profile.validate(), Ok(()));
        }
    }

    #[test]
    fn null_lists_are_empty_lists() {
        let json = r#"{"defaultAction":"SCMP_ACT_LOG","architectures":null,"flags":null,
            "syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":null}]}"#;
        let profile: Seccomp = serde_json::from_str(json).expect("null is absent");
        assert_eq!(profile.default_action, Some(Action::Log));
        assert!(profile.architectures.is_empty() && profile.syscalls[0].args.is_empty());
        assert_eq!(profile.load_flags(), [Flag::SpecAllow]);
    }

    #[test]
    fn an_empty_list_of_flags_is_not_an_absent_one() {
        let json = r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":[]}"#;
        let profile: Seccomp = serde_json::from_str(json).expect("shape is right");
        assert_eq!(profile.load_flags(), []);
    }

    #[test]
    fn an_unknown_word_is_refused_by_name() {
        let refused = serde_json::from_str::<Seccomp>(r#"{"defaultAction":"SCMP_ACT_MAYBE"}"#);
        assert!(
            refused
                .expect_err("no such action")
                .to_string()
                .contains("SCMP_ACT_MAYBE")
        );
    }

    #[test]
    fn a_seventh_argument_is_refused_with_its_path() {
        let json = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],
            "action":"SCMP_ACT_ERRNO","args":[{"index":6,"value":1,"op":"SCMP_CMP_EQ"}]}]}"#;
        assert_eq!(
            refusal(json),
            "linux.seccomp.syscalls[0].args[0].index: 6 is out of range 0..5"
        );
    }

    #[test]
    fn a_number_beside_an_action_without_one_is_refused() {
        let json = r#"{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":1}"#;
        assert_eq!(
            refusal(json),
            "linux.seccomp.defaultErrnoRet: SCMP_ACT_ALLOW returns no number"
        );
    }

    #[test]
    fn waiting_for_the_agent_to_tell_the_agent_is_refused() {
        let json = r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/agent","syscalls":
            [{"names":["mkdir","write"],"action":"SCMP_ACT_NOTIFY"}]}"#;
        assert_eq!(
            refusal(json),
            "linux.seccomp.syscalls[0]: SCMP_ACT_NOTIFY cannot be used for the write syscall"
        );
    }

    #[test]
    fn notify_without_a_listener_is_refused() {
        let json = r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"","syscalls":
            [{"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}]}"#;
        assert_eq!(
            refusal(json),
            "linux.seccomp.listenerPath: missing, but SCMP_ACT_NOTIFY is used"
        );
    }
}
