//! What the file server asks of `capng`, answered by `caps`: so that the product has no library of C in it.
//!
//! The file server takes a capability out of the effective set of a thread for the time of one write, and puts it back. As
//! with libcap-ng, what is to change is noted first, for each thread by itself, and becomes true by `apply`.

use std::cell::RefCell;
use std::fmt;
use std::ops::BitOr;
use std::sync::LazyLock;

use caps::CapSet;

/// A capability by its number (`linux/capability.h`).
pub type Capability = u32;

/// Why something was not done.
#[derive(Debug)]
pub enum Error {
    /// There is no capability of this name.
    GetCapabilityId(String),
    /// There is no capability with this number.
    UpdateCapability(Capability),
    /// The kernel did not say which there are.
    GetProcessCapabilities,
    /// The kernel did not take them.
    ApplyCapabilities,
}

impl fmt::Display for Error {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GetCapabilityId(name) => write!(to, "there is no capability {name}"),
            Self::UpdateCapability(number) => write!(to, "there is no capability {number}"),
            Self::GetProcessCapabilities => write!(to, "the capabilities cannot be read"),
            Self::ApplyCapabilities => write!(to, "the capabilities cannot be set"),
        }
    }
}

impl std::error::Error for Error {}

/// What comes of it.
pub type Result<T> = std::result::Result<T, Error>;

/// Sets of one thread, several of which can be named at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Type(u32);

impl Type {
    /// What the kernel looks at.
    pub const EFFECTIVE: Self = Self(1);
    /// What may be made effective.
    pub const PERMITTED: Self = Self(2);
    /// What a program that is executed may have.
    pub const INHERITABLE: Self = Self(4);

    fn named(self) -> impl Iterator<Item = CapSet> {
        let all = [
            (Self::EFFECTIVE, CapSet::Effective),
            (Self::PERMITTED, CapSet::Permitted),
            (Self::INHERITABLE, CapSet::Inheritable),
        ];
        all.into_iter()
            .filter(move |(one, _)| self.0 & one.0 != 0)
            .map(|(_, set)| set)
    }
}

impl BitOr for Type {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What is to be applied: the sets of a thread, its bounding set, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Set(u32);

impl Set {
    /// The sets of [`Type`].
    pub const CAPS: Self = Self(16);
    /// What no program that is executed can have.
    pub const BOUNDS: Self = Self(32);
    /// Both of them.
    pub const BOTH: Self = Self(48);

    fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// What becomes of a capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is taken out.
    DROP,
    /// It is put in.
    ADD,
}

/// A change of one capability.
#[derive(Debug, Clone, Copy)]
pub struct CUpdate {
    /// What becomes of it.
    pub action: Action,
    /// In which sets.
    pub cap_type: Type,
    /// Which one.
    pub capability: Capability,
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Clear(Set),
    One(Action, Type, caps::Capability),
}

thread_local! {
    /// What is to change when it is applied.
    static NOTED: RefCell<Vec<Change>> = const { RefCell::new(Vec::new()) };
}

/// Notes that all capabilities go.
pub fn clear(set: Set) {
    NOTED.with_borrow_mut(|noted| noted.push(Change::Clear(set)));
}

/// Forgets what was noted and not applied: what is changed next is what this thread has now.
///
/// # Errors
///
/// [`Error::GetProcessCapabilities`].
pub fn get_caps_process() -> Result<()> {
    NOTED.with_borrow_mut(Vec::clear);
    let read = caps::read(None, CapSet::Effective);
    read.map(drop).map_err(|_| Error::GetProcessCapabilities)
}

/// Notes changes.
///
/// # Errors
///
/// [`Error::UpdateCapability`] for a number that is none.
pub fn update(updates: Vec<CUpdate>) -> Result<()> {
    for asked in updates {
        let one = of_number(asked.capability).ok_or(Error::UpdateCapability(asked.capability))?;
        NOTED.with_borrow_mut(|noted| noted.push(Change::One(asked.action, asked.cap_type, one)));
    }
    Ok(())
}

/// Does what was noted, to this thread.
///
/// # Errors
///
/// [`Error::ApplyCapabilities`].
pub fn apply(set: Set) -> Result<()> {
    let noted = NOTED.take();
    let mut applied = noted.into_iter().map(|change| change.apply(set));
    applied.try_for_each(|done| done.map_err(|_| Error::ApplyCapabilities))
}

/// Whether this thread has a capability in a set.
#[must_use]
pub fn have_capability(which: Type, capability: Capability) -> bool {
    let Some(one) = of_number(capability) else {
        return false;
    };
    which
        .named()
        .all(|set| caps::has_cap(None, set, one).unwrap_or(false))
}

/// The capability of this name, which begins behind `CAP_`.
///
/// # Errors
///
/// [`Error::GetCapabilityId`] when there is none.
pub fn name_to_capability(name: &str) -> Result<Capability> {
    let parsed = format!("CAP_{name}").parse::<caps::Capability>();
    let found = parsed.map_err(|_| Error::GetCapabilityId(name.to_owned()))?;
    Ok(found.index().into())
}

impl Change {
    fn apply(self, set: Set) -> std::result::Result<(), caps::errors::CapsError> {
        match self {
            Self::One(action, types, one) if set.has(Set::CAPS) => {
                types.named().try_for_each(|named| match action {
                    Action::DROP => caps::drop(None, named, one),
                    Action::ADD => caps::raise(None, named, one),
                })
            }
            Self::One(..) => Ok(()),
            Self::Clear(cleared) => {
                if set.has(Set::BOUNDS) && cleared.has(Set::BOUNDS) {
                    caps::clear(None, CapSet::Bounding)?;
                }
                if set.has(Set::CAPS) && cleared.has(Set::CAPS) {
                    caps::clear(None, CapSet::Effective)?;
                    caps::clear(None, CapSet::Inheritable)?;
                    caps::clear(None, CapSet::Permitted)?;
                }
                Ok(())
            }
        }
    }
}

/// All that there are; it is asked for at each write of a guest that may change what a file's owner has set.
static ALL: LazyLock<Vec<caps::Capability>> = LazyLock::new(|| caps::all().into_iter().collect());

fn of_number(number: Capability) -> Option<caps::Capability> {
    let mut all = ALL.iter().copied();
    all.find(|one| u32::from(one.index()) == number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_of_a_thread_goes_and_comes_back() {
        let number = name_to_capability("FSETID").unwrap();
        assert_eq!(number, 4);
        let had = have_capability(Type::EFFECTIVE, number);
        let change = |action| {
            let cap_type = Type::EFFECTIVE;
            let capability = number;
            update(vec![CUpdate {
                action,
                cap_type,
                capability,
            }])
            .unwrap();
            apply(Set::CAPS).unwrap();
        };
        change(Action::DROP);
        assert!(!have_capability(Type::EFFECTIVE, number));
        if had {
            change(Action::ADD);
        }
        assert_eq!(have_capability(Type::EFFECTIVE, number), had);
    }

    #[test]
    fn what_is_no_capability_is_told() {
        assert!(name_to_capability("FLY").is_err());
        let asked = CUpdate {
            action: Action::ADD,
            cap_type: Type::EFFECTIVE,
            capability: 63,
        };
        assert!(update(vec![asked]).is_err());
        assert!(!have_capability(Type::EFFECTIVE, 63));
    }
}
