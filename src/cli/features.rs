//! `features`: what this runtime understands, as the OCI runtime specification has it.
//!
//! Engines decide by it what they ask for: containerd offers recursive read-only mounts when it finds `rro` among the
//! mount options, and user namespaces when id-mapped mounts are enabled.

use std::io::Write;
use std::process::ExitCode;

use serde::Serialize;
use serde_json::Value;
use serde_json::json;

use crate::cli::session::Session;
use crate::plan;
use crate::spec::capability;
use crate::spec::default::OCI_VERSION;
use crate::spec::hooks::Hooks;
use crate::spec::linux::MemoryPolicyFlag;
use crate::spec::linux::MemoryPolicyMode;
use crate::spec::linux::NamespaceKind;
use crate::spec::mount_options;
use crate::spec::seccomp;
use crate::sys::seccomp::knows_flag;

/// Annotations by which a configuration asks for more than the specification has: whoever writes them decides about
/// more than the container. A name that ends in a dot stands for all that begin with it.
const UNSAFE_ANNOTATIONS: [&str; 4] = [
    "bundle",
    "dev.bulkhead.",
    "org.criu.config",
    "org.systemd.property.",
];

/// Print what this runtime understands, as JSON
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

/// Runs `features`.
pub(super) fn run(_args: &Args, _session: &Session) -> anyhow::Result<ExitCode> {
    let mut text = Vec::new();
    let indented = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    features().serialize(&mut serde_json::Serializer::with_formatter(
        &mut text, indented,
    ))?;
    text.push(b'\n');
    std::io::stdout().lock().write_all(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn features() -> Value {
    let hooks = Hooks::default().by_name().map(|(name, _)| name);
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": hooks,
        "mountOptions": mount_options::known_words().collect::<Vec<_>>(),
        "linux": linux(),
        "annotations": {
            "dev.bulkhead.version": env!("CARGO_PKG_VERSION"),
            "dev.bulkhead.checkpoint.enabled": "true",
            "dev.bulkhead.isolation": "container,microvm",
        },
        "potentiallyUnsafeConfigAnnotations": UNSAFE_ANNOTATIONS,
    })
}

fn linux() -> Value {
    let flags = seccomp::Flag::ALL.iter();
    let supported = flags.filter(|flag| knows_flag(plan::seccomp::bits(**flag)));
    json!({
        "namespaces": NamespaceKind::ALL,
        "capabilities": capability::names(),
        "cgroup": {
            "v1": false,
            "v2": true,
            "systemd": true,
            "systemdUser": true,
            "rdma": true,
        },
        "seccomp": {
            "enabled": true,
            "actions": seccomp::Action::ALL,
            "operators": seccomp::Operator::ALL,
            "archs": seccomp::Arch::ALL,
            "knownFlags": seccomp::Flag::ALL,
            "supportedFlags": supported.collect::<Vec<_>>(),
        },
        "apparmor": { "enabled": true },
        "selinux": { "enabled": true },
        "intelRdt": { "enabled": true, "schemata": true, "monitoring": true },
        "memoryPolicy": { "modes": MemoryPolicyMode::ALL, "flags": MemoryPolicyFlag::ALL },
        "mountExtensions": { "idmap": { "enabled": true } },
        "netDevices": { "enabled": true },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specifications_own_types_read_what_is_printed() {
        let read: oci_spec::runtime::Features = serde_json::from_value(features()).unwrap();
        let again = serde_json::to_value(read).unwrap();
        assert_eq!(again, features());
    }

    #[test]
    fn engines_find_what_they_look_for() {
        let features = features();
        let options = features["mountOptions"].as_array().unwrap();
        assert!(options.contains(&json!("rro")));
        assert_eq!(
            features["linux"]["mountExtensions"]["idmap"]["enabled"],
            json!(true)
        );
    }
}
