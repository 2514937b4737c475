//! The life of a container from creation to deletion, as callers drive it, and what they read on the way.

use std::ffi::OsStr;
use std::process::Stdio;

use serde_json::Value;
use serde_json::json;

use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::home::eventually;

fn sleeper() -> Bundle {
    Bundle::new(&["sleep", "1000"])
}

#[test]
fn a_workspace_is_created_then_running_then_stopped_then_gone() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), sleeper());
    let id = home.id();
    home.create(&bundle, &id);
    assert_eq!(home.status(&id), "created");
    home.bulkhead(["start", &id]).ok();
    assert_eq!(home.status(&id), "running");
    home.bulkhead(["kill", &id, "KILL"]).ok();
    eventually("the end", || home.status(&id) == "stopped");
    home.bulkhead(["delete", &id]).ok();
    assert!(
        home.bulkhead(["state", &id])
            .failed()
            .contains("container does not exist")
    );
}

#[test]
fn the_state_has_the_keys_of_runc_in_their_order_and_no_newline() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = sleeper().with(|config| config["annotations"] = json!({"a": "b"}));
    let id = home.id();
    home.create(&bundle, &id);
    let text = home.bulkhead(["state", &id]).ok();
    let state: Value = serde_json::from_str(&text).unwrap();
    let path = bundle.path().display();
    let expected = format!(
        "{{\n  \"ociVersion\": \"1.3.0\",\n  \"id\": \"{id}\",\n  \"pid\": {},\n  \"status\": \"created\",\n  \
         \"bundle\": \"{path}\",\n  \"rootfs\": \"{path}/rootfs\",\n  \"created\": {},\n  \
         \"annotations\": {{\n    \"a\": \"b\"\n  }},\n  \"owner\": \"\"\n}}",
        state["pid"], state["created"]
    );
    assert_eq!(text, expected);
    assert!(humantime::parse_rfc3339(state["created"].as_str().unwrap()).is_ok());
}

#[test]
fn a_list_has_one_line_of_json_or_a_row_for_each() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), sleeper());
    let id = home.id();
    home.create(&bundle, &id);
    assert_eq!(home.bulkhead(["list", "-q"]).ok(), format!("{id}\n"));
    let json = home.bulkhead(["list", "--format", "json"]).ok();
    assert_eq!(json.matches('\n').count(), 1);
    let list: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(list[0]["id"], id);
    assert_eq!(list[0]["owner"], "root");
    let table = home.bulkhead(["list"]).ok();
    let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!((row[0], row[2], row[5]), (id.as_str(), "created", "root"));
}

#[test]
fn processes_are_listed_as_numbers_or_as_ps_does() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), sleeper());
    let id = home.id();
    home.start(&bundle, &id);
    let pid = home.pid(&id);
    assert_eq!(
        home.bulkhead(["ps", "--format", "json", &id]).ok(),
        format!("[{pid}]\n")
    );
    let table = home
        .bulkhead(["ps", "--format", "table", &id, "-o", "pid,comm"])
        .ok();
    let table: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(table, [["PID", "COMMAND"], [&pid.to_string(), "sleep"]]);
}

#[test]
fn a_paused_workspace_stands_still_until_it_is_resumed() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), sleeper());
    let id = home.id();
    home.start(&bundle, &id);
    home.bulkhead(["pause", &id]).ok();
    assert_eq!(home.status(&id), "paused");
    assert!(
        home.bulkhead(["exec", &id, "true"])
            .failed()
            .contains("paused")
    );
    assert!(
        home.bulkhead(["pause", &id])
            .failed()
            .contains("container paused")
    );
    home.bulkhead(["resume", &id]).ok();
    assert_eq!(home.status(&id), "running");
    assert!(
        home.bulkhead(["resume", &id])
            .failed()
            .contains("container not paused")
    );
}

#[test]
fn a_name_can_be_taken_only_once() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), sleeper());
    let id = home.id();
    home.create(&bundle, &id);
    let args: [&OsStr; 4] = [
        "create".as_ref(),
        "-b".as_ref(),
        bundle.path().as_ref(),
        id.as_ref(),
    ];
    assert!(
        home.bulkhead(args)
            .failed()
            .contains("container with given ID already exists")
    );
    assert_eq!(home.status(&id), "created");
}

#[test]
fn starting_twice_is_refused() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), sleeper());
    let id = home.id();
    home.start(&bundle, &id);
    assert!(
        home.bulkhead(["start", &id])
            .failed()
            .contains("already running")
    );
}

#[test]
fn killing_what_has_ended_says_that_it_is_not_running_unless_all_are_meant() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::new(&["true"]);
    let id = home.id();
    home.start(&bundle, &id);
    eventually("the end", || home.status(&id) == "stopped");
    assert!(
        home.bulkhead(["kill", &id, "KILL"])
            .failed()
            .contains("container not running")
    );
    home.bulkhead(["kill", "--all", &id, "9"]).ok();
    home.bulkhead(["kill", "-a", &id]).ok();
}

#[test]
fn signals_are_known_by_name_and_number() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::shell(
        "for s in HUP USR1 USR2 TERM; do trap \"echo $s >> /log\" $s; done; touch /ready
        while true; do sleep 0.01; done",
    );
    let id = home.id();
    home.start(&bundle, &id);
    eventually("the traps", || bundle.rootfs("/ready").exists());
    let log = || std::fs::read_to_string(bundle.rootfs("/log")).unwrap_or_default();
    for (word, expected) in [
        ("HUP", "HUP\n"),
        ("SIGUSR1", "HUP\nUSR1\n"),
        ("12", "HUP\nUSR1\nUSR2\n"),
    ] {
        home.bulkhead(["kill", &id, word]).ok();
        eventually(word, || log() == expected);
    }
    home.bulkhead(["kill", &id]).ok();
    eventually("TERM by default", || log().ends_with("TERM\n"));
    assert!(
        home.bulkhead(["kill", &id, "NONSENSE"])
            .failed()
            .contains("unknown signal")
    );
}

#[test]
fn the_end_of_a_first_process_that_shares_its_pid_namespace_does_not_save_the_others() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::shell("sleep 1000 & sleep 1000").with(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
    });
    let id = home.id();
    home.start(&bundle, &id);
    let members = || -> Vec<i32> {
        serde_json::from_str(&home.bulkhead(["ps", "--format", "json", &id]).ok()).unwrap()
    };
    eventually("two processes", || members().len() == 2);
    home.bulkhead(["kill", &id, "KILL"]).ok();
    eventually("the end of all", || members().is_empty());
}

#[test]
fn the_pid_file_holds_the_number_alone() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), sleeper());
    let id = home.id();
    let file = home.beside("pid");
    let mut command = home.command();
    command
        .args(["create", "-b"])
        .arg(bundle.path())
        .arg("--pid-file")
        .arg(&file)
        .arg(&id);
    assert!(
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(
        std::fs::read_to_string(&file).unwrap(),
        home.pid(&id).to_string()
    );
}

#[test]
fn a_plan_is_printed_without_doing_it() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), sleeper());
    let text = home
        .bulkhead([OsStr::new("plan"), bundle.path().as_os_str()])
        .ok();
    assert!(text.contains("step 0: "), "{text}");
    assert!(
        text.lines().any(|line| line.ends_with("exec \"sleep\"")),
        "{text}"
    );
    assert!(!home.root().exists());
}

#[test]
fn both_lists_pass_over_what_cannot_be_read_and_say_so() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), sleeper());
    let (whole, damaged) = (home.id(), home.id());
    home.create(&bundle, &whole);
    home.create(&bundle, &damaged);
    std::fs::write(home.root().join(&damaged).join("state.json"), "{").unwrap();
    let names = home.bulkhead(["list", "-q"]);
    assert_eq!(names.out, format!("{whole}\n"));
    let table = home.bulkhead(["list"]);
    assert!(!table.out.contains(&damaged), "{}", table.out);
    for said in [names, table] {
        assert_eq!(said.status, 0);
        assert!(
            said.err.contains(&format!("{damaged} cannot be read")),
            "{}",
            said.err
        );
    }
    home.bulkhead(["delete", "--force", &damaged]);
}

#[test]
fn an_expression_names_all_that_it_matches() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), sleeper());
    let all = ["web-1", "web-2", "job-1"].map(|name| format!("{name}-{}", home.id()));
    for id in &all {
        home.start(&bundle, id);
    }
    home.bulkhead(["kill", "--regex", "^web-[0-9]-", "KILL"])
        .ok();
    eventually("their end", || {
        all[..2].iter().all(|id| home.status(id) == "stopped")
    });
    assert_eq!(home.status(&all[2]), "running");
    let words = home.bulkhead(["delete", "-r", "[a-z]-[12]-"]).failed();
    assert!(
        words.contains(&all[2]) && words.contains("not stopped"),
        "{words}"
    );
    assert_eq!(home.bulkhead(["list", "-q"]).ok(), format!("{}\n", all[2]));
    let words = home.bulkhead(["delete", "--regex", "web["]).failed();
    assert!(words.contains("--regex \"web[\""), "{words}");
    home.bulkhead(["delete", "--force", "--regex", "."]).ok();
    assert_eq!(home.bulkhead(["list", "-q"]).ok(), "");
}
