//! The name of a workspace: checked once, so that it can stand in a path.

use std::fmt;
use std::str::FromStr;

/// Longest name: it must fit in one file name, with room for what is put around it.
const LONGEST: usize = 200;

/// The name of a workspace: letters, digits and `_ + - .`, neither `.` nor `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkspaceId(String);

/// A name cannot be one of a workspace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid container ID format: {name:?} {reason}")]
pub struct IdError {
    name: String,
    reason: &'static str,
}

impl WorkspaceId {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for WorkspaceId {
    type Err = IdError;

    fn from_str(name: &str) -> Result<Self, IdError> {
        let refused = |reason| {
            Err(IdError {
                name: name.chars().take(LONGEST).collect(),
                reason,
            })
        };
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
        match name {
            "" => refused("is empty"),
            "." | ".." => refused("names a directory"),
            _ if name.len() > LONGEST => refused("is longer than 200 characters"),
            _ if !name.bytes().all(allowed) => {
                refused("has characters other than letters, digits and _ + - .")
            }
            _ => Ok(Self(name.to_owned())),
        }
    }
}

impl fmt::Display for WorkspaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_callers_name_workspaces_is_accepted() {
        for name in [
            "a",
            "web-1",
            "node1.griduser.18.0.-1",
            "buildah-buildah123",
            "_x+y",
            "...",
        ] {
            assert_eq!(name.parse::<WorkspaceId>().unwrap().as_str(), name);
        }
    }

    #[test]
    fn what_could_lead_elsewhere_is_refused() {
        let long = "x".repeat(1024);
        for name in [
            "", ".", "..", "../x", "a/b", "a\0b", "ä", "a b", "a\n", &long,
        ] {
            let refusal = name.parse::<WorkspaceId>().unwrap_err().to_string();
            assert!(
                refusal.starts_with("invalid container ID format"),
                "{refusal}"
            );
        }
    }
}
