//! Workspaces that nobody stays with but their monitor.

use std::time::Duration;
use std::time::Instant;

use super::Document;
use super::signal;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::home::eventually;
use crate::support::home::lives;
use crate::support::residue;

fn groups(document: &Document, home: &Home) -> Vec<String> {
    let left = residue::of(home, &document.id);
    left.into_iter()
        .filter(|line| line.starts_with("cgroup") || line.starts_with("process"))
        .collect()
}

#[test]
fn one_that_has_ended_stays_listed_and_holds_nothing() {
    need!(root);
    let home = Home::new();
    let document = Document::new(&home, "echo words; exit 4", "");
    document.up(&home);
    eventually("the end of the monitor", || {
        document.row(&home)["exit_status"] == 4 && groups(&document, &home).is_empty()
    });
    assert_eq!(document.status(&home), "stopped");
    assert_eq!(home.bulkhead(["logs", &document.id]).ok(), "words\n");
    document.down(&home);
}

#[test]
fn what_is_down_does_not_exist_any_more() {
    need!(root);
    let home = Home::new();
    let document = Document::sleeper(&home, "");
    document.up(&home);
    document.down(&home);
    let again = home.bulkhead(["down", &document.id]);
    assert_eq!(again.status, 1);
    assert!(again.err.contains("does not exist"), "{}", again.err);
}

#[test]
fn a_program_is_told_to_end_before_it_is_killed() {
    need!(root);
    let home = Home::new();
    let script =
        "trap 'echo in peace > /out/how; exit 0' TERM; echo up; while :; do sleep 0.05; done";
    let out = home.beside("out");
    std::fs::create_dir(&out).unwrap();
    let mount = format!(
        "[[mount]]\nsource = \"{}\"\ntarget = \"/out\"\nmode = \"rw\"\n",
        out.display()
    );
    let document = Document::new(&home, script, &mount);
    document.up(&home);
    eventually("the program's first words", || {
        home.bulkhead(["logs", &document.id]).ok() == "up\n"
    });
    home.bulkhead(["down", &document.id]).ok();
    assert_eq!(
        std::fs::read_to_string(out.join("how")).unwrap(),
        "in peace\n"
    );
    document.vanishes(&home);
}

#[test]
fn a_program_that_does_not_end_is_killed_after_the_time() {
    need!(root);
    let home = Home::new();
    let script = "trap '' TERM; echo up; while :; do sleep 1; done";
    let document = Document::new(&home, script, "");
    document.up(&home);
    // Before that it cannot hear that it is to end, and is not waited for.
    eventually("the program's first words", || {
        home.bulkhead(["logs", &document.id]).ok() == "up\n"
    });
    let begun = Instant::now();
    home.bulkhead(["down", "--time", "1", &document.id]).ok();
    assert!(begun.elapsed() >= Duration::from_secs(1));
    document.vanishes(&home);
}

#[test]
fn deletion_by_force_leaves_nothing_of_it() {
    need!(root);
    let home = Home::new();
    let document = Document::sleeper(&home, "");
    document.up(&home);
    home.bulkhead(["delete", "--force", &document.id]).ok();
    document.vanishes(&home);
}

#[test]
fn a_workspace_of_a_bundle_is_brought_down_too() {
    need!(root);
    let home = Home::new();
    let id = home.id();
    let bundle = residue::sleeper(&id);
    home.start(&bundle, &id);
    home.bulkhead(["down", "--time", "0", &id]).ok();
    assert_eq!(residue::of(&home, &id), Vec::<String>::new());
}

#[test]
fn a_monitor_that_is_told_to_end_ends_its_workspace() {
    need!(root);
    let home = Home::new();
    let script = "trap 'exit 6' TERM; echo up; while :; do sleep 0.05; done";
    let document = Document::new(&home, script, "");
    document.up(&home);
    eventually("the program's first words", || {
        home.bulkhead(["logs", &document.id]).ok() == "up\n"
    });
    signal(document.monitor(&home), "-TERM");
    eventually("its end", || document.row(&home)["exit_status"] == 6);
    document.down(&home);
}

#[test]
fn a_monitor_is_in_a_session_of_its_own_and_has_nobodys_streams() {
    need!(root);
    let home = Home::new();
    let document = Document::sleeper(&home, "");
    document.up(&home);
    let monitor = document.monitor(&home);
    assert!(lives(monitor));
    let stat = std::fs::read_to_string(format!("/proc/{monitor}/stat")).unwrap();
    let session = stat.rsplit(") ").next().unwrap().split(' ').nth(3).unwrap();
    assert_eq!(session, monitor.to_string());
    for fd in 0..3 {
        let stream = std::fs::read_link(format!("/proc/{monitor}/fd/{fd}")).unwrap();
        assert_eq!(stream, std::path::Path::new("/dev/null"));
    }
    document.down(&home);
}

#[test]
fn a_command_runs_inside_by_its_own_status() {
    need!(root);
    let home = Home::new();
    let document = Document::sleeper(&home, "");
    document.up(&home);
    let words = [
        "shell",
        &document.id,
        "--",
        "/bin/sh",
        "-c",
        "hostname; exit 9",
    ];
    let said = home.bulkhead(words);
    assert_eq!((said.status, said.out), (9, format!("{}\n", document.id)));
    let shell = home.bulkhead_reading(&["shell", &document.id], "echo from the shell\n");
    assert_eq!(shell.ok(), "from the shell\n");
    document.down(&home);
}

#[test]
fn files_without_a_workspace_are_swept_away_only_when_that_is_wanted() {
    need!(root);
    let home = Home::new();
    let document = Document::sleeper(&home, "");
    let estate = document.estate(&home);
    // What a monitor was removing when it was killed.
    let parting = estate.with_file_name(format!("@{}", document.id));
    for left in [&estate, &parting] {
        std::fs::create_dir_all(left.join("upper/deep")).unwrap();
        let told = home.bulkhead(["gc", "--dry-run"]).ok();
        let expected = format!(
            "{}: to be removed: files without a workspace\n",
            document.id
        );
        assert_eq!(told, expected);
        assert!(left.exists());
        let done = home.bulkhead(["gc"]).ok();
        assert!(done.contains("removed: files"), "{done}");
        assert!(!left.exists());
        assert_eq!(home.bulkhead(["gc"]).ok(), "");
    }
}

#[test]
fn one_of_an_earlier_uptime_is_swept_away() {
    need!(root);
    let home = Home::new();
    let bundle = Bundle::shell("exit 0");
    let id = home.id();
    home.start(&bundle, &id);
    eventually("its end", || home.status(&id) == "stopped");
    let state = home.root().join(&id).join("state.json");
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let text = std::fs::read_to_string(&state).unwrap();
    std::fs::write(&state, text.replace(boot.trim(), "earlier")).unwrap();
    let done = home.bulkhead(["gc"]).ok();
    assert!(done.contains("before the host was restarted"), "{done}");
    assert_eq!(residue::of(&home, &id), Vec::<String>::new());
}

#[test]
fn the_files_of_one_whose_directory_is_lost_stay_while_it_runs() {
    need!(root, cgroup2);
    let home = Home::new();
    let document = Document::sleeper(&home, "");
    document.up(&home);
    let (pid, monitor) = (home.pid(&document.id), document.monitor(&home));
    let directory = home.root().join(&document.id);
    let aside = home.beside("aside");
    signal(monitor, "-KILL");
    std::fs::rename(&directory, &aside).unwrap();
    let refused = home.bulkhead(["delete", "--force", &document.id]).failed();
    assert!(refused.contains("cgroup.kill"), "{refused}");
    assert!(document.estate(&home).exists());
    assert!(lives(pid));
    std::fs::rename(&aside, &directory).unwrap();
    document.down(&home);
}
