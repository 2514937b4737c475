//! Puts a workspace into its class of cache and memory bandwidth, through the `resctrl` filesystem.
//!
//! Nothing here is done, and no mount is looked for, unless the configuration has `linux.intelRdt`.

use std::path::Path;
use std::path::PathBuf;

use rustix::fs::AtFlags;
use rustix::fs::Mode;

use crate::enclosure::group::Group;
use crate::plan::rdt;
use crate::plan::rdt::RdtPlan;
use crate::sys::Errno;

/// Where the mounts of this process are listed.
const MOUNTS: &str = "/proc/self/mountinfo";

/// Why a workspace could not be put into its class, or taken out of it.
#[derive(Debug, thiserror::Error)]
pub enum RdtError {
    /// The filesystem is not mounted.
    #[error(
        "linux.intelRdt: resctrl is not mounted; if the processor has RDT: \
         mount -t resctrl resctrl /sys/fs/resctrl"
    )]
    NotMounted,
    /// The class has to be there already, and is not.
    #[error(
        "linux.intelRdt.closID: there is no class {class:?}, and nothing says what it should have"
    )]
    NoClass {
        /// Its name.
        class: String,
    },
    /// The class is there, with other shares.
    #[error("linux.intelRdt: class {class:?} exists and does not have {share:?}")]
    OtherShares {
        /// Its name.
        class: String,
        /// What was asked for.
        share: String,
    },
    /// The kernel does not do it.
    #[error("linux.intelRdt: cannot {action} {}{}", path.display(), said(hint))]
    Kernel {
        /// What was tried.
        action: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// What `resctrl` says in `info/last_cmd_status`; may be empty.
        hint: String,
        /// What the kernel says.
        source: Errno,
    },
}

fn said(hint: &str) -> String {
    if hint.is_empty() {
        String::new()
    } else {
        format!(" ({hint})")
    }
}

/// Puts a process, and all that it will start, into its class. What was made is removed again if that fails.
///
/// # Errors
///
/// [`RdtError`].
pub fn enter(plan: &RdtPlan, pid: i32) -> Result<(), RdtError> {
    let mount = mount().ok_or(RdtError::NotMounted)?;
    Tree { mount: &mount }.enter(plan, pid)
}

/// Puts a process into the class of a workspace that is there. What the process starts from then on is in it too.
///
/// # Errors
///
/// [`RdtError`].
pub fn join(plan: &RdtPlan, pid: i32) -> Result<(), RdtError> {
    let mount = mount().ok_or(RdtError::NotMounted)?;
    let class = mount.join(&plan.class);
    Tree { mount: &mount }.take_in(plan, &class, pid)
}

/// Gives the class of a workspace other shares; domains that `shares` does not name stay as they are. Gives the shares
/// that it had before.
///
/// # Errors
///
/// [`RdtError`].
pub fn change(plan: &RdtPlan, shares: &[String]) -> Result<Vec<String>, RdtError> {
    let mount = mount().ok_or(RdtError::NotMounted)?;
    Tree { mount: &mount }.change(plan, shares)
}

/// Removes what [`enter`] has made. That there is nothing of it, or no `resctrl`, is no error.
///
/// # Errors
///
/// [`RdtError::Kernel`].
pub fn leave(plan: &RdtPlan) -> Result<(), RdtError> {
    match mount() {
        Some(mount) => Tree { mount: &mount }.leave(plan),
        None => Ok(()),
    }
}

/// The mount point of `resctrl`.
fn mount() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string(MOUNTS).ok()?;
    mount_in(&mounts).map(PathBuf::from)
}

fn mount_in(mounts: &str) -> Option<&str> {
    let line = mounts.lines().find(|line| line.contains(" - resctrl "))?;
    line.split(' ').nth(4)
}

/// A mounted `resctrl`.
struct Tree<'a> {
    mount: &'a Path,
}

impl Tree<'_> {
    fn enter(&self, plan: &RdtPlan, pid: i32) -> Result<(), RdtError> {
        let path = self.mount.join(&plan.class);
        let made = self.class(plan, &path)?;
        let entered = self.fill(plan, &path, made, pid);
        if entered.is_err() && made {
            // The first error is the one to tell; what stays behind is empty.
            rustix::fs::rmdir(&path).ok();
        }
        entered
    }

    /// Finds or makes the class; says whether it was made.
    fn class(&self, plan: &RdtPlan, path: &Path) -> Result<bool, RdtError> {
        let there = path.is_dir();
        if !there && !plan.own && !plan.has_shares() {
            let class = plan.class.clone();
            return Err(RdtError::NoClass { class });
        }
        if !there {
            self.make(path)?;
        }
        Ok(!there)
    }

    fn fill(&self, plan: &RdtPlan, path: &Path, made: bool, pid: i32) -> Result<(), RdtError> {
        let failed = |action, source| self.failed(action, path, source);
        let group = Group::plain(path).map_err(|source| failed("open", source))?;
        if made {
            self.write(&group, path, &plan.shares)?;
        } else {
            let present = group
                .read("schemata")
                .map_err(|source| failed("read", source))?;
            if let Some(share) = rdt::missing_share(&plan.shares, &present) {
                let (class, share) = (plan.class.clone(), share.to_owned());
                return Err(RdtError::OtherShares { class, share });
            }
        }
        self.write(&group, path, &plan.schemata)?;
        if let Some(name) = &plan.monitor {
            self.make(&path.join("mon_groups").join(name))?;
        }
        self.take_in(plan, path, pid)
    }

    fn take_in(&self, plan: &RdtPlan, class: &Path, pid: i32) -> Result<(), RdtError> {
        let monitor = plan.monitor.as_ref();
        let monitor = monitor.map(|name| class.join("mon_groups").join(name));
        for path in [class.to_owned()].into_iter().chain(monitor) {
            let entered =
                Group::plain(&path).and_then(|group| group.write("tasks", &pid.to_string()));
            entered.map_err(|source| self.failed("move the process to", &path, source))?;
        }
        Ok(())
    }

    fn write(&self, group: &Group, path: &Path, lines: &[String]) -> Result<(), RdtError> {
        if lines.is_empty() {
            return Ok(());
        }
        let text = lines.join("\n") + "\n";
        let written = group.write("schemata", &text);
        written.map_err(|source| self.failed("write to the schemata of", path, source))
    }

    fn change(&self, plan: &RdtPlan, shares: &[String]) -> Result<Vec<String>, RdtError> {
        let path = self.mount.join(&plan.class);
        let group = Group::plain(&path).map_err(|source| self.failed("open", &path, source))?;
        let before = group
            .read("schemata")
            .map_err(|source| self.failed("read", &path, source))?;
        self.write(&group, &path, shares)?;
        let lines = before.lines().map(|line| line.trim().to_owned());
        Ok(lines.collect())
    }

    fn make(&self, path: &Path) -> Result<(), RdtError> {
        match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(source) => Err(self.failed("make", path, source)),
        }
    }

    fn leave(&self, plan: &RdtPlan) -> Result<(), RdtError> {
        let class = self.mount.join(&plan.class);
        let monitor = plan
            .monitor
            .as_ref()
            .map(|name| class.join("mon_groups").join(name));
        let own = plan.own.then_some(class);
        for path in monitor.into_iter().chain(own) {
            match rustix::fs::unlinkat(rustix::fs::CWD, &path, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(source) => return Err(self.failed("remove", &path, source)),
            }
        }
        Ok(())
    }

    fn failed(&self, action: &'static str, path: &Path, source: Errno) -> RdtError {
        let hint = std::fs::read_to_string(self.mount.join("info/last_cmd_status"));
        let hint = hint.unwrap_or_default().trim().to_owned();
        RdtError::Kernel {
            action,
            path: path.to_owned(),
            hint: if hint == "ok" { String::new() } else { hint },
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A class as the kernel would have filled it.
    fn class(mount: &Path, name: &str, schemata: &str) {
        let class = mount.join(name);
        std::fs::create_dir_all(class.join("mon_groups/web-1")).unwrap();
        std::fs::write(class.join("schemata"), schemata).unwrap();
        std::fs::write(class.join("tasks"), "").unwrap();
        std::fs::write(class.join("mon_groups/web-1/tasks"), "").unwrap();
    }

    fn named(shares: &[&str], monitor: bool) -> RdtPlan {
        RdtPlan {
            class: "gold".to_owned(),
            own: false,
            shares: shares.iter().map(|&share| share.to_owned()).collect(),
            schemata: Vec::new(),
            monitor: monitor.then(|| "web-1".to_owned()),
        }
    }

    #[test]
    fn the_mount_is_found_by_its_type() {
        let mounts = "30 1 0:1 / / rw - ext4 /dev/a rw\n31 30 0:9 / /sys/fs/resctrl rw shared:1 - resctrl resctrl rw\n";
        assert_eq!(mount_in(mounts), Some("/sys/fs/resctrl"));
        assert_eq!(mount_in("30 1 0:1 / / rw - ext4 /dev/a rw\n"), None);
    }

    #[test]
    fn a_process_enters_the_class_that_is_there() {
        let mount = tempfile::tempdir().unwrap();
        class(mount.path(), "gold", "L3:0=00f0\n");
        let tree = Tree {
            mount: mount.path(),
        };
        tree.enter(&named(&["L3:0=f0"], true), 7).unwrap();
        let tasks = |path: &str| std::fs::read_to_string(mount.path().join(path)).unwrap();
        assert_eq!(tasks("gold/tasks"), "7");
        assert_eq!(tasks("gold/mon_groups/web-1/tasks"), "7");
    }

    #[test]
    fn a_class_is_given_other_shares() {
        let mount = tempfile::tempdir().unwrap();
        class(mount.path(), "gold", "L3:0=3\n");
        let tree = Tree {
            mount: mount.path(),
        };
        let shares = ["L3:0=f".to_owned(), "MB:0=50".to_owned()];
        let before = tree.change(&named(&[], false), &shares).unwrap();
        assert_eq!(before, ["L3:0=3"]);
        let written = std::fs::read_to_string(mount.path().join("gold/schemata"));
        assert_eq!(written.unwrap(), "L3:0=f\nMB:0=50\n");
    }

    #[test]
    fn a_class_with_other_shares_is_refused() {
        let mount = tempfile::tempdir().unwrap();
        class(mount.path(), "gold", "L3:0=00ff\n");
        let refused = Tree {
            mount: mount.path(),
        }
        .enter(&named(&["L3:0=f0"], false), 7);
        assert!(matches!(refused, Err(RdtError::OtherShares { .. })));
    }

    #[test]
    fn a_named_class_that_is_not_there_is_refused_when_nothing_says_what_it_has() {
        let mount = tempfile::tempdir().unwrap();
        let refused = Tree {
            mount: mount.path(),
        }
        .enter(&named(&[], false), 7);
        assert!(matches!(refused, Err(RdtError::NoClass { .. })));
        assert!(!mount.path().join("gold").exists());
    }

    #[test]
    fn a_class_of_ones_own_goes_with_the_workspace_and_a_named_one_stays() {
        let mount = tempfile::tempdir().unwrap();
        let tree = Tree {
            mount: mount.path(),
        };
        for name in ["gold", "web-1"] {
            std::fs::create_dir(mount.path().join(name)).unwrap();
        }
        let own = RdtPlan {
            class: "web-1".to_owned(),
            own: true,
            ..named(&[], false)
        };
        tree.leave(&own).unwrap();
        tree.leave(&named(&[], true)).unwrap();
        assert!(!mount.path().join("web-1").exists());
        assert!(mount.path().join("gold").exists());
    }
}
