//! The words for steps that are done after `start`, kept so that `start` need not plan again to explain a failure.

use serde::Deserialize;
use serde::Serialize;

use crate::backend::BackendError;
use crate::plan::Plan;
use crate::plan::step::Barrier;
use crate::plan::step::Step;
use crate::workspace::error::WorkspaceError;

/// The steps of a plan after the barrier at which a workspace waits for its start, in words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Late {
    first: usize,
    words: Vec<String>,
}

impl Late {
    /// The late steps of `plan`.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        let is_start = |step: &Step| *step == Step::Await(Barrier::Start);
        let Some(start) = plan.steps.iter().position(is_start) else {
            return Self::default();
        };
        let first = start + 1;
        let total = plan.steps.len();
        let late = plan.steps[first..].iter().enumerate();
        let words = late
            .map(|(index, step)| in_words(first + index, total, step))
            .collect();
        Self { first, words }
    }

    /// Says which step failed, where the error has only its index.
    pub(super) fn explain(&self, error: BackendError) -> WorkspaceError {
        if let BackendError::Step(step) = &error
            && step.step.is_none()
            && let Some(words) = step
                .index
                .checked_sub(self.first)
                .and_then(|at| self.words.get(at))
        {
            return WorkspaceError::LateStep {
                words: words.clone(),
                trouble: step.trouble.to_string(),
            };
        }
        error.into()
    }
}

fn in_words(index: usize, total: usize, step: &Step) -> String {
    if let Step::Lookup(program) | Step::Execute(program) = step {
        let name = program.arguments.first().map_or("", String::as_str);
        return format!("exec: {name:?}");
    }
    format!("step {index} of {total}: {step}")
}
