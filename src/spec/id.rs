//! The name of a container: a word that is safe in a path, a cgroup and a systemd unit.

use serde::Deserialize;
use serde::Serialize;

use crate::defence::Defence;

/// The longest id, in bytes. File names end at 255, and systemd adds a prefix and `.scope` to the id.
pub const LONGEST: usize = 240;

/// A container's id. It names directories, cgroups and units, so its letters are few: `[a-zA-Z0-9_+-]` first,
/// `[a-zA-Z0-9_+.-]` from then on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

/// Why a word is no container id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid container ID format: {word:?} {reason}")]
pub struct IdError {
    word: String,
    reason: &'static str,
}

impl ContainerId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for ContainerId {
    type Err = IdError;

    fn from_str(word: &str) -> Result<Self, IdError> {
        let allowed = |letter: u8| letter.is_ascii_alphanumeric() || b"_+-.".contains(&letter);
        let reason = match word.as_bytes() {
            [_, ..] if Defence::Name.is_out() => return Ok(Self(word.to_owned())),
            [] => "is empty",
            [b'.', ..] => "begins with a dot",
            letters if letters.len() > LONGEST => "is longer than 240 bytes",
            letters if !letters.iter().copied().all(allowed) => {
                "has a character outside a-z, A-Z, 0-9, _, +, - and ."
            }
            _ => return Ok(Self(word.to_owned())),
        };
        let word = word.chars().take(64).collect();
        Err(IdError { word, reason })
    }
}

impl TryFrom<String> for ContainerId {
    type Error = IdError;

    fn try_from(word: String) -> Result<Self, IdError> {
        word.parse()
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> Self {
        id.0
    }
}

impl AsRef<std::path::Path> for ContainerId {
    fn as_ref(&self) -> &std::path::Path {
        self.0.as_ref()
    }
}

impl std::fmt::Display for ContainerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_are_ids() {
        for word in ["a", "web-1", "_x", "+", "-", "a.b", "a..", "0", "A_b+c-d.e"] {
            assert_eq!(word.parse::<ContainerId>().unwrap().as_str(), word);
        }
    }

    #[test]
    fn whatever_could_leave_a_directory_is_no_id() {
        let long = "x".repeat(1024);
        for word in [
            "", ".", "..", ".x", "../x", "a/b", "/", "a\0b", "a b", "ä", "a\n", &long,
        ] {
            let refused = word.parse::<ContainerId>().unwrap_err().to_string();
            assert!(
                refused.starts_with("invalid container ID format: "),
                "{refused}"
            );
        }
    }
}
