//! What is not ours is not touched: processes that were given a number again, cgroups that were there before.

use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;

use serde_json::Value;

use crate::need;
use crate::support::home::Home;
use crate::support::home::lives;
use crate::support::residue;

/// A process that has nothing to do with any workspace.
struct Stranger(Child);

impl Stranger {
    fn new() -> Self {
        Self(Command::new("sleep").arg("1000").spawn().unwrap())
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn forge(home: &Home, id: &str, change: impl FnOnce(&mut Value)) {
    let file = home.root().join(id).join("state.json");
    let mut record: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    change(&mut record);
    std::fs::write(&file, record.to_string()).unwrap();
}

fn start_time(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after = stat.rsplit(") ").next().unwrap();
    after.split(' ').nth(19).unwrap().parse().unwrap()
}

#[track_caller]
fn is_never_signalled(forged: impl Fn(&mut Value, i32)) {
    let home = Home::new();
    let id = home.id();
    let stranger = Stranger::new();
    home.start(&residue::sleeper(&id), &id);
    forge(&home, &id, |record| forged(record, stranger.pid()));
    assert_eq!(home.status(&id), "stopped");
    let refused = home.bulkhead(["kill", &id, "KILL"]).failed();
    assert!(refused.contains("container not running"), "{refused}");
    residue::remove(&home, &id);
    assert!(lives(stranger.pid()));
}

#[test]
fn a_process_that_was_given_the_number_again_is_never_signalled() {
    need!(root, cgroup2);
    // Start times count in hundredths of a second: two processes of one moment would have the same.
    let other = |record: &mut Value, pid: i32| {
        record["init"]["pid"] = pid.into();
        record["init"]["startTime"] = (start_time(pid) + 1).into();
    };
    is_never_signalled(other);
    // Kernels before 6.9 do not tell what its handles alone have.
    is_never_signalled(|record, pid| {
        other(record, pid);
        record["init"].as_object_mut().unwrap().remove("identity");
    });
}

#[test]
fn a_process_of_another_uptime_is_never_signalled() {
    need!(root, cgroup2);
    is_never_signalled(|record, pid| {
        record["init"]["pid"] = pid.into();
        record["init"]["startTime"] = start_time(pid).into();
        record["init"].as_object_mut().unwrap().remove("identity");
        record["init"]["boot"] = "another".into();
    });
}

#[test]
fn a_workspace_of_a_maker_that_is_gone_is_no_longer_being_created() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = home.id();
    let stranger = Stranger::new();
    home.start(&residue::sleeper(&id), &id);
    let gone = |record: &mut Value| {
        record["maker"]["pid"] = stranger.pid().into();
        record["maker"]["startTime"] = (start_time(stranger.pid()) + 1).into();
        record.as_object_mut().unwrap().remove("init");
    };
    forge(&home, &id, gone);
    assert_eq!(home.status(&id), "stopped");
    forge(&home, &id, |record| {
        gone(record);
        record["maker"].as_object_mut().unwrap().remove("identity");
    });
    assert_eq!(home.status(&id), "stopped");
    residue::remove(&home, &id);
    assert!(lives(stranger.pid()));
}

/// A cgroup that somebody else made.
struct Foreign(PathBuf);

impl Foreign {
    fn new(name: &str) -> Self {
        let mounts = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
        let mount = mounts
            .into_iter()
            .map(Path::new)
            .find(|path| path.join("cgroup.procs").exists());
        let group = mount.unwrap().join(name);
        std::fs::create_dir(&group).unwrap();
        Self(group)
    }

    fn write(&self, file: &str, value: &str) {
        std::fs::write(self.0.join(file), value).unwrap();
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(90);
        while std::fs::remove_dir(&self.0).is_err() && std::time::Instant::now() < deadline {
            std::thread::park_timeout(std::time::Duration::from_millis(5));
        }
    }
}

#[test]
fn whoever_is_in_a_cgroup_already_survives_the_attempt_to_use_it() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = home.id();
    let group = Foreign::new(&format!("foreign-{id}"));
    let stranger = Stranger::new();
    group.write("cgroup.procs", &stranger.pid().to_string());
    let path = format!("/foreign-{id}");
    let bundle = residue::sleeper(&id).with(|config| config["linux"]["cgroupsPath"] = path.into());
    let refused = home
        .bulkhead(["run", "-b", bundle.path().to_str().unwrap(), &id])
        .failed();
    assert!(refused.contains("is not empty"), "{refused}");
    home.bulkhead(["delete", "--force", &id]).ok();
    assert!(!home.root().join(&id).exists());
    assert!(lives(stranger.pid()));
    drop(stranger);
    assert!(group.0.exists());
}

#[test]
fn who_is_in_a_child_of_a_cgroup_is_found_there() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = home.id();
    let group = Foreign::new(&format!("foreign-{id}"));
    let child = Foreign::new(&format!("foreign-{id}/inner"));
    let stranger = Stranger::new();
    child.write("cgroup.procs", &stranger.pid().to_string());
    let path = format!("/foreign-{id}");
    let bundle = residue::sleeper(&id).with(|config| config["linux"]["cgroupsPath"] = path.into());
    let refused = home
        .bulkhead(["run", "-b", bundle.path().to_str().unwrap(), &id])
        .failed();
    let expected = format!("processes [{}] in its child inner", stranger.pid());
    assert!(refused.contains(&expected), "{refused}");
    drop(stranger);
    drop(child);
    assert!(group.0.exists());
}

#[test]
fn a_cgroup_that_was_there_outlives_a_creation_that_fails() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = home.id();
    let group = Foreign::new(&format!("foreign-{id}"));
    let child = Foreign::new(&format!("foreign-{id}/inner"));
    let path = format!("/foreign-{id}");
    let bundle = residue::sleeper(&id).with(|config| {
        config["linux"]["cgroupsPath"] = path.into();
        config["hooks"]["createRuntime"] = serde_json::json!([{"path": "/bin/false"}]);
    });
    let refused = home
        .bulkhead(["run", "-b", bundle.path().to_str().unwrap(), &id])
        .failed();
    assert!(refused.contains("hooks.createRuntime[0]"), "{refused}");
    assert!(!home.root().join(&id).exists());
    assert!(child.0.exists());
    drop(child);
    assert!(group.0.exists());
}

#[test]
fn a_cgroup_that_gives_controllers_to_its_children_is_refused_and_left() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = home.id();
    let group = Foreign::new(&format!("foreign-{id}"));
    let child = Foreign::new(&format!("foreign-{id}/inner"));
    let controllers = std::fs::read_to_string(group.0.join("cgroup.controllers")).unwrap();
    let wanted = ["hugetlb", "memory", "io"]
        .into_iter()
        .find(|name| controllers.split_whitespace().any(|here| here == *name));
    let Some(name) = wanted else {
        return crate::support::need::missing(
            "needs a controller of cgroup2 that is not for threads",
        );
    };
    group.write("cgroup.subtree_control", &format!("+{name}"));
    let path = format!("/foreign-{id}");
    let bundle = residue::sleeper(&id).with(|config| config["linux"]["cgroupsPath"] = path.into());
    let refused = home
        .bulkhead(["run", "-b", bundle.path().to_str().unwrap(), &id])
        .failed();
    assert!(refused.contains(": linux.cgroupsPath: "), "{refused}");
    assert!(
        refused.contains(&format!("the {name} controllers for its children")),
        "{refused}"
    );
    assert!(child.0.exists());
}

#[test]
fn a_frozen_cgroup_is_refused_and_left_frozen() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = home.id();
    let group = Foreign::new(&format!("foreign-{id}"));
    group.write("cgroup.freeze", "1");
    let path = format!("/foreign-{id}");
    let bundle = residue::sleeper(&id).with(|config| config["linux"]["cgroupsPath"] = path.into());
    let refused = home
        .bulkhead(["run", "-b", bundle.path().to_str().unwrap(), &id])
        .failed();
    assert!(refused.contains("is frozen"), "{refused}");
    home.bulkhead(["delete", "--force", &id]).ok();
    assert_eq!(
        std::fs::read_to_string(group.0.join("cgroup.freeze")).unwrap(),
        "1\n"
    );
}

#[test]
fn deletion_after_a_crash_spares_whoever_was_in_the_cgroup_before() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = home.id();
    let group = Foreign::new(&format!("foreign-{id}"));
    let stranger = Stranger::new();
    group.write("cgroup.procs", &stranger.pid().to_string());
    let state = home.root().join(&id);
    std::fs::create_dir_all(&state).unwrap();
    std::os::unix::fs::symlink(&group.0, state.join("cgroup.new")).unwrap();
    home.bulkhead(["delete", "--force", &id]).ok();
    assert!(lives(stranger.pid()));
    assert!(!state.exists());
}
