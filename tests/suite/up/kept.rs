//! Files that outlive their workspace.

use super::Document;
use crate::need;
use crate::support::home::Home;
use crate::support::home::eventually;
use crate::support::residue;

const SCRIPT: &str = "echo run; test -e /mark && echo seen; touch /mark; exec sleep 1000";

fn logs(document: &Document, home: &Home) -> String {
    home.bulkhead(["logs", &document.id]).ok()
}

/// Ends it, and keeps its files.
fn down(document: &Document, home: &Home) {
    home.bulkhead(["down", "--time", "0", "--keep-files", &document.id])
        .ok();
}

#[test]
fn the_next_goes_on_with_files_that_were_kept() {
    need!(root);
    let home = Home::new();
    let document = Document::new(&home, SCRIPT, "");
    document.up(&home);
    let mark = document.estate(&home).join("upper/mark");
    eventually("the mark", || mark.exists());
    down(&document, &home);
    eventually("the end", || residue::of(&home, &document.id).is_empty());
    assert_eq!(home.bulkhead(["gc"]).ok(), "");
    assert!(mark.exists());
    document.up(&home);
    eventually("the second run", || {
        logs(&document, &home).ends_with("seen\n")
    });
    assert!(logs(&document, &home).starts_with("run\nrun\n"));
    document.down(&home);
}

#[test]
fn kept_files_without_a_workspace_go_with_a_plain_down() {
    need!(root);
    let home = Home::new();
    let document = Document::sleeper(&home, "");
    document.up(&home);
    down(&document, &home);
    assert!(document.estate(&home).join("upper").exists());
    home.bulkhead(["down", "--keep-files", &document.id])
        .failed();
    document.down(&home);
}

#[test]
fn a_failed_up_does_not_cost_files_that_were_kept() {
    need!(root);
    let home = Home::new();
    let document = Document::new(&home, SCRIPT, "");
    document.up(&home);
    let mark = document.estate(&home).join("upper/mark");
    eventually("the mark", || mark.exists());
    down(&document, &home);
    let text = std::fs::read_to_string(document.file()).unwrap();
    std::fs::write(document.file(), text.replace("/bin/sh", "/bin/none")).unwrap();
    let file = document.file();
    home.bulkhead(["up", "-d", file.to_str().unwrap()]).failed();
    assert!(mark.exists());
    document.down(&home);
}

/// Whether the layer of a workspace whose program runs means nothing after a crash of the host.
fn is_volatile(document: &Document, home: &Home) -> bool {
    let estate = document.estate(home);
    eventually("the mark", || estate.join("upper/mark").exists());
    let config = std::fs::read_to_string(estate.join("config.json")).unwrap();
    config.contains("\"dev.bulkhead.rootfs.volatile\":\"true\"")
}

#[test]
fn a_layer_that_goes_with_its_program_waits_for_no_disk_and_any_other_does() {
    need!(root);
    let home = Home::new();
    let document = Document::new(&home, SCRIPT, "");
    document.up(&home);
    assert!(!is_volatile(&document, &home));
    document.down(&home);
    let mut up = document.attached(&home);
    assert!(is_volatile(&document, &home));
    down(&document, &home);
    up.wait().unwrap();
    eventually("the end", || residue::of(&home, &document.id).is_empty());
    std::fs::remove_file(document.estate(&home).join("upper/mark")).unwrap();
    let mut up = document.attached(&home);
    assert!(!is_volatile(&document, &home));
    document.down(&home);
    up.wait().unwrap();
}

#[test]
fn files_of_one_whose_caller_was_killed_can_be_kept_and_gone_on_with() {
    need!(root);
    let home = Home::new();
    let document = Document::new(&home, SCRIPT, "");
    let mut up = document.attached(&home);
    let mark = document.estate(&home).join("upper/mark");
    eventually("the mark", || mark.exists());
    up.kill().unwrap();
    up.wait().unwrap();
    down(&document, &home);
    assert!(mark.exists());
    document.up(&home);
    eventually("the second run", || {
        logs(&document, &home).ends_with("seen\n")
    });
    document.down(&home);
}
