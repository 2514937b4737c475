//! What of a workspace's tree is the host's: mounts that a saved image names and does not hold.
//!
//! The names come from the configuration alone. A name that was made from a path found inside would let a link in the
//! image decide which of the host's directories is mounted where, and with whose attributes.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use crate::plan::Plan;
use crate::plan::step::Bind;
use crate::plan::step::Device;
use crate::plan::step::Step;

/// `MOUNT_ATTR_RDONLY`.
const READ_ONLY: u64 = 1;

/// A mount that is the host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    /// Its name in an image: a function of the configuration alone.
    pub name: String,
    /// What is mounted where.
    pub bind: Bind,
    /// Whether it must never be seen writable.
    pub read_only: bool,
}

/// The mounts of a plan that are the host's, in the order in which they are made.
#[must_use]
pub fn of(plan: &Plan) -> Vec<External> {
    let mut seen = BTreeMap::new();
    let binds = plan.steps.iter().filter_map(bind_of);
    binds
        .map(|bind| {
            let count = seen.entry(bind.destination.clone()).or_insert(0_u32);
            *count += 1;
            let mut name = format!("bind:{}", plain(&bind.destination));
            if *count > 1 {
                write!(name, "#{count}").unwrap_or_default();
            }
            External {
                name,
                read_only: (bind.attributes.set | bind.attributes.set_below) & READ_ONLY != 0,
                bind,
            }
        })
        .collect()
}

fn bind_of(step: &Step) -> Option<Bind> {
    if let Step::Bind(bind) = step {
        return (!bind.copy_link).then(|| (**bind).clone());
    }
    if let Step::Device(device) = step {
        return device.bind.then(|| of_device(device));
    }
    None
}

fn of_device(device: &Device) -> Bind {
    Bind {
        destination: device.path.clone(),
        source: device.path.clone(),
        follow: true,
        follow_destination: true,
        ..Bind::default()
    }
}

/// A path in letters that mean nothing to CRIU's lists; all others as `%` and two hexadecimal digits.
fn plain(path: &Path) -> String {
    let mut text = String::new();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' => {
                text.push(char::from(*byte));
            }
            other => write!(text, "%{other:02x}").unwrap_or_default(),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(destination: &str, set: u64) -> Step {
        let mut bind = Bind {
            destination: destination.into(),
            source: "/srv/x".into(),
            ..Bind::default()
        };
        bind.attributes.set = set;
        Step::Bind(Box::new(bind))
    }

    #[test]
    fn names_come_from_the_configuration_and_are_all_different() {
        let plan = Plan {
            steps: vec![
                bind("/data", 0),
                bind("/data", READ_ONLY),
                bind("/a]b c", 0),
            ],
            ..Plan::default()
        };
        let found = of(&plan);
        let names: Vec<&str> = found.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["bind:/data", "bind:/data#2", "bind:/a%5db%20c"]);
        assert_eq!((found[0].read_only, found[1].read_only), (false, true));
    }

    #[test]
    fn a_link_that_is_copied_is_no_mount() {
        let mut link = Bind {
            destination: "/l".into(),
            ..Bind::default()
        };
        link.copy_link = true;
        let plan = Plan {
            steps: vec![Step::Bind(Box::new(link))],
            ..Plan::default()
        };
        assert_eq!(of(&plan), []);
    }
}
