//! Hooks: when each runs, where, what it is told, and what becomes of the container when it fails.

use std::fs;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;

use super::add;
use super::refused;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::wall;

const KINDS: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

/// Those of `kinds` that there are behind the wall: nothing of the host's runs in the namespaces of a machine.
fn kinds<'k>(kinds: &'k [&'static str]) -> impl Iterator<Item = &'static str> + 'k {
    let there = |kind: &&str| *kind != "createContainer" || !wall::is_microvm();
    kinds.iter().copied().filter(there)
}

fn shell(script: &str) -> Value {
    json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}])
}

/// A bundle of which every hook writes a line and the state that it read to a directory that host and container share.
fn recorded(home: &Home, program: &str) -> (Bundle, std::path::PathBuf) {
    let log = home.beside("log");
    fs::create_dir_all(&log).unwrap();
    let bundle = Bundle::shell(program).with(|config| {
        add(
            config,
            "/mounts",
            json!({"destination": "/log", "source": log, "options": ["bind"]}),
        );
        for kind in kinds(&KINDS) {
            let directory = if kind == "startContainer" { Path::new("/log") } else { log.as_path() };
            let script = format!(
                "cd {0} && echo {kind} >> order && cat > {kind}.json && readlink /proc/self/ns/mnt > {kind}.mnt && pwd -P",
                directory.display()
            );
            config["hooks"][kind] = shell(&script);
        }
        config["annotations"] = json!({"key": "value"});
    });
    (bundle, log)
}

#[test]
fn hooks_run_in_the_order_of_the_specification() {
    need!(root, cgroup2);
    let home = Home::new();
    let (bundle, log) = recorded(&home, "echo program >> /log/order; exec sleep 1000");
    let id = home.id();
    home.create(&bundle, &id);
    let order = || fs::read_to_string(log.join("order")).unwrap();
    let before: String = kinds(&KINDS[..3]).map(|kind| format!("{kind}\n")).collect();
    assert_eq!(order(), before);
    home.bulkhead(["start", &id]).ok();
    crate::support::home::eventually("the program's line", || order().contains("program"));
    let started: Vec<String> = order()
        .lines()
        .skip(before.lines().count())
        .map(str::to_owned)
        .collect();
    assert_eq!(started[0], "startContainer");
    assert_eq!(started.len(), 3, "{started:?}");
    home.bulkhead(["delete", "--force", &id]).ok();
    assert!(order().ends_with("\npoststop\n"), "{}", order());
}

#[test]
fn hooks_read_the_state_as_it_is_at_that_point() {
    need!(root, cgroup2);
    let home = Home::new();
    let (bundle, log) = recorded(&home, "exec sleep 1000");
    let id = home.id();
    home.start(&bundle, &id);
    let pid = home.pid(&id);
    home.bulkhead(["delete", "--force", &id]).ok();
    let state = |kind: &str| -> Value {
        serde_json::from_slice(&fs::read(log.join(format!("{kind}.json"))).unwrap()).unwrap()
    };
    let expected = [
        ("prestart", "creating"),
        ("createRuntime", "creating"),
        ("createContainer", "creating"),
        ("startContainer", "created"),
        ("poststart", "running"),
        ("poststop", "stopped"),
    ];
    for (kind, status) in expected {
        if kinds(&[kind]).next().is_none() {
            continue;
        }
        let state = state(kind);
        assert_eq!(state["status"], status, "{kind}");
        assert_eq!(state["id"], id, "{kind}");
        assert_eq!(state["ociVersion"], "1.3.0", "{kind}");
        assert_eq!(state["bundle"], bundle.path().to_str().unwrap(), "{kind}");
        assert_eq!(state["annotations"], json!({"key": "value"}), "{kind}");
    }
    for kind in kinds(&["prestart", "createRuntime", "createContainer", "poststart"]) {
        assert_eq!(state(kind)["pid"], pid, "{kind}");
    }
}

#[test]
fn hooks_of_the_container_run_in_its_namespaces_and_those_of_the_runtime_outside() {
    need!(root, cgroup2);
    let home = Home::new();
    let (bundle, log) = recorded(&home, "readlink /proc/self/ns/mnt > /log/program.mnt");
    home.run(&bundle).ok();
    let namespace = |kind: &str| fs::read_to_string(log.join(format!("{kind}.mnt"))).unwrap();
    let outside = fs::read_link("/proc/self/ns/mnt").unwrap();
    for kind in ["prestart", "createRuntime", "poststart", "poststop"] {
        assert_eq!(
            namespace(kind).trim_end(),
            outside.to_str().unwrap(),
            "{kind}"
        );
    }
    for kind in kinds(&["createContainer", "startContainer"]) {
        assert_eq!(namespace(kind), namespace("program"), "{kind}");
    }
}

#[test]
fn hooks_have_their_own_environment_and_arguments_only() {
    need!(root, cgroup2);
    let home = Home::new();
    let out = home.beside("out");
    for kind in kinds(&["createRuntime", "createContainer"]) {
        let script = format!("echo $0 $1 $A > {0}; env >> {0}", out.display());
        let bundle = Bundle::shell("true").with(|config| {
            config["hooks"][kind] = json!([
                {"path": "/bin/sh", "args": ["sh", "-c", script, "name", "one"], "env": ["A=b=c"]},
            ]);
        });
        let mut command = home.command();
        command.env("SECRET", "x").args(["run", "-b"]);
        assert!(
            command
                .arg(bundle.path())
                .arg(home.id())
                .status()
                .unwrap()
                .success()
        );
        let text = fs::read_to_string(&out).unwrap();
        assert!(text.starts_with("name one b=c\n"), "{kind}: {text}");
        assert!(!text.contains("SECRET"), "{kind}: {text}");
    }
}

#[test]
fn a_hook_that_fails_before_the_start_fails_the_container() {
    need!(root, cgroup2);
    for kind in kinds(&KINDS[..4]) {
        let words = refused(|config| config["hooks"][kind] = shell("echo told you >&2; exit 3"));
        assert!(
            words.contains(&format!("hooks.{kind}[0]")),
            "{kind}: {words}"
        );
        assert!(words.contains("told you"), "{kind}: {words}");
        assert!(words.contains("status 3"), "{kind}: {words}");
    }
}

#[test]
fn later_hooks_do_not_run_after_one_that_failed() {
    need!(root, cgroup2);
    let home = Home::new();
    let file = home.beside("file");
    refused(|config| {
        config["hooks"]["createRuntime"] = json!([
            {"path": "/bin/false"},
            {"path": "/bin/touch", "args": ["touch", file]},
        ]);
    });
    assert!(!file.exists());
}

#[test]
fn a_poststart_hook_that_fails_fails_the_container() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::new(&["sleep", "1000"])
        .with(|config| config["hooks"]["poststart"] = shell("exit 1"));
    let id = home.id();
    home.create(&bundle, &id);
    let pid = home.pid(&id);
    let words = home.bulkhead(["start", &id]).failed();
    assert!(words.contains("hooks.poststart[0]"), "{words}");
    crate::support::home::eventually("its end", || !crate::support::home::lives(pid));
}

#[test]
fn a_poststop_hook_that_fails_does_not_keep_the_container() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::shell("true").with(|config| config["hooks"]["poststop"] = shell("exit 1"));
    home.run(&bundle);
    assert_eq!(home.bulkhead(["list", "-q"]).ok(), "");
}

#[test]
fn a_hook_that_takes_too_long_is_killed() {
    need!(root, cgroup2);
    for kind in kinds(&["createRuntime", "createContainer", "startContainer"]) {
        let begun = Instant::now();
        let words = refused(|config| {
            config["hooks"][kind] =
                json!([{"path": "/bin/sleep", "args": ["sleep", "500"], "timeout": 1}]);
        });
        assert!(begun.elapsed() < Duration::from_secs(90));
        assert!(words.contains("timeout"), "{kind}: {words}");
        assert!(
            words.contains(&format!("hooks.{kind}[0]")),
            "{kind}: {words}"
        );
    }
}

#[test]
fn a_hook_that_is_not_there_is_named() {
    need!(root, cgroup2);
    for kind in kinds(&["createRuntime", "createContainer", "startContainer"]) {
        let words = refused(|config| config["hooks"][kind] = json!([{"path": "/no/such/hook"}]));
        assert!(words.contains("/no/such/hook"), "{kind}: {words}");
        assert!(
            words.to_lowercase().contains("no such file or directory"),
            "{kind}: {words}"
        );
    }
}

#[test]
fn a_poststart_hook_that_takes_too_long_fails_the_container() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::new(&["sleep", "1000"]).with(|config| {
        config["hooks"]["poststart"] =
            json!([{"path": "/bin/sleep", "args": ["sleep", "500"], "timeout": 1}]);
    });
    let words = home.run(&bundle).failed();
    assert!(words.contains("hooks.poststart[0]"), "{words}");
    assert_eq!(home.bulkhead(["list", "-q"]).ok(), "");
}

#[test]
fn no_hook_finds_what_the_caller_has_open() {
    need!(root, cgroup2);
    let home = Home::new();
    let log = home.beside("log");
    fs::create_dir_all(&log).unwrap();
    let bundle = Bundle::shell("true").with(|config| {
        let shared = json!({"destination": "/log", "source": log, "options": ["bind"]});
        add(config, "/mounts", shared);
        for kind in kinds(&KINDS) {
            let directory = if kind == "startContainer" {
                Path::new("/log")
            } else {
                log.as_path()
            };
            let looks =
                "for n in 3 4 5 6 7 8 9 10 20; do [ -L /proc/$$/fd/$n ] && echo -n \" $n\"; done";
            let script = format!("({looks}) > {}/{kind}; true", directory.display());
            config["hooks"][kind] = shell(&script);
        }
    });
    let line = format!(
        "exec 3</ 4</etc 7</root 9</ 20</\nexec {} --root {} run -b {} {}",
        wall::program().display(),
        home.root().display(),
        bundle.path().display(),
        home.id()
    );
    let mut caller = std::process::Command::new("bash");
    assert!(caller.args(["-c", &line]).status().unwrap().success());
    for kind in kinds(&KINDS) {
        assert_eq!(fs::read_to_string(log.join(kind)).unwrap(), "", "{kind}");
    }
}
