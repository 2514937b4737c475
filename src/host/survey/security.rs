//! What keeps a workspace in besides its namespaces: system call filters, labels, Landlock.

use crate::host::survey::Finding;
use crate::host::survey::text;
use crate::sys::probe;

const AREA: &str = "security";

pub(super) fn findings() -> Vec<Finding> {
    vec![seccomp(), notification(), apparmor(), selinux(), landlock()]
}

fn actions() -> Option<String> {
    text("/proc/sys/kernel/seccomp/actions_avail")
}

fn seccomp() -> Finding {
    match actions() {
        Some(actions) => Finding::yes(AREA, "seccomp", actions),
        None => Finding::no(AREA, "seccomp", "no", "a kernel with CONFIG_SECCOMP_FILTER"),
    }
}

fn notification() -> Finding {
    let there = actions().is_some_and(|actions| actions.contains("user_notif"));
    Finding::of(AREA, "seccomp notification", there, "Linux 5.0")
}

fn apparmor() -> Finding {
    let on = text("/sys/module/apparmor/parameters/enabled").is_some_and(|value| value == "Y");
    let remedy = "a kernel with AppArmor, and lsm=...,apparmor on its command line";
    Finding::of(AREA, "AppArmor", on, remedy)
}

fn selinux() -> Finding {
    match text("/sys/fs/selinux/enforce").as_deref() {
        Some("1") => Finding::yes(AREA, "SELinux", "enforcing"),
        Some(_) => Finding::yes(AREA, "SELinux", "permissive"),
        None => {
            let remedy = "a kernel with SELinux, lsm=...,selinux on its command line, and a policy";
            Finding::no(AREA, "SELinux", "no", remedy)
        }
    }
}

fn landlock() -> Finding {
    match probe::landlock() {
        Ok(version) => Finding::yes(AREA, "Landlock", format!("version {version}")),
        Err(errno) => {
            let remedy = "Linux 5.13 with CONFIG_SECURITY_LANDLOCK, and lsm=landlock,... on its \
                          command line";
            Finding::no(AREA, "Landlock", errno.to_string(), remedy)
        }
    }
}
