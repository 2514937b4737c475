//! What this machine can do, found once, as a plain value that tests can make.
//!
//! [`Host::look`] is on the way of every container that is made, so it asks the kernel for what a plan depends on and
//! for nothing else: on a unified machine that is one `statfs`, two small files and `uname`.

pub mod cgroup;
pub mod disk;
pub mod machines;
pub mod survey;
pub mod uplink;

use std::io;

use crate::host::cgroup::Cgroups;
use crate::sys::pseudo;

/// What a plan has to know of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Host {
    /// The version of the kernel.
    pub kernel: Kernel,
    /// How control groups are laid out.
    pub cgroup: Cgroups,
    /// Who is asking.
    pub caller: Caller,
}

/// The version of a kernel, as far as it is compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Kernel {
    /// 6 of 6.12.
    pub major: u32,
    /// 12 of 6.12.
    pub minor: u32,
}

/// Who runs this program, as the kernel sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Caller {
    /// The effective user, inside the user namespace.
    pub uid: u32,
    /// Whether that is inside a user namespace other than the first.
    pub in_user_namespace: bool,
    /// The owner of that user namespace as the host counts, if it is another than `uid`.
    pub host_uid: u32,
}

impl Host {
    /// Asks the kernel.
    ///
    /// # Errors
    ///
    /// If `/proc` cannot be read. That there are no control groups is a finding, not an error.
    pub fn look() -> io::Result<Self> {
        Ok(Self {
            kernel: Kernel::look(),
            cgroup: Cgroups::look()?,
            caller: Caller::look(),
        })
    }
}

impl Kernel {
    /// Asks `uname(2)`; a release that is not made of numbers counts as zero.
    #[must_use]
    pub fn look() -> Self {
        let name = rustix::system::uname();
        Self::parse(&name.release().to_string_lossy())
    }

    /// Reads the beginning of a release like `6.12.48-cloud`.
    #[must_use]
    pub fn parse(release: &str) -> Self {
        let mut numbers = release
            .split(|c: char| !c.is_ascii_digit())
            .map(|digits| digits.parse().unwrap_or_default());
        Self {
            major: numbers.next().unwrap_or_default(),
            minor: numbers.next().unwrap_or_default(),
        }
    }
}

impl Caller {
    /// Asks for the effective user and reads `/proc/self/uid_map`.
    #[must_use]
    pub fn look() -> Self {
        let uid = rustix::process::geteuid().as_raw();
        let map = pseudo::text("/proc/self/uid_map").unwrap_or_default();
        Self::from_map(uid, &map)
    }

    /// Takes the first line of a `uid_map`; only the first namespace of all maps everything onto itself.
    fn from_map(uid: u32, map: &str) -> Self {
        let ranges: Vec<[u32; 3]> = map.lines().filter_map(three_numbers).collect();
        let first = ranges.contains(&[0, 0, u32::MAX]);
        let host_uid = ranges
            .iter()
            .find(|[inside, _, size]| uid >= *inside && uid - *inside < *size)
            .map_or(uid, |[inside, outside, _]| {
                outside.saturating_add(uid - *inside)
            });
        Self {
            uid,
            in_user_namespace: !first && !ranges.is_empty(),
            host_uid,
        }
    }
}

fn three_numbers(line: &str) -> Option<[u32; 3]> {
    let mut fields = line.split_whitespace().map(str::parse);
    Some([
        fields.next()?.ok()?,
        fields.next()?.ok()?,
        fields.next()?.ok()?,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_read_up_to_its_second_number() {
        assert_eq!(
            Kernel::parse("6.12.48+deb13-cloud-amd64"),
            Kernel {
                major: 6,
                minor: 12
            }
        );
        assert_eq!(Kernel::parse("strange"), Kernel::default());
    }

    #[test]
    fn the_first_user_namespace_is_the_one_that_maps_everything() {
        let caller = Caller::from_map(0, "         0          0 4294967295\n");
        assert!(!caller.in_user_namespace);
    }

    #[test]
    fn the_owner_of_a_user_namespace_is_counted_as_the_host_does() {
        let caller = Caller::from_map(0, "0 1000 1\n1 100000 65536\n");
        assert_eq!(
            caller,
            Caller {
                uid: 0,
                in_user_namespace: true,
                host_uid: 1000
            }
        );
    }
}
