//! The files of a workspace are damaged while it runs: it still ends, and nothing is left.

use std::os::unix::fs::symlink;
use std::path::Path;

use crate::need;
use crate::support::home::Home;
use crate::support::residue;

/// What it is called, and what does it.
type Damage = (&'static str, fn(&Path));

/// What can become of a file.
const DAMAGES: [Damage; 6] = [
    ("empty", |file| std::fs::write(file, "").unwrap()),
    ("cut short", |file| {
        let bytes = std::fs::read(file).unwrap();
        std::fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
    }),
    ("garbage", |file| {
        std::fs::write(file, [0xff; 4096]).unwrap()
    }),
    ("missing", |file| std::fs::remove_file(file).unwrap()),
    ("somebody else's", |file| {
        std::fs::write(file, r#"{"version":1,"id":"other","ociVersion":"9"}"#).unwrap();
    }),
    ("a link", |file| {
        std::fs::remove_file(file).unwrap();
        symlink("/etc/passwd", file).unwrap();
    }),
];

#[test]
fn a_workspace_whose_record_is_damaged_ends_with_a_warning() {
    need!(root, cgroup2);
    let home = Home::new();
    for (what, damage) in DAMAGES {
        let id = home.id();
        home.start(&residue::sleeper(&id), &id);
        damage(&home.root().join(&id).join("state.json"));
        home.bulkhead(["state", &id]).failed();
        home.bulkhead(["list"]).ok();
        let removed = home.bulkhead(["delete", "--force", &id]);
        assert!(
            removed.err.contains("ignoring that the record"),
            "{what}: {}",
            removed.err
        );
        removed.ok();
        assert_eq!(residue::of(&home, &id), Vec::<String>::new(), "{what}");
    }
}

#[test]
fn a_workspace_whose_configuration_is_damaged_is_killed_and_removed() {
    need!(root, cgroup2);
    let home = Home::new();
    for (_, damage) in DAMAGES {
        let id = home.id();
        home.start(&residue::sleeper(&id), &id);
        damage(&home.root().join(&id).join("config.json"));
        assert_eq!(home.status(&id), "running");
        home.bulkhead(["kill", &id, "KILL"]).ok();
        residue::remove(&home, &id);
    }
}

#[test]
fn a_bundle_that_is_gone_hinders_nobody() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = home.id();
    let bundle = residue::sleeper(&id);
    home.start(&bundle, &id);
    drop(bundle);
    assert_eq!(home.status(&id), "running");
    residue::remove(&home, &id);
}
