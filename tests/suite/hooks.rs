//! Hooks of all six kinds: when they run, what they read, and what their failure does.

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use serde_json::json;

use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::home::eventually;
use crate::support::home::lives;
use crate::support::wall;

/// A hook that runs a script of the host's shell.
fn script(text: &str) -> Value {
    json!({"path": "/bin/sh", "args": ["sh", "-c", text], "env": ["PATH=/usr/bin:/bin"]})
}

/// A hook that adds its name and the status it reads to a file.
fn marks(name: &str, file: &Path) -> Value {
    let line = r#"s=$(cat); s=${s#*status\":\"}; echo "NAME ${s%%\"*}" >> FILE"#;
    script(
        &line
            .replace("NAME", name)
            .replace("FILE", file.to_str().unwrap()),
    )
}

#[test]
fn hooks_run_in_the_order_of_the_specification_with_the_state_of_their_moment() {
    need!(root, cgroup2);
    let home = Home::new();
    let (log, id) = (home.beside("log"), home.id());
    let bundle = Bundle::new(&["true"]).with(|config| {
        config["hooks"] = json!({
            "prestart": [marks("prestart", &log)],
            "createRuntime": [marks("createRuntime", &log)],
            "poststart": [marks("poststart", &log)],
            "poststop": [marks("poststop", &log)],
        });
    });
    home.create(&bundle, &id);
    let read = || std::fs::read_to_string(&log).unwrap();
    assert_eq!(read(), "prestart creating\ncreateRuntime creating\n");
    home.bulkhead(["start", &id]).ok();
    assert!(read().ends_with("\npoststart running\n"), "{}", read());
    eventually("the end", || home.status(&id) == "stopped");
    home.bulkhead(["delete", &id]).ok();
    assert!(read().ends_with("\npoststop stopped\n"), "{}", read());
}

#[test]
fn hooks_inside_see_the_container() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::shell("cat /made").with(|config| {
        let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", "hostname > /made"], "env": ["PATH=/bin"]});
        config["hooks"] = json!({"startContainer": [hook]});
    });
    assert_eq!(home.run(&bundle).ok(), "bulkhead\n");
}

#[test]
fn a_hook_that_fails_fails_the_creation_with_its_words_and_leaves_nothing() {
    need!(root, cgroup2);
    let kinds = ["prestart", "createRuntime", "createContainer"];
    // Nothing of the host's runs in the namespaces of a machine.
    for kind in &kinds[..if wall::is_microvm() { 2 } else { 3 }] {
        let home = Home::new();
        let gone = home.beside("gone");
        let bundle = Bundle::new(&["true"]).with(|config| {
            config["hooks"] = json!({"poststop": [marks("poststop", &gone)]});
            config["hooks"][*kind] = json!([script("echo no such luck >&2; exit 3")]);
        });
        let refused = home.run(&bundle).failed();
        assert!(
            refused.contains("no such luck") && refused.contains(kind),
            "{kind}: {refused}"
        );
        assert_eq!(home.bulkhead(["list", "-q"]).ok(), "");
    }
}

#[test]
fn a_poststart_hook_that_fails_ends_the_container() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::new(&["sleep", "1000"])
        .with(|config| config["hooks"] = json!({"poststart": [script("exit 1")]}));
    let id = home.id();
    home.create(&bundle, &id);
    let pid = home.pid(&id);
    assert!(
        home.bulkhead(["start", &id])
            .failed()
            .contains("hooks.poststart[0]")
    );
    eventually("its end", || !lives(pid));
    assert_eq!(home.status(&id), "stopped");
}

#[test]
fn a_hook_that_takes_too_long_is_killed() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::new(&["true"]).with(|config| {
        let mut hook = script("exec sleep 100");
        hook["timeout"] = json!(1);
        config["hooks"] = json!({"createRuntime": [hook]});
    });
    let refused = home.run(&bundle).failed();
    assert!(refused.contains("timeout of 1 s"), "{refused}");
}

#[test]
fn a_poststop_hook_that_fails_does_not_keep_the_container() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::new(&["true"])
        .with(|config| config["hooks"] = json!({"poststop": [script("exit 1")]}));
    let said = home.run(&bundle);
    assert_eq!(said.status, 0);
    assert!(
        said.err.contains("ignoring that hooks.poststop[0]"),
        "{}",
        said.err
    );
    assert_eq!(home.bulkhead(["list", "-q"]).ok(), "");
}

#[test]
fn a_creation_that_hangs_in_a_hook_is_ended_by_force() {
    need!(root, cgroup2);
    let home = Home::new();
    let mark = home.beside("reached");
    let hook = script(&format!("echo $$ > {}; exec sleep 1000", mark.display()));
    let bundle =
        Bundle::new(&["true"]).with(|config| config["hooks"] = json!({"createRuntime": [hook]}));
    let id = home.id();
    let mut command = home.command();
    command
        .args(["create", "-b"])
        .arg(bundle.path())
        .arg(&id)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let hook = || {
        std::fs::read_to_string(&mark)
            .unwrap_or_default()
            .trim()
            .parse()
            .unwrap_or(0)
    };
    eventually("the hook", || hook() > 0);
    assert_eq!(home.status(&id), "creating");
    home.bulkhead(["delete", "--force", &id]).ok();
    assert!(!child.wait().unwrap().success());
    eventually("the end of the hook", || !lives(hook()));
    assert_eq!(home.bulkhead(["list", "-q"]).ok(), "");
}
