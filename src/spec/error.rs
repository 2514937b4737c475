//! Why a configuration cannot be used, always starting with the property at fault.

use super::resources::ResourcesError;
use super::seccomp::SeccompSpecError;

/// Why a configuration was refused. The text starts with the path of the property, as it stands in `config.json`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// The bytes are no JSON at all, or not of the types that the specification gives to the properties.
    #[error("{path}: {reason}")]
    Shape {
        /// Which property, or `the document`.
        path: String,
        /// What was found and what was expected.
        reason: String,
    },
    /// The property has the right type, but a value that means nothing or cannot be done.
    #[error("{path}: {reason}")]
    Value {
        /// Which property.
        path: String,
        /// What is wrong with it, and what would be right.
        reason: String,
    },
    /// The system call filter says something that it cannot mean.
    #[error(transparent)]
    Seccomp(#[from] SeccompSpecError),
    /// A limit that cannot be meant.
    #[error(transparent)]
    Resources(#[from] ResourcesError),
}

impl SpecError {
    /// What the reader of JSON says of a property. It does not know the place of what it could not read: then the place
    /// is the property around it, and the key at fault when the text tells it.
    pub(super) fn shape(path: &str, error: &serde_json::Error) -> Self {
        let reason = match error.is_eof() {
            true => format!(
                "ends too soon, at line {} column {}",
                error.line(),
                error.column()
            ),
            false => error.to_string(),
        };
        let key = reason
            .strip_prefix("unknown variant `")
            .and_then(|rest| rest.split_once('`'));
        let path = match (path.strip_suffix('?'), key) {
            (Some(around), Some((key, _))) => format!("{around}{key}"),
            (Some(around), None) => around.trim_end_matches('.').to_owned(),
            (None, _) => path.trim_start_matches('.').to_owned(),
        };
        Self::at(&path, reason)
    }

    /// What is at this path, which is that of the whole document when it is empty, cannot be read.
    pub(super) fn at(path: &str, reason: String) -> Self {
        let path = match path {
            "" => "the document",
            path => path,
        };
        Self::Shape {
            path: path.to_owned(),
            reason,
        }
    }

    /// A property whose value cannot be used.
    pub fn value(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Value {
            path: path.into(),
            reason: reason.into(),
        }
    }
}

/// Something in a configuration that is passed over, and about which its author should hear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Which property.
    pub path: String,
    /// What is done with it instead.
    pub text: String,
}

impl Warning {
    /// A remark about one property.
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            text: text.into(),
        }
    }
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.text)
    }
}
