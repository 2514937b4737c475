//! Which devices may be opened and made, as a list of rules and as the program that the kernel runs.
//!
//! The rules apply in their order, each to the accesses that it names: of the rules that match a device and an
//! access, the last one decides, and if there is none the answer is no. After the bundle's own rules come those for
//! the devices that every workspace has, so no bundle can lock itself out of `/dev/null`.

mod program;

pub use program::Program;

use crate::spec::resources::DeviceRule;

/// What `m`, `r` and `w` are in the kernel's own numbering (`BPF_DEVCG_ACC_*` of `linux/bpf.h`).
const ACCESS: [(char, u8); 3] = [('m', 1), ('r', 2), ('w', 4)];

/// Every access.
const ALL_ACCESS: u8 = 7;

/// The rules in force, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DeviceFilter {
    /// The rules: the last that matches decides.
    pub rules: Vec<Rule>,
}

/// One rule, with everything that was left out filled in.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Rule {
    /// Whether what matches is allowed.
    pub allow: bool,
    /// Block, character, or (none) both.
    pub kind: Option<Kind>,
    /// The major number; none is every one.
    pub major: Option<u32>,
    /// The minor number; none is every one.
    pub minor: Option<u32>,
    /// The accesses, as a sum of 1 (mknod), 2 (read) and 4 (write).
    pub access: u8,
}

/// The two kinds of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Kind {
    /// `b`; 1 in the kernel's numbering (`BPF_DEVCG_DEV_BLOCK`).
    Block,
    /// `c`; 2 in the kernel's numbering (`BPF_DEVCG_DEV_CHAR`).
    Character,
}

/// The devices of every workspace: kind, major, minor, accesses.
///
/// Making a node is harmless, since opening it is checked again. The pseudo-terminals are those of the workspace's
/// own devpts. 10:200 is `/dev/net/tun`: leaving it out broke VPNs in containers for users of other runtimes.
const EVERYWHERE: [(Kind, Option<u32>, Option<u32>, u8); 11] = [
    (Kind::Character, None, None, 1),
    (Kind::Block, None, None, 1),
    (Kind::Character, Some(1), Some(3), ALL_ACCESS),
    (Kind::Character, Some(1), Some(5), ALL_ACCESS),
    (Kind::Character, Some(1), Some(7), ALL_ACCESS),
    (Kind::Character, Some(1), Some(8), ALL_ACCESS),
    (Kind::Character, Some(1), Some(9), ALL_ACCESS),
    (Kind::Character, Some(5), Some(0), ALL_ACCESS),
    (Kind::Character, Some(5), Some(2), ALL_ACCESS),
    (Kind::Character, Some(136), None, ALL_ACCESS),
    (Kind::Character, Some(10), Some(200), ALL_ACCESS),
];

impl DeviceFilter {
    /// Takes the rules of a bundle, which have been checked, and adds those of every workspace.
    #[must_use]
    pub fn new(asked: &[DeviceRule]) -> Self {
        let everywhere = EVERYWHERE.iter().map(|(kind, major, minor, access)| Rule {
            allow: true,
            kind: Some(*kind),
            major: *major,
            minor: *minor,
            access: *access,
        });
        Self {
            rules: asked.iter().map(Rule::from).chain(everywhere).collect(),
        }
    }

    /// The program that answers as these rules do.
    #[must_use]
    pub fn program(&self) -> Program {
        program::compile(&self.rules)
    }

    /// The same as systemd's `DeviceAllow=`, which can only allow: pairs of a device and accesses.
    ///
    /// None if it cannot be said that way: something is denied after something was allowed, or a minor number is
    /// meant whatever the major.
    pub(super) fn as_list(&self) -> Option<Vec<(String, String)>> {
        let blanket = self.rules.iter().rposition(Rule::is_blanket);
        let from = match blanket {
            Some(last) if self.rules[last].allow => return None,
            Some(last) => last + 1,
            None => 0,
        };
        let lists = self.rules[from..].iter().map(Rule::as_entries);
        lists
            .collect::<Option<Vec<_>>>()
            .map(|lists| lists.concat())
    }

    /// Whether everything is allowed, so that nothing is lost where the kernel lets nobody filter.
    #[must_use]
    pub fn allows_everything(&self) -> bool {
        let blanket = self.rules.iter().rposition(Rule::is_blanket);
        blanket.is_some_and(|last| self.rules[last..].iter().all(|rule| rule.allow))
    }
}

impl Rule {
    /// The rule as systemd's device names: `/dev/char/1:3`, `char-136`, `block-*`.
    fn as_entries(&self) -> Option<Vec<(String, String)>> {
        if !self.allow {
            return None;
        }
        let access: String = ACCESS
            .iter()
            .filter(|(_, bit)| self.access & bit != 0)
            .map(|(letter, _)| *letter)
            .collect();
        let kinds = match self.kind {
            Some(Kind::Block) => &["block"][..],
            Some(Kind::Character) => &["char"],
            None => &["block", "char"],
        };
        let name = |kind: &&str| match (self.major, self.minor) {
            (Some(major), Some(minor)) => Some(format!("/dev/{kind}/{major}:{minor}")),
            (Some(major), None) => Some(format!("{kind}-{major}")),
            (None, None) => Some(format!("{kind}-*")),
            (None, Some(_)) => None,
        };
        kinds
            .iter()
            .map(|kind| Some((name(kind)?, access.clone())))
            .collect()
    }

    /// Whether this matches every device and every access, so that no earlier rule matters.
    fn is_blanket(&self) -> bool {
        self.kind.is_none()
            && self.major.is_none()
            && self.minor.is_none()
            && self.access == ALL_ACCESS
    }
}

impl From<&DeviceRule> for Rule {
    fn from(asked: &DeviceRule) -> Self {
        let number = |given: Option<i64>| given.and_then(|number| u32::try_from(number).ok());
        Self {
            allow: asked.allow,
            kind: match asked.kind.as_deref() {
                Some("b") => Some(Kind::Block),
                Some("c") => Some(Kind::Character),
                _ => None,
            },
            major: number(asked.major),
            minor: number(asked.minor),
            access: ACCESS
                .iter()
                .filter(|(letter, _)| asked.access.contains(*letter))
                .map(|(_, bit)| bit)
                .sum(),
        }
    }
}

#[cfg(test)]
mod tests;
