//! The command line as callers probe it: version, help, refusals, and where errors go.

use crate::support::home::Home;

#[test]
fn the_first_line_of_the_version_is_what_go_runc_parses() {
    let text = Home::new().bulkhead(["--version"]).ok();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("runc version 1."), "{text}");
    let commit = lines[1].strip_prefix("commit: ").unwrap();
    let known = commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(
        known || option_env!("BULKHEAD_COMMIT").is_some() || commit == "unknown",
        "{text}"
    );
    assert_eq!(lines[2], "spec: 1.3.0");
    assert_eq!(
        text.matches("version").count(),
        1,
        "Docker takes the last line with that word"
    );
}

#[test]
fn podman_finds_checkpoint_and_restore_by_its_probes() {
    let home = Home::new();
    home.bulkhead(["checkpoint", "--help"]).ok();
    let refused = home.bulkhead(["restore", "--lsm-mount-context"]).failed();
    assert!(refused.contains("requires an argument"), "{refused}");
}

#[test]
fn a_workspace_that_is_not_there_does_not_exist() {
    let home = Home::new();
    for command in [
        vec!["state", "x"],
        vec!["start", "x"],
        vec!["kill", "x", "9"],
        vec!["delete", "x"],
        vec!["pause", "x"],
    ] {
        let refused = home.bulkhead(&command).failed();
        assert!(
            refused.contains("container does not exist"),
            "{command:?}: {refused}"
        );
    }
}

#[test]
fn deleting_by_force_what_is_not_there_succeeds_without_a_word() {
    let home = Home::new();
    let said = home.bulkhead(["delete", "--force", "x"]);
    assert_eq!(
        (said.status, said.out, said.err),
        (0, String::new(), String::new())
    );
}

#[test]
fn an_error_is_one_json_object_in_the_log_and_words_on_standard_error() {
    let home = Home::new();
    let log = home.beside("log.json");
    let log_path = log.to_str().unwrap();
    let said = home.bulkhead(["--log", log_path, "--log-format=json", "start", "x"]);
    assert_eq!(said.status, 1);
    assert!(said.err.contains("container does not exist"));
    let object: serde_json::Value = serde_json::from_slice(&std::fs::read(&log).unwrap()).unwrap();
    assert_eq!(object["level"], "error");
    assert!(
        object["msg"]
            .as_str()
            .unwrap()
            .contains("container does not exist")
    );
    assert!(humantime::parse_rfc3339(object["time"].as_str().unwrap()).is_ok());
}

#[test]
fn a_command_line_that_cannot_be_read_is_reported_in_the_log_too() {
    let home = Home::new();
    let log = home.beside("log.json");
    home.bulkhead([
        "--log",
        log.to_str().unwrap(),
        "--log-format=json",
        "create",
        "--no-such-option",
    ])
    .failed();
    let object: serde_json::Value = serde_json::from_slice(&std::fs::read(&log).unwrap()).unwrap();
    assert!(
        object["msg"].as_str().unwrap().contains("--no-such-option"),
        "{object}"
    );
}

#[test]
fn errors_are_appended_to_the_log() {
    let home = Home::new();
    let log = home.beside("log");
    for _ in 0..2 {
        home.bulkhead(["--log", log.to_str().unwrap(), "state", "x"])
            .failed();
    }
    let text = std::fs::read_to_string(&log).unwrap();
    assert_eq!(
        text.lines()
            .filter(|line| line.contains(" level=error msg=\""))
            .count(),
        2
    );
}

#[test]
fn a_log_format_that_nobody_knows_is_refused() {
    let refused = Home::new()
        .bulkhead(["--log-format", "xml", "list"])
        .failed();
    assert!(refused.contains("invalid log-format: xml"), "{refused}");
}

#[test]
fn names_that_could_lead_elsewhere_are_refused_before_anything_is_made() {
    let home = Home::new();
    for name in ["../x", "a/b", "..", "ä"] {
        let refused = home
            .bulkhead(["create", "--bundle", "/nowhere", name])
            .failed();
        assert!(refused.contains("invalid container ID format"), "{refused}");
    }
    assert!(!home.root().exists());
}

#[test]
fn a_list_of_nothing_is_null_or_a_heading_or_nothing() {
    let home = Home::new();
    assert_eq!(home.bulkhead(["list", "--format", "json"]).ok(), "null\n");
    assert_eq!(
        home.bulkhead(["list"]).ok(),
        "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n"
    );
    assert_eq!(home.bulkhead(["list", "-q"]).ok(), "");
}

#[test]
fn the_errors_of_exec_have_a_status_of_their_own() {
    let said = Home::new().bulkhead(["exec", "x", "true"]);
    assert_eq!(said.status, 255);
    assert!(said.err.contains("container does not exist"));
}

#[test]
fn shells_are_given_completions_and_man_its_pages() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            home.bulkhead(["completion", shell])
                .ok()
                .contains("bulkhead")
        );
    }
    let pages = home.beside("man");
    std::fs::create_dir(&pages).unwrap();
    home.bulkhead([std::ffi::OsStr::new("man"), pages.as_os_str()])
        .ok();
    assert!(pages.join("bulkhead-create.1").exists());
}

#[test]
fn the_name_alone_is_answered_by_help() {
    let said = std::process::Command::new(env!("CARGO_BIN_EXE_bulkhead"))
        .output()
        .unwrap();
    assert!(said.status.success());
    assert!(String::from_utf8_lossy(&said.stdout).contains("Usage: bulkhead"));
    assert_eq!(said.stderr, b"");
}

#[test]
fn an_empty_path_is_as_none() {
    let home = Home::new();
    let words = home
        .bulkhead(["--log", "", "create", "--bundle", "", "--pid-file=", "x"])
        .failed();
    assert!(words.contains("config.json"), "{words}");
    assert_eq!(home.bulkhead(["--log=", "list", "-q"]).ok(), "");
}

#[test]
fn a_log_may_be_called_a_file_and_must_be_one() {
    let home = Home::new();
    let log = home.beside("log");
    let named = format!("file:{}", log.display());
    home.bulkhead(["--log", &named, "state", "x"]).failed();
    assert!(
        std::fs::read_to_string(&log)
            .unwrap()
            .contains("does not exist")
    );
    for other in ["journald:x", "syslog:x"] {
        let words = home.bulkhead(["--log", other, "list"]).failed();
        let kind = other.trim_end_matches(":x");
        assert!(
            words.contains(&format!("{kind} is not written to")),
            "{words}"
        );
    }
}

#[test]
fn a_log_that_cannot_be_opened_fails_the_command_before_it_does_anything() {
    let home = Home::new();
    let said = home.bulkhead(["--log", "/no/such/directory/log", "list", "-q"]);
    assert_eq!(said.status, 1);
    assert_eq!(
        said.err,
        "bulkhead: --log: cannot open /no/such/directory/log: no such file or directory\n"
    );
}
