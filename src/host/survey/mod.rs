//! Everything worth knowing of a machine before putting workspaces on it, each with the way to get what is missing.
//!
//! This looks into many corners and so is not for the way of every workspace; that is [`Host::look`].

mod cgroup;
mod disk;
mod kernel;
mod machine;
mod security;
mod tools;

use serde::Serialize;

use crate::host::Host;

/// One thing that was looked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it belongs to.
    pub area: &'static str,
    /// What it is.
    pub name: String,
    /// Whether it can be used.
    pub usable: bool,
    /// What was found.
    pub found: String,
    /// What to do to get it; none if it is there, or cannot be had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    fn yes(area: &'static str, name: &str, found: impl Into<String>) -> Self {
        Self {
            area,
            name: name.to_owned(),
            usable: true,
            found: found.into(),
            remedy: None,
        }
    }

    fn no(area: &'static str, name: &str, found: impl Into<String>, remedy: &str) -> Self {
        let remedy = (!remedy.is_empty()).then(|| remedy.to_owned());
        Self {
            area,
            name: name.to_owned(),
            usable: false,
            found: found.into(),
            remedy,
        }
    }

    /// One of the two, as `present` says.
    fn of(area: &'static str, name: &str, present: bool, remedy: &str) -> Self {
        if present {
            Self::yes(area, name, "yes")
        } else {
            Self::no(area, name, "no", remedy)
        }
    }
}

/// Looks at everything.
#[must_use]
pub fn survey(host: &Host) -> Vec<Finding> {
    [
        kernel::findings(host),
        cgroup::findings(&host.cgroup, host.kernel),
        disk::findings(&host.cgroup),
        security::findings(),
        machine::findings(),
        tools::findings(host),
    ]
    .concat()
}

/// A small file of the kernel's, without white space around it; none if it cannot be read.
fn text(path: &str) -> Option<String> {
    std::fs::read_to_string(path)
        .ok()
        .map(|text| text.trim().to_owned())
}

/// The first word of a file, as a number.
fn number(path: &str) -> Option<u64> {
    text(path)?.split_whitespace().next()?.parse().ok()
}
