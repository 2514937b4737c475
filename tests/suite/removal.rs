//! Deletion, and what failed attempts leave: nothing.

use std::ffi::OsStr;
use std::process::Child;
use std::process::Stdio;

use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::home::eventually;
use crate::support::home::lives;

fn sleeper() -> Bundle {
    Bundle::new(&["sleep", "1000"])
}

/// Begins to make a workspace, whatever becomes of that.
fn create(home: &Home, bundle: &Bundle, id: &str) -> Child {
    let mut command = home.command();
    command.args(["create", "-b"]).arg(bundle.path()).arg(id);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

#[test]
fn a_paused_workspace_is_deleted_by_force() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), sleeper());
    let id = home.id();
    home.start(&bundle, &id);
    let pid = home.pid(&id);
    home.bulkhead(["pause", &id]).ok();
    home.bulkhead(["delete", "--force", &id]).ok();
    assert!(!lives(pid));
}

#[test]
fn a_running_workspace_is_not_deleted_without_force() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), sleeper());
    let id = home.id();
    home.start(&bundle, &id);
    let refused = home.bulkhead(["delete", &id]).failed();
    assert!(
        refused.contains(&format!(
            "cannot delete container {id} that is not stopped: running"
        )),
        "{refused}"
    );
    home.bulkhead(["delete", "--force", &id]).ok();
    home.bulkhead(["delete", "--force", &id]).ok();
}

#[test]
fn a_created_workspace_is_deleted_without_force() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), sleeper());
    let id = home.id();
    home.create(&bundle, &id);
    let pid = home.pid(&id);
    home.bulkhead(["delete", &id]).ok();
    assert!(!lives(pid));
}

#[test]
fn a_create_that_fails_leaves_nothing() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = home.id();
    let bundle = Bundle::new(&["/no/such/program"]);
    let args: [&OsStr; 4] = [
        "create".as_ref(),
        "-b".as_ref(),
        bundle.path().as_ref(),
        id.as_ref(),
    ];
    let refused = home.bulkhead(args).failed();
    assert!(refused.contains("no such file or directory"), "{refused}");
    assert_eq!(home.bulkhead(["list", "-q"]).ok(), "");
    assert!(!home.root().join(&id).exists());
}

#[test]
fn damage_to_the_record_does_not_save_a_workspace_from_deletion() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), sleeper());
    for damage in ["", "{", "{}", "null"] {
        let id = home.id();
        home.start(&bundle, &id);
        let pid = home.pid(&id);
        std::fs::write(home.root().join(&id).join("state.json"), damage).unwrap();
        assert!(
            home.bulkhead(["state", &id])
                .failed()
                .contains("state.json is damaged")
        );
        home.bulkhead(["delete", &id]).failed();
        home.bulkhead(["delete", "--force", &id]).ok();
        assert!(!lives(pid), "{damage:?}");
        assert!(!home.root().join(&id).exists());
    }
}

#[test]
fn one_of_many_that_create_at_once_wins_and_the_others_leave_nothing() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), sleeper());
    let id = home.id();
    let attempts: Vec<_> = (0..8).map(|_| create(&home, &bundle, &id)).collect();
    let won = attempts
        .into_iter()
        .map(|mut child| child.wait().unwrap())
        .filter(|status| status.success())
        .count();
    assert_eq!(won, 1);
    home.bulkhead(["start", &id]).ok();
    home.bulkhead(["delete", "--force", &id]).ok();
    assert_eq!(home.bulkhead(["list", "-q"]).ok(), "");
}

/// The directories of cgroup2 whose name is `id`.
fn cgroups_of(id: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![std::path::PathBuf::from("/sys/fs/cgroup")];
    while let Some(directory) = open.pop() {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            if entry.file_name() == id {
                found.push(entry.path());
            }
            open.push(entry.path());
        }
    }
    found
}

#[test]
fn whenever_a_create_is_killed_a_deletion_by_force_leaves_nothing() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), sleeper());
    for moment in 0..40u64 {
        let id = home.id();
        let mut creating = create(&home, &bundle, &id);
        std::thread::park_timeout(std::time::Duration::from_micros(500 * moment));
        creating.kill().unwrap();
        creating.wait().unwrap();
        let noted = std::fs::read(home.root().join(&id).join("state.json")).unwrap_or_default();
        home.bulkhead(["delete", "--force", &id]).ok();
        assert_eq!(
            cgroups_of(&id),
            Vec::<std::path::PathBuf>::new(),
            "after {moment}"
        );
        assert!(!home.root().join(&id).exists(), "after {moment}");
        let init = serde_json::from_slice::<serde_json::Value>(&noted).unwrap_or_default();
        let pid = init["init"]["pid"].as_i64().unwrap_or(i64::MAX);
        assert!(
            !lives(i32::try_from(pid).unwrap_or(i32::MAX)),
            "after {moment}"
        );
    }
}

#[test]
fn creating_and_deleting_at_once_leaves_nothing_or_a_whole_workspace() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), sleeper());
    for _ in 0..10 {
        let id = home.id();
        let mut creating = create(&home, &bundle, &id);
        home.bulkhead(["delete", "--force", &id]).ok();
        creating.wait().unwrap();
        home.bulkhead(["delete", "--force", &id]).ok();
        assert_eq!(cgroups_of(&id), Vec::<std::path::PathBuf>::new());
        assert_eq!(home.bulkhead(["list", "-q"]).ok(), "");
    }
}

/// The command in the foreground removes what has ended, and so does who ends it by deleting it.
#[test]
fn who_stays_with_a_workspace_that_another_deletes_says_only_how_it_ended() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), sleeper());
    for _ in 0..20 {
        let id = home.id();
        let mut command = home.command();
        command.args(["run", "-b"]).arg(bundle.path()).arg(&id);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let staying = command.spawn().unwrap();
        eventually("it to run", || {
            let state = home.bulkhead(["state", &id]);
            state.status == 0 && state.out.contains("running")
        });
        home.bulkhead(["delete", "--force", &id]).ok();
        let output = staying.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*said), (Some(137), ""));
        assert!(!home.root().join(&id).exists());
        assert_eq!(cgroups_of(&id), Vec::<std::path::PathBuf>::new());
    }
}
