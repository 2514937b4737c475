//! Plans the hooks that run inside.

use crate::plan::Options;
use crate::plan::step::Hook;
use crate::plan::step::HookState;
use crate::plan::step::Step;
use crate::spec::Spec;
use crate::spec::hooks::Hook as Asked;

/// The steps that run one kind of hook, with the state they read.
pub(super) fn steps(
    name: &str,
    asked: &[Asked],
    status: &str,
    spec: &Spec,
    options: &Options,
) -> Vec<Step> {
    let one = |(index, hook): (usize, &Asked)| {
        Step::Hook(Box::new(Hook {
            name: format!("hooks.{name}[{index}]"),
            path: hook.path.clone(),
            arguments: hook.args.clone(),
            environment: hook.env.clone(),
            timeout: hook.timeout.and_then(|seconds| u64::try_from(seconds).ok()),
            state: HookState {
                oci_version: spec.oci_version.clone(),
                id: options.id.clone(),
                status: status.to_owned(),
                bundle: options.bundle.clone(),
                annotations: spec.annotations.clone(),
            },
        }))
    };
    asked.iter().enumerate().map(one).collect()
}
