//! A user who was given a cgroup has all that a cgroup is for.

use std::os::unix::fs::chown;
use std::path::Path;
use std::path::PathBuf;

use crate::need;
use crate::support::bundle::Bundle;
use crate::support::somebody::Somebody;
use crate::support::somebody::UID;
use crate::support::somebody::alone;

/// A cgroup that belongs to the user, with one below for the user's own commands.
struct Delegated(PathBuf);

impl Delegated {
    fn new(name: &str) -> Self {
        let mounts = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
        let mount = mounts
            .into_iter()
            .map(Path::new)
            .find(|path| path.join("cgroup.procs").exists())
            .unwrap();
        let given = mount.join(format!("given-{name}"));
        std::fs::create_dir(&given).unwrap();
        std::fs::create_dir(given.join("own")).unwrap();
        for file in [
            "",
            "cgroup.procs",
            "cgroup.subtree_control",
            "cgroup.threads",
            "own",
            "own/cgroup.procs",
        ] {
            chown(given.join(file), Some(UID), Some(UID)).unwrap();
        }
        Self(given)
    }

    /// Hands the controllers of the root on, as far as it has them.
    fn with_controllers(self) -> Self {
        std::fs::write(
            self.0.parent().unwrap().join("cgroup.subtree_control"),
            "+memory +pids",
        )
        .unwrap();
        self
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        std::fs::remove_dir(self.0.join("own")).unwrap();
        std::fs::remove_dir(&self.0).unwrap();
    }
}

#[test]
fn a_user_with_a_cgroup_pauses_counts_and_kills_all_at_once() {
    need!(root, cgroup2);
    let user = Somebody::new();
    let id = user.id();
    let given = Delegated::new(&id);
    let user = user.in_group(given.0.join("own"));
    let bundle = alone(Bundle::new(&["sleep", "1000"]));
    user.start(&bundle, &id);
    assert!(given.0.join(&id).join("cgroup.procs").exists());
    user.bulkhead(["pause", &id]).ok();
    assert!(user.bulkhead(["state", &id]).ok().contains("\"paused\""));
    user.bulkhead(["resume", &id]).ok();
    let detached = ["exec", "-d", &id, "sleep", "999"];
    assert!(super::quiet(user.command().args(detached)).success());
    assert!(user.bulkhead(["ps", &id]).ok().contains("sleep 999"));
    assert!(
        user.bulkhead(["events", "--stats", &id])
            .ok()
            .contains("\"type\":\"stats\"")
    );
    user.bulkhead(["kill", "--all", &id, "KILL"]).ok();
    user.bulkhead(["delete", "--force", &id]).ok();
    assert!(!given.0.join(&id).exists());
    drop(user);
}

#[test]
fn a_user_enters_a_workspace_from_outside_the_cgroup_that_was_given() {
    need!(root, cgroup2);
    let user = Somebody::new();
    let id = user.id();
    let given = Delegated::new(&id);
    let user = user.in_group(given.0.join("own"));
    let bundle = alone(Bundle::new(&["sleep", "1000"]));
    user.start(&bundle, &id);
    let outside = user.program(user.binary());
    let mut outside = outside;
    outside
        .env_remove("GROUP")
        .args(["exec", &id, "echo", "here"]);
    let said: crate::support::home::Said = outside.output().unwrap().into();
    assert_eq!(said.ok(), "here\n");
    user.bulkhead(["delete", "--force", &id]).ok();
    drop(user);
}

#[test]
fn a_users_limits_are_in_force_where_they_were_handed_on() {
    need!(root, limits);
    let user = Somebody::new();
    let id = user.id();
    let given = Delegated::new(&id).with_controllers();
    let user = user.in_group(given.0.join("own"));
    let bundle = alone(Bundle::new(&["sleep", "1000"]).with(|config| {
        config["linux"]["resources"] = serde_json::json!({ "pids": { "limit": 11 } });
    }));
    user.start(&bundle, &id);
    let limit = || std::fs::read_to_string(given.0.join(&id).join("pids.max")).unwrap();
    assert_eq!(limit(), "11\n");
    user.bulkhead(["update", "--pids-limit", "12", &id]).ok();
    assert_eq!(limit(), "12\n");
    user.bulkhead(["delete", "--force", &id]).ok();
    drop(user);
}
