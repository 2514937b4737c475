//! How control groups are laid out here: one tree, two generations side by side, or none.
//!
//! A machine with one tree (`/sys/fs/cgroup` is cgroup2 itself) is recognised by `statfs`, and nothing is parsed. On
//! any other machine `/proc/mounts` is read, once: it says where cgroup2 is, if anywhere, and which controllers are
//! held by cgroup v1, which is what a refusal has to name.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::StatFs;

use crate::sys::pseudo;

/// Where everybody expects control groups.
const USUAL: &str = "/sys/fs/cgroup";

/// `CGROUP2_SUPER_MAGIC` of `linux/magic.h`.
const CGROUP2_MAGIC: i64 = 0x6367_7270;
/// `ST_RDONLY` of what `statfs(2)` says.
const READ_ONLY: i64 = 1;

/// Which generations of control groups are there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// cgroup2 alone, at the usual place.
    Unified,
    /// cgroup2 beside cgroup v1.
    Hybrid,
    /// cgroup v1 alone.
    Legacy,
    /// Nothing is mounted.
    #[default]
    None,
}

/// The layout of control groups.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Cgroups {
    /// Which generations there are.
    pub mode: Mode,
    /// Where cgroup2 is mounted.
    pub mount: Option<PathBuf>,
    /// The controllers that cgroup2 has there.
    pub controllers: BTreeSet<String>,
    /// The controllers that cgroup v1 holds, and where it is mounted.
    pub legacy: BTreeMap<String, PathBuf>,
    /// Whether cgroup2 is mounted read-only.
    pub read_only: bool,
    /// The cgroup2 group of the caller, from the root of the mount: `/` or `/user.slice/...`.
    pub own: PathBuf,
    /// Whether systemd is the init of this machine (`sd_booted(3)`).
    pub systemd: bool,
}

impl Cgroups {
    /// Asks the kernel.
    ///
    /// # Errors
    ///
    /// If `/proc` cannot be read.
    pub fn look() -> io::Result<Self> {
        let own = own_group(&pseudo::text("/proc/self/cgroup")?);
        let systemd = Path::new("/run/systemd/system").is_dir();
        let unified = cgroup2_at(Path::new(USUAL));
        let layout = if unified.is_some() {
            Self {
                mode: Mode::Unified,
                mount: Some(PathBuf::from(USUAL)),
                ..Self::default()
            }
        } else {
            Self::from_mounts(&std::fs::read_to_string("/proc/mounts")?)
        };
        let mount = layout.mount.as_deref();
        let system = unified.or_else(|| cgroup2_at(mount?));
        Ok(Self {
            controllers: mount.map(controllers_of).unwrap_or_default(),
            read_only: system.is_some_and(|system| system.f_flags & READ_ONLY != 0),
            own,
            systemd,
            ..layout
        })
    }

    /// Reads the layout of a machine that is not unified from the lines of `/proc/mounts`.
    #[must_use]
    pub fn from_mounts(lines: &str) -> Self {
        let mut found = Self::default();
        for line in lines.lines() {
            let mut fields = line.split(' ').skip(1);
            let (Some(place), Some(kind), Some(options)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            match kind {
                "cgroup2" if found.mount.is_none() => found.mount = Some(PathBuf::from(place)),
                "cgroup" => found.add_legacy(Path::new(place), options),
                _ => {}
            }
        }
        found.mode = match (&found.mount, found.legacy.is_empty()) {
            (Some(_), true) => Mode::Unified,
            (Some(_), false) => Mode::Hybrid,
            (None, false) => Mode::Legacy,
            (None, true) => Mode::None,
        };
        found
    }

    fn add_legacy(&mut self, place: &Path, options: &str) {
        const NOT_CONTROLLERS: [&str; 10] = [
            "rw",
            "ro",
            "relatime",
            "noatime",
            "nosuid",
            "nodev",
            "noexec",
            "xattr",
            "clone_children",
            "noprefix",
        ];
        for option in options.split(',') {
            let named = option.starts_with("name=") || option.starts_with("release_agent=");
            if !named && !NOT_CONTROLLERS.contains(&option) {
                self.legacy
                    .entry(option.to_owned())
                    .or_insert_with(|| place.to_owned());
            }
        }
    }

    /// Where cgroup v1 holds `controller`, as named by cgroup2, under whichever name v1 has for it.
    #[must_use]
    pub fn legacy_place(&self, controller: &str) -> Option<&Path> {
        let name = match controller {
            "io" => "blkio",
            other => other,
        };
        self.legacy.get(name).map(PathBuf::as_path)
    }
}

/// The caller's group from `/proc/self/cgroup`: the line that begins with `0::`.
fn own_group(lines: &str) -> PathBuf {
    lines
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .map_or_else(|| PathBuf::from("/"), PathBuf::from)
}

/// What is known of the file system at `place`, where that is cgroup2.
fn cgroup2_at(place: &Path) -> Option<StatFs> {
    let found = rustix::fs::statfs(place).ok()?;
    (found.f_type == CGROUP2_MAGIC).then_some(found)
}

fn controllers_of(mount: &Path) -> BTreeSet<String> {
    pseudo::text(mount.join("cgroup.controllers"))
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
tmpfs /sys/fs/cgroup tmpfs rw,mode=755 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,relatime,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/blkio cgroup rw,relatime,blkio 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,relatime,xattr,name=systemd 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0
";

    #[test]
    fn a_hybrid_machine_has_both_generations() {
        let found = Cgroups::from_mounts(HYBRID);
        assert_eq!(found.mode, Mode::Hybrid);
        assert_eq!(found.mount, Some(PathBuf::from("/sys/fs/cgroup/unified")));
    }

    #[test]
    fn a_controller_is_found_where_the_first_generation_holds_it() {
        let found = Cgroups::from_mounts(HYBRID);
        assert_eq!(
            found.legacy_place("cpu"),
            Some(Path::new("/sys/fs/cgroup/cpu,cpuacct"))
        );
        assert_eq!(
            found.legacy_place("io"),
            Some(Path::new("/sys/fs/cgroup/blkio"))
        );
        assert_eq!(
            found.legacy.keys().collect::<Vec<_>>(),
            ["blkio", "cpu", "cpuacct"]
        );
    }

    #[test]
    fn a_machine_with_nothing_mounted_has_no_cgroups() {
        assert_eq!(
            Cgroups::from_mounts("proc /proc proc rw 0 0\n").mode,
            Mode::None
        );
    }

    #[test]
    fn the_own_group_is_the_one_of_the_second_generation() {
        let lines = "2:cpu:/a\n1:name=systemd:/b\n0::/user.slice/x.scope\n";
        assert_eq!(own_group(lines), PathBuf::from("/user.slice/x.scope"));
    }
}
