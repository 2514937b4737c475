//! Why a program could not be made, in words of the plan.

use std::fmt;
use std::path::PathBuf;

use crate::init::report::Trouble;
use crate::plan::step::Step;
use crate::sys::Errno;
use crate::sys::process::Exit;

/// A step failed. The child sends only its index and the reason; who has the plan can say the rest.
#[derive(Debug, Clone, PartialEq)]
pub struct StepError {
    /// Which step, counted from 0.
    pub index: usize,
    /// How many there are.
    pub total: usize,
    /// What it would have done; `None` when the plan has no such step.
    pub step: Option<Step>,
    /// Why it failed.
    pub trouble: Trouble,
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.step {
            Some(Step::Lookup(program) | Step::Execute(program)) => {
                let name = program.arguments.first().map_or("", String::as_str);
                write!(f, "exec: {name:?}: {}", self.trouble)
            }
            Some(step) => {
                write!(
                    f,
                    "step {} of {}: {step}: {}",
                    self.index, self.total, self.trouble
                )
            }
            None => write!(f, "{}", self.trouble),
        }
    }
}

impl std::error::Error for StepError {}

/// Why a program could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// A step failed.
    #[error(transparent)]
    Step(#[from] StepError),
    /// The process ended before its program was reached.
    #[error("the process ended before its program was reached: {}", ending(*.0))]
    Died(Exit),
    /// The kernel refused something that is done from outside.
    #[error("cannot {what}")]
    Kernel {
        /// What was to be done.
        what: String,
        /// The kernel's reason.
        source: Errno,
    },
    /// The kernel refused something that one field asked for.
    #[error("{field}: cannot {what}")]
    Field {
        /// Which.
        field: String,
        /// What was to be done.
        what: String,
        /// The kernel's reason.
        source: Errno,
    },
    /// What is at the path of a namespace is something else.
    #[error(
        "linux.namespaces[{index}].path: {path:?} is {found}, expected one of the kind {wanted:?}"
    )]
    OtherNamespace {
        /// Which of them.
        index: usize,
        /// The path.
        path: PathBuf,
        /// What it is.
        found: String,
        /// The kind that is to be joined.
        wanted: String,
    },
    /// The one who ordered the program failed at its part.
    #[error("{0:#}")]
    Attendant(anyhow::Error),
    /// A helper program failed.
    #[error("{program} failed: {words}")]
    Helper {
        /// Which.
        program: &'static str,
        /// What it said.
        words: String,
    },
    /// What was to be done inside a workspace failed there.
    #[error("cannot {0}")]
    Inside(String),
    /// The machine, or what is said to it, failed.
    #[error("{0}")]
    Machine(String),
    /// The process answered something else than was agreed.
    #[error("the process answered out of turn")]
    OutOfTurn,
}

impl BackendError {
    /// Names what was to be done when the kernel refused it.
    pub(crate) fn kernel(what: impl Into<String>) -> impl FnOnce(Errno) -> Self {
        move |source| Self::Kernel {
            what: what.into(),
            source,
        }
    }
}

fn ending(exit: Exit) -> String {
    match exit {
        Exit::Status(status) => format!("exit status {status}"),
        Exit::Signal(9) => {
            "killed (signal 9); if a memory limit is set, it could be too low to start".to_owned()
        }
        Exit::Signal(signal) => format!("signal {signal}"),
    }
}
