//! Users without the rights of root have workspaces too: by a user namespace of the bundle's, or in one of their own.

mod crash;
mod delegated;
mod slurm;

use std::ffi::OsStr;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;

use serde_json::Value;
use serde_json::json;

use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Said;
use crate::support::home::lives;
use crate::support::somebody::Somebody;
use crate::support::somebody::UID;
use crate::support::somebody::alone;
use crate::support::somebody::owned;
use crate::support::somebody::with_range;

fn run(user: &Somebody, bundle: &Bundle) -> Said {
    let words = [
        OsStr::new("run"),
        "-b".as_ref(),
        bundle.path().as_ref(),
        user.id().as_ref(),
    ]
    .map(OsStr::to_owned);
    user.bulkhead(words)
}

/// Runs a command that leaves a program behind, which must not keep the test's streams open.
fn quiet(command: &mut Command) -> ExitStatus {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap()
}

fn state(said: Said) -> Value {
    serde_json::from_str(&said.ok()).unwrap()
}

#[test]
fn a_user_is_root_inside_and_nobody_else_outside() {
    need!(root);
    let user = Somebody::new();
    let bundle = alone(Bundle::shell(
        "id -u; touch /made; cat /proc/self/uid_map /proc/self/setgroups",
    ));
    let said = run(&user, &bundle);
    let words: Vec<&str> = said.out.split_whitespace().collect();
    assert_eq!(
        words,
        ["0", "0", &UID.to_string(), "1", "deny"],
        "{}",
        said.err
    );
    assert_eq!(said.err, "");
    let owner =
        std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(bundle.rootfs("made")).unwrap());
    assert_eq!(owner, UID);
}

#[test]
fn a_user_namespace_without_mappings_gets_the_users_own() {
    need!(root);
    let user = Somebody::new();
    let script = "cat /proc/self/uid_map /proc/self/gid_map; id -u";
    let bundle = alone(Bundle::shell(script)).with(|config| {
        for list in ["uidMappings", "gidMappings"] {
            config["linux"].as_object_mut().unwrap().remove(list);
        }
    });
    let said = run(&user, &bundle);
    let seen: Vec<&str> = said.out.split_whitespace().collect();
    let own = UID.to_string();
    assert_eq!(seen, ["0", &own, "1", "0", &own, "1", "0"], "{}", said.err);
}

#[test]
fn a_user_with_a_range_may_be_several_users_inside() {
    need!(root, uidmap);
    let user = Somebody::new();
    let bundle = with_range(Bundle::shell("id -u; id -g; id -G")).with(|config| {
        config["process"]["user"] = json!({ "uid": 33, "gid": 44, "additionalGids": [5, 6] });
    });
    assert_eq!(run(&user, &owned(bundle)).ok(), "33\n44\n44 5 6\n");
}

#[test]
fn a_range_that_was_not_given_is_refused_in_the_words_of_newuidmap() {
    need!(root, uidmap);
    let user = Somebody::new();
    let bundle = with_range(Bundle::new(&["true"])).with(|config| {
        config["linux"]["uidMappings"][1]["hostID"] = json!(900_000_000);
    });
    let refused = run(&user, &owned(bundle)).failed();
    assert!(refused.contains("newuidmap"), "{refused}");
    assert!(refused.contains("not allowed"), "{refused}");
}

#[test]
fn without_a_user_namespace_a_user_is_told_what_to_ask_for() {
    need!(root);
    let user = Somebody::new();
    let refused = run(&user, &owned(Bundle::new(&["true"]))).failed();
    assert!(refused.contains("user namespace"), "{refused}");
}

#[test]
fn the_example_for_users_runs_as_it_is_printed() {
    need!(root);
    let user = Somebody::new();
    let bundle = owned(Bundle::new(&["true"]));
    std::fs::remove_file(bundle.path().join("config.json")).unwrap();
    user.bulkhead([
        OsStr::new("spec"),
        "--rootless".as_ref(),
        "-b".as_ref(),
        bundle.path().as_ref(),
    ])
    .ok();
    let text = std::fs::read(bundle.path().join("config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&text).unwrap();
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["echo", "here"]);
    std::fs::write(bundle.path().join("config.json"), config.to_string()).unwrap();
    assert_eq!(run(&user, &bundle).ok(), "here\n");
}

#[test]
fn a_users_workspace_lives_through_every_command() {
    need!(root);
    let user = Somebody::new();
    let bundle = alone(Bundle::new(&["sleep", "1000"]));
    let id = user.id();
    user.create(&bundle, &id);
    assert_eq!(state(user.bulkhead(["state", &id]))["status"], "created");
    user.bulkhead(["start", &id]).ok();
    assert_eq!(user.bulkhead(["exec", &id, "id", "-u"]).ok(), "0\n");
    assert_eq!(user.bulkhead(["exec", &id, "sh", "-c", "exit 7"]).status, 7);
    let detached = ["exec", "-d", &id, "sleep", "999"];
    assert!(quiet(user.command().args(detached)).success());
    let found = state(user.bulkhead(["state", &id]));
    assert_eq!(found["status"], "running");
    let pid = i32::try_from(found["pid"].as_i64().unwrap()).unwrap();
    assert!(user.bulkhead(["ps", &id]).ok().contains("sleep 1000"));
    assert_eq!(user.bulkhead(["list", "-q"]).ok(), format!("{id}\n"));
    user.bulkhead(["kill", &id, "KILL"]).ok();
    // Before Linux 6.15 only root may hear how a process ended that is not its own; that it ended, anybody.
    user.bulkhead(["wait", &id]);
    assert_eq!(state(user.bulkhead(["state", &id]))["status"], "stopped");
    user.bulkhead(["delete", &id]).ok();
    assert!(!lives(pid));
    assert_eq!(user.bulkhead(["list", "-q"]).ok(), "");
}

#[test]
fn the_state_of_users_is_in_their_runtime_directory_and_safe_from_sweeping() {
    need!(root);
    let user = Somebody::new();
    let id = user.id();
    let bundle = alone(Bundle::new(&["true"]));
    user.create(&bundle, &id);
    assert!(user.root().join(&id).join("state.json").exists());
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(user.root()).unwrap());
    assert_eq!(mode & 0o7777, 0o1700);
}

#[test]
fn what_needs_a_cgroup_says_so_where_there_is_none() {
    need!(root);
    let user = Somebody::new();
    let id = user.id();
    let bundle = alone(Bundle::new(&["sleep", "1000"]));
    user.start(&bundle, &id);
    for words in [
        vec!["pause", &id],
        vec!["update", "--pids-limit", "9", &id],
        vec!["events", "--stats", &id],
    ] {
        let refused = user.bulkhead(&words).failed();
        assert!(refused.contains("cgroup"), "{words:?}: {refused}");
    }
    assert_eq!(state(user.bulkhead(["state", &id]))["status"], "running");
}

#[test]
fn a_users_program_has_a_terminal() {
    need!(root);
    let user = Somebody::new();
    let id = user.id();
    let bundle = alone(Bundle::new(&["sleep", "1000"]));
    user.start(&bundle, &id);
    let mut command = user.command();
    command.args(["exec", "-t", &id, "sh", "-c", "'tty; exit 3'"]);
    let said = in_terminal(&command);
    assert!(said.out.contains("/dev/pts/0"), "{said:?}");
    assert_eq!(said.status, 3);
}

/// Runs a command with a terminal (`script(1)`).
fn in_terminal(command: &Command) -> Said {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_str().unwrap())
        .collect();
    let mut script = Command::new("script");
    script.args(["-qec", &words.join(" "), "/dev/null"]);
    script.stdin(Stdio::null()).output().unwrap().into()
}

#[test]
fn root_of_a_user_namespace_needs_none_in_the_bundle() {
    need!(root, uidmap);
    let user = Somebody::new();
    let namespace = user.namespace();
    let bundle = owned(Bundle::new(&["sleep", "1000"]).with(|config| {
        config["process"]["user"] = json!({ "uid": 33, "gid": 44, "additionalGids": [5, 6] });
    }));
    let id = user.id();
    namespace.create(&bundle, &id);
    assert!(user.root().join(&id).exists());
    namespace.bulkhead(["start", &id]).ok();
    assert_eq!(
        namespace.bulkhead(["exec", &id, "id", "-G"]).ok(),
        "44 5 6\n"
    );
    assert_eq!(
        namespace
            .bulkhead(["exec", "-u", "0", &id, "id", "-u"])
            .ok(),
        "0\n"
    );
    let mut command = namespace.command();
    command.args(["exec", "-t", &id, "tty"]);
    assert!(in_terminal(&command).out.contains("/dev/pts/0"));
    assert!(namespace.bulkhead(["ps", &id]).ok().contains("sleep 1000"));
    assert_eq!(
        state(namespace.bulkhead(["state", &id]))["status"],
        "running"
    );
    namespace.bulkhead(["kill", &id, "9"]).ok();
    namespace.bulkhead(["wait", &id]);
    namespace.bulkhead(["delete", &id]).ok();
    assert!(!user.root().join(&id).exists());
}
