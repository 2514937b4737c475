//! An `up` that stays with its workspace.

use std::io::Read;

use super::Document;
use super::signal;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::home::Said;

fn said(up: std::process::Child) -> Said {
    up.wait_with_output().unwrap().into()
}

#[test]
fn it_passes_on_output_and_status_and_leaves_nothing() {
    need!(root);
    let home = Home::new();
    let document = Document::new(&home, "echo out; echo err >&2; exit 7", "");
    let said = said(document.attached(&home));
    assert_eq!(
        (said.status, said.out.as_str(), said.err.as_str()),
        (7, "out\n", "err\n")
    );
    document.vanishes(&home);
}

#[test]
fn a_program_killed_by_a_signal_is_told_as_a_shell_does() {
    need!(root);
    let home = Home::new();
    let document = Document::new(&home, "ulimit -c 0; kill -KILL $$; sleep 1; exit 3", "");
    // In its own pid namespace the first process cannot kill itself.
    assert_eq!(said(document.attached(&home)).status, 3);
}

#[test]
fn its_standard_input_is_the_programs() {
    need!(root);
    let home = Home::new();
    let document = Document::new(&home, "read line; echo got $line", "");
    let file = document.file();
    let said = home.bulkhead_reading(&["up", file.to_str().unwrap()], "some words\n");
    assert_eq!(said.ok(), "got some words\n");
    document.vanishes(&home);
}

#[test]
fn a_signal_to_it_reaches_the_program() {
    need!(root);
    let home = Home::new();
    let script = "trap 'echo told; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    let document = Document::new(&home, script, "");
    let mut up = document.attached(&home);
    let mut ready = [0; 6];
    up.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    signal(i32::try_from(up.id()).unwrap(), "-TERM");
    let said = said(up);
    assert_eq!((said.status, said.out.as_str()), (5, "told\n"));
    document.vanishes(&home);
}

#[test]
fn one_that_is_killed_leaves_its_workspace_running() {
    need!(root);
    let home = Home::new();
    let document = Document::new(&home, "echo ready; exec sleep 1000", "");
    let mut up = document.attached(&home);
    let mut ready = [0; 6];
    up.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    up.kill().unwrap();
    up.wait().unwrap();
    assert_eq!(document.status(&home), "running");
    document.down(&home);
}

#[test]
fn a_name_that_is_taken_is_refused_and_its_owner_unharmed() {
    need!(root);
    let home = Home::new();
    let document = Document::sleeper(&home, "");
    document.up(&home);
    let refused = said(document.attached(&home)).failed();
    assert!(refused.contains("already exists"), "{refused}");
    assert_eq!(document.status(&home), "running");
    assert!(document.estate(&home).join("config.json").exists());
    document.down(&home);
}

#[test]
fn a_program_that_is_not_there_leaves_nothing() {
    need!(root);
    let home = Home::new();
    // Whoever makes a link for it must not be what is told of.
    for more in ["", "[network]\n"] {
        let document = Document::new(&home, "true", more);
        let text = std::fs::read_to_string(document.file()).unwrap();
        std::fs::write(document.file(), text.replace("/bin/sh", "/bin/no")).unwrap();
        let error = said(document.attached(&home)).failed();
        let words = "exec: \"/bin/no\": no such file or directory";
        assert!(error.contains(words), "{error}");
        document.vanishes(&home);
    }
}

#[test]
fn a_name_on_the_command_line_wins() {
    need!(root);
    let home = Home::new();
    let document = Document::new(&home, "hostname", "");
    let file = document.file();
    let name = home.id();
    let words = ["up", "--name", &name, file.to_str().unwrap()];
    assert_eq!(home.bulkhead(words).ok(), format!("{name}\n"));
}

#[test]
fn what_a_workspace_writes_to_its_root_goes_with_it() {
    need!(root);
    let home = Home::new();
    let document = Document::new(&home, "echo x > /new; cat /new", "");
    for _ in 0..2 {
        let said = said(document.attached(&home));
        assert_eq!(said.ok(), "x\n");
        assert!(!document.bundle.rootfs("/new").exists());
    }
    document.vanishes(&home);
}

#[test]
fn only_up_starts_workspaces_again() {
    let home = Home::new();
    let bundle = Bundle::shell("exit 0").with(|config| {
        config["annotations"] = serde_json::json!({ "dev.bulkhead.memory.on_over_limit": "reset" });
    });
    let refused = home.run(&bundle).failed();
    assert!(refused.contains("only `up` can start"), "{refused}");
}
