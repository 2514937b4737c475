//! Carries why a program could not be made from the guest where that was found to the host that prints it.

use crate::agent::wire::Failure;
use crate::backend::BackendError;
use crate::backend::StepError;
use crate::init::report::Reason;
use crate::init::report::Trouble;
use crate::plan::step::Step;
use crate::sys::Errno;

/// Puts a failure into words of the wire.
#[must_use]
pub fn tell(error: BackendError) -> Failure {
    match error {
        BackendError::Step(error) => Failure::Step {
            index: u32::try_from(error.index).unwrap_or(u32::MAX),
            errno: error.trouble.errno.raw_os_error(),
            reason: error.trouble.reason as u16,
            detail: error.trouble.detail,
        },
        BackendError::Died(exit) => Failure::Died(exit),
        BackendError::Kernel { what, source } => Failure::Kernel {
            what,
            errno: source.raw_os_error(),
        },
        error @ (BackendError::Attendant(_)
        | BackendError::Helper { .. }
        | BackendError::Inside(_)
        | BackendError::Machine(_)
        | BackendError::Field { .. }
        | BackendError::OtherNamespace { .. }
        | BackendError::OutOfTurn) => Failure::Other(error.to_string()),
    }
}

/// Understands it again, with the steps that the guest was sent.
#[must_use]
pub fn understand(failure: Failure, steps: &[Step]) -> BackendError {
    match failure {
        Failure::Step {
            index,
            errno,
            reason,
            detail,
        } => {
            let index = index as usize;
            let trouble = Trouble {
                errno: errno_of(errno),
                reason: Reason::from_number(reason),
                detail,
            };
            StepError {
                index,
                total: steps.len(),
                step: steps.get(index).cloned(),
                trouble,
            }
            .into()
        }
        Failure::Died(exit) => BackendError::Died(exit),
        Failure::Kernel { what, errno } => BackendError::Kernel {
            what,
            source: errno_of(errno),
        },
        Failure::Other(words) => BackendError::Attendant(anyhow::Error::msg(words)),
    }
}

/// A guest may say any number; the kernel knows 1 to 4095.
fn errno_of(number: i32) -> Errno {
    match number {
        1..=4095 => Errno::from_raw_os_error(number),
        _ => Errno::IO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::step::Program;

    fn there_and_back(error: BackendError, steps: &[Step]) -> String {
        understand(tell(error), steps).to_string()
    }

    #[test]
    fn a_failed_step_is_told_in_the_words_of_the_plan() {
        let program = Program {
            arguments: vec!["missing".to_owned()],
            ..Program::default()
        };
        let steps = [Step::Session, Step::Lookup(Box::new(program))];
        let error = StepError {
            index: 1,
            total: 2,
            step: steps.get(1).cloned(),
            trouble: Trouble::because(Reason::NotInPath, Errno::NOENT),
        };
        let words = error.to_string();
        assert_eq!(there_and_back(error.into(), &steps), words);
    }

    #[test]
    fn what_the_kernel_refused_keeps_its_reason() {
        let error = BackendError::kernel("make the process")(Errno::BUSY);
        let BackendError::Kernel { what, source } = understand(tell(error), &[]) else {
            panic!("it is of another kind");
        };
        assert_eq!((what.as_str(), source), ("make the process", Errno::BUSY));
    }

    #[test]
    fn a_number_that_is_no_reason_is_not_taken_for_one() {
        let failure = Failure::Kernel {
            what: "think".to_owned(),
            errno: -7,
        };
        let told = understand(failure, &[]);
        assert!(matches!(
            told,
            BackendError::Kernel {
                source: Errno::IO,
                ..
            }
        ));
    }
}
