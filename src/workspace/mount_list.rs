//! Reads a list of mounts that is to be changed in a workspace that runs.

use serde::Deserialize;

use crate::spec::mounts::Mount;

/// Mounts cannot be added or removed.
#[derive(Debug, thiserror::Error)]
pub enum MountListError {
    /// The file does not list mounts.
    #[error("the file is neither a list of mounts nor a configuration with one")]
    NoMounts {
        /// Why.
        #[from]
        source: serde_json::Error,
    },
    /// A mount that depends on the process that makes it.
    #[error("mounts[{index}].type: {kind} cannot be added to a workspace that runs")]
    Kind {
        /// Which.
        index: usize,
        /// Its type.
        kind: String,
    },
    /// It has no mounts of its own.
    #[error("linux.namespaces: the workspace has no mount namespace of its own")]
    NoMountNamespace,
}

/// A list of mounts, alone or in a configuration.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Listed {
    Alone(Vec<Mount>),
    Configuration { mounts: Vec<Mount> },
}

/// Reads the list, which may be a configuration.
///
/// # Errors
///
/// [`MountListError::NoMounts`] when it is neither.
pub fn parse(text: &[u8]) -> Result<Vec<Mount>, MountListError> {
    Ok(match serde_json::from_slice(text)? {
        Listed::Alone(mounts) | Listed::Configuration { mounts } => mounts,
    })
}

/// Whether all can be added. Some would show the processes of the pid namespace, or the cgroups of the cgroup namespace,
/// of the one who mounts them: that is not the workspace.
///
/// # Errors
///
/// [`MountListError::Kind`] for the first that cannot.
pub fn check(mounts: &[Mount]) -> Result<(), MountListError> {
    let own = |mount: &&Mount| matches!(mount.kind.as_str(), "proc" | "cgroup" | "cgroup2");
    match mounts.iter().enumerate().find(|(_, mount)| own(mount)) {
        None => Ok(()),
        Some((index, mount)) => Err(MountListError::Kind {
            index,
            kind: mount.kind.clone(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_may_stand_alone_or_in_a_configuration() {
        let alone = parse(br#"[{"destination": "/a"}]"#).unwrap();
        let within =
            parse(br#"{"ociVersion": "1.0.0", "mounts": [{"destination": "/a"}]}"#).unwrap();
        assert_eq!(alone, within);
        assert!(parse(b"{}").is_err());
    }
}
