//! Deletion, and what failed attempts leave: nothing.

use std::ffi::OsStr;
use std::process::Stdio;

use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::home::lives;

fn sleeper() -> Bundle {
    Bundle::new(&["sleep", "1000"])
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
    let attempts: Vec<_> = (0..8)
        .map(|_| {
            let mut command = home.command();
            command
                .args(["create", "-b"])
                .arg(bundle.path())
                .arg(&id)
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            command.spawn().unwrap()
        })
        .collect();
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
