//! Without a cgroup that leads to every process, a user's workspace is ended and removed all the same.

use std::process::Stdio;
use std::time::Duration;

use crate::need;
use crate::support::residue;
use crate::support::residue::marked;
use crate::support::somebody::Somebody;
use crate::support::somebody::alone;

#[test]
fn a_users_workspace_whose_record_is_damaged_ends_with_its_deletion() {
    need!(root);
    let user = Somebody::new();
    for damage in ["", "{", "null"] {
        let id = user.id();
        let bundle = alone(residue::sleeper(&id));
        user.start(&bundle, &id);
        std::fs::write(user.root().join(&id).join("state.json"), damage).unwrap();
        user.bulkhead(["delete", &id]).failed();
        user.bulkhead(["delete", "--force", &id]).ok();
        assert_eq!(residue::processes(&id), Vec::<String>::new());
        assert!(!user.root().join(&id).exists());
    }
}

#[test]
fn a_users_create_that_is_killed_leaves_what_delete_removes() {
    need!(root);
    let user = Somebody::new();
    let id = user.id();
    let bundle = alone(residue::sleeper(&id));
    for moment in 0..24 {
        // What is killed may be the script that becomes the user; then there is nothing to remove.
        let mut create = marked(user.program("env"), &id);
        create
            .arg(format!("{}={id}", residue::MARK))
            .arg(user.binary());
        create.args(["create", "-b"]).arg(bundle.path()).arg(&id);
        create.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = create.spawn().unwrap();
        std::thread::park_timeout(Duration::from_millis(4 * moment));
        child.kill().unwrap();
        child.wait().unwrap();
        user.bulkhead(["delete", "--force", &id]).ok();
        user.bulkhead(["delete", "--force", &id]).ok();
        assert_eq!(residue::processes(&id), Vec::<String>::new());
        assert!(!user.root().join(&id).exists());
    }
}
