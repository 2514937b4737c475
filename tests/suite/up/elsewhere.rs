//! Workspaces of documents under systemd, by a user without power over the machine, and from a terminal.

use std::process::Command;

use super::Document;
use crate::need;
use crate::support::home::Home;
use crate::support::home::Said;
use crate::support::somebody::Somebody;
use crate::support::somebody::UID;

#[test]
fn systemd_makes_the_cgroup_where_it_is_asked_to() {
    need!(root, limits, systemd);
    let home = Home::new();
    let document = Document::sleeper(&home, "[cpu]\nreserve = 0.1\n[memory]\nlimit = \"64M\"\n");
    let quiet = std::process::Stdio::null;
    let mut up = home.command();
    up.args(["--systemd-cgroup", "up", "-d"])
        .arg(document.file());
    let up = up.stdout(quiet()).stderr(quiet()).status();
    assert!(up.unwrap().success());
    let group =
        std::fs::read_to_string(format!("/proc/{}/cgroup", home.pid(&document.id))).unwrap();
    let unit = group.trim().rsplit('/').next().unwrap().to_owned();
    assert!(
        unit.ends_with(".scope") && unit.contains(&document.id),
        "{group}"
    );
    let shown = Command::new("systemctl")
        .args(["show", "-p", "MemoryMax", &unit])
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert_eq!(shown.trim(), format!("MemoryMax={}", 64 << 20));
    document.down(&home);
    let active = Command::new("systemctl")
        .args(["is-active", "-q", &unit])
        .status();
    assert!(!active.unwrap().success());
}

/// Lets a user do something with a document, whose root is the user's.
fn by(user: &Somebody, document: &Document, words: &[&str]) -> Said {
    let chown = Command::new("chown")
        .args(["-R", &format!("{UID}:{UID}")])
        .arg(document.file().parent().unwrap())
        .status();
    assert!(chown.unwrap().success());
    let mut command = user.command();
    command.arg("--root").arg(user.root()).args(words);
    let file = (words == ["up"]).then(|| document.file());
    command.args(file).output().unwrap().into()
}

#[test]
fn a_user_without_power_brings_up_and_down() {
    need!(root);
    let (home, user) = (Home::new(), Somebody::new());
    let document = Document::new(&home, "id -u; echo written >/file; cat /file", "");
    assert_eq!(by(&user, &document, &["up"]).ok(), "0\nwritten\n");
    let listed = by(&user, &document, &["ls", "--format", "json"]).ok();
    assert_eq!(listed, "[]\n");
}

#[test]
fn a_user_without_power_is_told_that_a_bridge_needs_it() {
    need!(root);
    let (home, user) = (Home::new(), Somebody::new());
    let document = Document::sleeper(&home, "[network]\nbridge = \"net\"\n");
    let refused = by(&user, &document, &["up"]).failed();
    assert!(refused.contains("needs the rights of root"), "{refused}");
    let listed = by(&user, &document, &["ls", "--format", "json"]).ok();
    assert_eq!(listed, "[]\n");
}

#[test]
fn a_shell_has_the_terminal_that_it_is_called_from() {
    need!(root);
    let home = Home::new();
    let document = Document::sleeper(&home, "");
    document.up(&home);
    let plain = home.command();
    let mut words = vec![plain.get_program().to_str().unwrap().to_owned()];
    words.extend(
        plain
            .get_args()
            .map(|word| word.to_str().unwrap().to_owned()),
    );
    let shell = format!(
        "stty rows 31 cols 97; {} shell {} -- /bin/sh -c 'tty; stty size; exit 7'",
        words.join(" "),
        document.id
    );
    let said = Command::new("script")
        .args(["-qec", &shell, "/dev/null"])
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(said.stdout).unwrap();
    assert_eq!(said.status.code(), Some(7), "{text}");
    assert!(text.contains("/dev/pts/"), "{text}");
    assert!(text.contains("31 97"), "{text}");
    document.down(&home);
}
