//! Runs the caller's hooks that belong outside: they get the state on standard input, and what they say when they fail.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use crate::spec::hooks::Hook;
use crate::spec::state::State;
use crate::sys::process::Exit;
use crate::sys::program;
use crate::sys::program::Program;

/// A hook did not do what it was there for. Each message names the property.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// It could not be started.
    #[error("hooks.{kind}[{index}]: cannot run {path:?}")]
    NotRun {
        /// When it runs.
        kind: &'static str,
        /// Its place in the list.
        index: usize,
        /// The program.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It ended badly.
    #[error("hooks.{kind}[{index}]: {path:?} {how}{output}")]
    Failed {
        /// When it runs.
        kind: &'static str,
        /// Its place in the list.
        index: usize,
        /// The program.
        path: PathBuf,
        /// How it ended.
        how: String,
        /// What it said, after a colon.
        output: String,
    },
    /// The state could not be written as JSON.
    #[error("hooks.{kind}: the state cannot be written")]
    State {
        /// When they run.
        kind: &'static str,
        /// Why.
        source: serde_json::Error,
    },
}

/// The hooks of one moment.
#[derive(Debug, Clone, Copy)]
pub struct Moment<'a> {
    /// Its name in the configuration.
    pub kind: &'static str,
    /// What runs then.
    pub hooks: &'a [Hook],
}

impl Moment<'_> {
    /// Runs them one after the other, in the bundle's directory, and stops at the first that fails.
    ///
    /// # Errors
    ///
    /// [`HookError`] of that one.
    pub fn run(self, state: &State) -> Result<(), HookError> {
        let input = self.input(state)?;
        for (index, hook) in self.hooks.iter().enumerate() {
            run(self.kind, index, hook, &input, &state.bundle)?;
        }
        Ok(())
    }

    /// Runs all of them, whatever becomes of the others, and gives what failed.
    pub fn run_all(self, state: &State) -> Vec<HookError> {
        let input = match self.input(state) {
            Ok(input) => input,
            Err(error) => return vec![error],
        };
        let hooks = self.hooks.iter().enumerate();
        hooks
            .filter_map(|(index, hook)| run(self.kind, index, hook, &input, &state.bundle).err())
            .collect()
    }

    /// What they read; nothing is made when there is nobody to read it.
    fn input(self, state: &State) -> Result<Vec<u8>, HookError> {
        if self.hooks.is_empty() {
            return Ok(Vec::new());
        }
        serde_json::to_vec(state).map_err(|source| HookError::State {
            kind: self.kind,
            source,
        })
    }
}

fn run(
    kind: &'static str,
    index: usize,
    hook: &Hook,
    input: &[u8],
    bundle: &Path,
) -> Result<(), HookError> {
    let limit = hook
        .timeout
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map(Duration::from_secs);
    let program = Program {
        path: &hook.path,
        arguments: &hook.args,
        environment: &hook.env,
        directory: Some(bundle).filter(|bundle| bundle.is_dir()),
        input,
        limit,
    };
    let path = hook.path.clone();
    let outcome = match program::run(&program) {
        Ok(outcome) => outcome,
        Err(source) => {
            return Err(HookError::NotRun {
                kind,
                index,
                path,
                source,
            });
        }
    };
    let how = match outcome.exit {
        Some(Exit::Status(0)) => return Ok(()),
        Some(Exit::Status(status)) => format!("failed with status {status}"),
        Some(Exit::Signal(signal)) => format!("was killed by signal {signal}"),
        None => format!(
            "took longer than its timeout of {} s and was killed",
            hook.timeout.unwrap_or_default()
        ),
    };
    let output = if outcome.output.is_empty() {
        String::new()
    } else {
        format!(": {}", outcome.output)
    };
    Err(HookError::Failed {
        kind,
        index,
        path,
        how,
        output,
    })
}

#[cfg(test)]
mod tests {
    use crate::spec::state::Status;

    use super::*;

    fn shell(script: &str) -> Hook {
        Hook {
            path: "/bin/sh".into(),
            args: vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()],
            env: vec!["A=b".to_owned()],
            timeout: None,
        }
    }

    fn state(bundle: &Path) -> State {
        State {
            oci_version: "1.3.0".to_owned(),
            id: "a".to_owned(),
            status: Status::Creating,
            pid: 7,
            bundle: bundle.to_owned(),
            annotations: std::collections::BTreeMap::new(),
        }
    }

    #[test]
    fn a_hook_reads_the_state() {
        let home = tempfile::tempdir().unwrap();
        let hooks = [shell("cat > state; echo $A >> state")];
        Moment {
            kind: "createRuntime",
            hooks: &hooks,
        }
        .run(&state(home.path()))
        .unwrap();
        let read = std::fs::read_to_string(home.path().join("state")).unwrap();
        let bundle = home.path().display();
        let expected = format!(
            "{{\"ociVersion\":\"1.3.0\",\"id\":\"a\",\"status\":\"creating\",\"pid\":7,\"bundle\":\"{bundle}\"}}b\n"
        );
        assert_eq!(read, expected);
    }

    #[test]
    fn the_first_hook_that_fails_is_named_with_its_words() {
        let hooks = [shell("true"), shell("echo no >&2; exit 3"), shell("exit 4")];
        let error = Moment {
            kind: "prestart",
            hooks: &hooks,
        }
        .run(&state(Path::new("/")))
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "hooks.prestart[1]: \"/bin/sh\" failed with status 3: no"
        );
    }

    #[test]
    fn a_hook_that_takes_too_long_says_so() {
        let hooks = [Hook {
            timeout: Some(1),
            ..shell("exec sleep 60")
        }];
        let error = Moment {
            kind: "poststop",
            hooks: &hooks,
        }
        .run(&state(Path::new("/")))
        .unwrap_err();
        assert!(
            error
                .to_string()
                .contains("took longer than its timeout of 1 s"),
            "{error}"
        );
    }

    #[test]
    fn all_hooks_run_when_failures_do_not_matter() {
        let hooks = [shell("exit 1"), shell("exit 2")];
        assert_eq!(
            Moment {
                kind: "poststop",
                hooks: &hooks
            }
            .run_all(&state(Path::new("/")))
            .len(),
            2
        );
    }
}
