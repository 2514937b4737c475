//! The files of a workspace are damaged while it runs: it still ends, and nothing is left.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::need;
use crate::support::home::Home;
use crate::support::home::eventually;
use crate::support::need;
use crate::support::residue;
use crate::support::scale;
use crate::up::Document;

/// What it is called, and what does it.
type Damage = (&'static str, fn(&Path));

/// What can become of a file.
const DAMAGES: [Damage; 6] = [
    ("empty", |file| replace(file, b"")),
    ("cut short", cut_short),
    ("garbage", |file| replace(file, &[0xff; 4096])),
    ("missing", |file| std::fs::remove_file(file).unwrap()),
    ("somebody else's", |file| {
        replace(file, br#"{"version":1,"id":"other","ociVersion":"9"}"#);
    }),
    ("a link", |file| {
        std::fs::remove_file(file).unwrap();
        symlink("/etc/passwd", file).unwrap();
    }),
];

/// Puts other bytes in the place of a file, and never through a link.
fn replace(file: &Path, bytes: &[u8]) {
    std::fs::remove_file(file).unwrap();
    std::fs::write(file, bytes).unwrap();
}

fn cut_short(file: &Path) {
    let half = |bytes: &[u8]| bytes[..bytes.len() / 2].to_vec();
    if let Ok(target) = std::fs::read_link(file) {
        let target = half(target.as_os_str().as_bytes());
        std::fs::remove_file(file).unwrap();
        symlink(OsStr::from_bytes(&target), file).unwrap();
    } else {
        replace(file, &half(&std::fs::read(file).unwrap_or_default()));
    }
}

/// The files that a workspace has in its directory.
fn files(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap().flatten();
    let files = entries.filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_dir()));
    let mut names: Vec<_> = files
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Each file with each damage in a long run, and where that is quick; else with one of them in turn.
fn in_turn(names: &[String], quick: bool) -> Vec<(&String, Damage)> {
    let all = names
        .iter()
        .flat_map(|name| DAMAGES.map(|damage| (name, damage)));
    let whole = quick || scale::share().is_some();
    all.step_by(if whole { 1 } else { DAMAGES.len() + 1 })
        .collect()
}

#[test]
fn whatever_becomes_of_any_one_file_the_workspace_is_killed_and_removed() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = home.id();
    let bundle = residue::sleeper(&id);
    for started in [false, true] {
        let make = || {
            if started {
                home.start(&bundle, &id)
            } else {
                home.create(&bundle, &id)
            }
        };
        make();
        let names = files(&home.root().join(&id));
        residue::remove(&home, &id);
        assert!(names.iter().any(|name| name == "cgroup"), "{names:?}");
        for (name, (_, damage)) in in_turn(&names, need::machine().is_err()) {
            make();
            damage(&home.root().join(&id).join(name));
            residue::remove(&home, &id);
        }
    }
}

#[test]
fn whatever_becomes_of_any_one_file_of_a_document_all_of_it_goes() {
    need!(root, cgroup2);
    let home = Home::new();
    let document = Document::sleeper(
        &home,
        "[network]\nbridge = \"net\"\n[lease]\nttl = \"1h\"\n",
    );
    document.up(&home);
    let names = files(&home.root().join(&document.id));
    document.down(&home);
    for (name, (what, damage)) in in_turn(&names, false) {
        document.up(&home);
        damage(&home.root().join(&document.id).join(name));
        let said = home.bulkhead(["down", "--time", "0", &document.id]);
        let said = if said.status == 0 {
            said
        } else {
            home.bulkhead(["delete", "--force", &document.id])
        };
        assert_eq!(said.status, 0, "{name} {what}: {}", said.err);
        eventually(&format!("with {name} {what} the end of everything"), || {
            home.bulkhead(["gc"]).ok();
            document.left(&home).is_empty()
        });
    }
}

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
