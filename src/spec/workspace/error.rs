//! Why a workspace document was refused: where in which file, which key, what was expected and what was found.

use std::fmt;

use super::tree::Lines;
use super::tree::shortened;

/// Why a document was refused. The text is one line that starts with the place:
/// `web.toml:12: network.in.limit: expected a rate such as 10mbit, found "fast"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentError {
    /// The file, as the caller named it.
    pub file: String,
    /// The line in it, from 1; none when the fault is what is missing from it.
    pub line: Option<usize>,
    /// The key at fault with all those above it, such as `network.in.limit`; empty for the whole document.
    pub key: String,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong with a key of a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The text is neither TOML nor JSON.
    #[error("{0}")]
    Syntax(String),
    /// The key has a value that it cannot have.
    #[error("expected {expected}, found {found}")]
    Value {
        /// What it may be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// No key has this name.
    #[error("unknown key; {hint}")]
    Unknown {
        /// The nearest key there is, or all that there are.
        hint: String,
    },
    /// A key that must be there is not.
    #[error("is missing, expected {expected}")]
    Missing {
        /// What it would be.
        expected: String,
    },
    /// A key stands there more than once.
    #[error("stands there twice")]
    Twice,
    /// The value can be read, but not be meant: what contradicts it, and what would do.
    #[error("{0}")]
    Meaning(String),
}

impl fmt::Display for DocumentError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(out, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(out, ": {}", harmless(&self.key))?;
        }
        write!(out, ": {}", self.problem)
    }
}

impl std::error::Error for DocumentError {}

/// A key as a terminal may be shown it: keys that nobody knows come from anywhere.
fn harmless(key: &str) -> String {
    let escaped = |letter: char| match letter.is_control() {
        true => letter.escape_default().to_string(),
        false => letter.to_string(),
    };
    shortened(key).chars().map(escaped).collect()
}

/// A fault on its way up to the file that it is in: the key path grows, the place is that of the innermost value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// The key path, such as `mount[0].mode`.
    pub(super) key: String,
    /// Where in the text, in bytes, where that is known.
    pub(super) offset: Option<usize>,
    pub(super) problem: Problem,
}

impl Fault {
    /// A fault of the value that is being read; its key is added on the way up.
    pub(super) fn here(problem: Problem) -> Self {
        Self {
            key: String::new(),
            offset: None,
            problem,
        }
    }

    /// A value that cannot be.
    pub(super) fn value(expected: impl fmt::Display, found: impl fmt::Display) -> Self {
        Self::here(Problem::Value {
            expected: expected.to_string(),
            found: found.to_string(),
        })
    }

    /// A value that cannot be meant.
    pub(super) fn meaning(key: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            ..Self::here(Problem::Meaning(text.into()))
        }
    }

    /// The same fault, seen from the table that has `key`.
    pub(super) fn below(mut self, key: &str) -> Self {
        self.key = match self.key.as_str() {
            "" => key.to_owned(),
            rest if rest.starts_with('[') => format!("{key}{rest}"),
            rest => format!("{key}.{rest}"),
        };
        self
    }

    /// The same fault; it is at `offset` unless more is known.
    pub(super) fn at(mut self, offset: usize) -> Self {
        self.offset.get_or_insert(offset);
        self
    }

    /// The fault with its line in the text. What is missing from the document as a whole has none.
    pub(super) fn in_text(self, text: &str, file: &str) -> DocumentError {
        let absent = matches!(self.problem, Problem::Missing { .. }) && !self.key.contains('.');
        let offset = self.offset.filter(|_| !absent);
        DocumentError {
            file: file.to_owned(),
            line: offset.map(|offset| Lines::of(text).at(offset)),
            key: self.key,
            problem: self.problem,
        }
    }
}
