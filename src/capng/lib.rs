//! What the file server asks of `capng`, answered by `caps`: so that the product has no library of C in it.
//!
//! The file server takes a capability out of the effective set of a thread for the time of one write, and puts it back. As
//! with libcap-ng, what is to change is noted first, for each thread by itself, and becomes true by `apply`.

use std::cell::RefCell;
use std::fmt;
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
    /// The kernel did not take them.
    ApplyCapabilities,
}

impl fmt::Display for Error {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GetCapabilityId(name) => write!(to, "there is no capability {name}"),
            Self::UpdateCapability(number) => write!(to, "there is no capability {number}"),
            Self::ApplyCapabilities => write!(to, "the capabilities cannot be set"),
        }
    }
}

impl std::error::Error for Error {}

/// What comes of it.
pub type Result<T> = std::result::Result<T, Error>;

/// A set of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// What the kernel looks at.
    EFFECTIVE,
}

impl Type {
    fn set(self) -> CapSet {
        match self {
            Self::EFFECTIVE => CapSet::Effective,
        }
    }
}

/// What is to be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Set {
    /// The sets of a thread.
    CAPS,
    /// Those, and what no program that is executed can have.
    BOTH,
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
    /// In which set.
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
/// None; libcap-ng has some.
pub fn get_caps_process() -> Result<()> {
    NOTED.with_borrow_mut(Vec::clear);
    Ok(())
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
    caps::has_cap(None, which.set(), one).unwrap_or(false)
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
    fn apply(self, to: Set) -> std::result::Result<(), caps::errors::CapsError> {
        match self {
            Self::One(Action::DROP, set, one) => caps::drop(None, set.set(), one),
            Self::One(Action::ADD, set, one) => caps::raise(None, set.set(), one),
            Self::Clear(cleared) => {
                if (cleared, to) == (Set::BOTH, Set::BOTH) {
                    caps::clear(None, CapSet::Bounding)?;
                }
                caps::clear(None, CapSet::Effective)?;
                caps::clear(None, CapSet::Inheritable)?;
                caps::clear(None, CapSet::Permitted)
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
