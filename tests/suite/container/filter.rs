//! The system call filter: what it refuses, and the agent that decides.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;

use serde_json::Value;
use serde_json::json;

use super::console::receive;
use super::inside;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;

#[test]
fn a_refused_call_has_the_error_that_the_profile_names() {
    need!(root, cgroup2);
    let seen = inside(
        "mkdir /a 2>&1; ln -s x /b 2>&1; chmod 777 /tmp && echo allowed",
        |config| {
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [
                    {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
                    {"names": ["symlink", "symlinkat"], "action": "SCMP_ACT_ERRNO"},
                ],
            });
        },
    );
    let lines: Vec<&str> = seen.lines().collect();
    assert!(lines[0].ends_with("No space left on device"), "{seen}");
    assert!(lines[1].ends_with("Operation not permitted"), "{seen}");
    assert_eq!(lines[2], "allowed");
}

#[test]
fn a_forbidden_call_ends_the_program() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::new(&["mkdir", "/a"]).with(|config| {
        config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"}]});
    });
    assert_eq!(home.run(&bundle).status, 128 + 31);
}

#[test]
fn the_filter_holds_for_an_exec_too() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::new(&["sleep", "1000"]).with(|config| {
        config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]});
    });
    let id = home.id();
    home.start(&bundle, &id);
    let words = home.bulkhead(["exec", &id, "mkdir", "/a"]).failed();
    assert!(words.contains("No space left on device"), "{words}");
    let mode = home
        .bulkhead(["exec", &id, "grep", "Seccomp:", "/proc/self/status"])
        .ok();
    assert_eq!(mode, "Seccomp:\t2\n");
}

fn watched(config: &mut Value, agent: &std::path::Path) {
    config["annotations"] = json!({"a": "b"});
    config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": agent,
        "listenerMetadata": "for the agent",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
    });
}

#[test]
fn the_agent_is_handed_the_listener_with_the_state() {
    need!(root, cgroup2);
    let home = Home::new();
    let agent = home.beside("agent.sock");
    let listener = UnixListener::bind(&agent).unwrap();
    let bundle = Bundle::shell("mkdir /a 2>&1; true").with(|config| watched(config, &agent));
    let id = home.id();
    let mut command = home.command();
    command.args(["run", "-b"]).arg(bundle.path()).arg(&id);
    let child = command
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let (text, descriptor) = receive(&listener);
    let state: Value = serde_json::from_slice(&text).unwrap();
    let kind = std::fs::read_link(format!("/proc/self/fd/{}", descriptor.as_raw_fd())).unwrap();
    assert_eq!(kind.to_str().unwrap(), "anon_inode:seccomp notify");
    assert_eq!(state["fds"], json!(["seccompFd"]));
    assert_eq!(state["metadata"], "for the agent");
    assert_eq!(state["ociVersion"], "1.3.0");
    assert_eq!(state["state"]["id"], id);
    assert_eq!(state["state"]["annotations"], json!({"a": "b"}));
    assert_eq!(state["state"]["bundle"], bundle.path().to_str().unwrap());
    assert_eq!(state["state"]["status"], "created");
    assert_eq!(state["pid"], state["state"]["pid"]);
    assert_eq!(state["pid"], home.pid(&id));
    // Without an agent the calls that it would decide about are not there.
    drop(descriptor);
    let output = child.wait_with_output().unwrap();
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("Function not implemented")
    );
}

#[test]
fn the_agent_is_handed_the_listener_of_an_exec() {
    need!(root, cgroup2);
    let home = Home::new();
    let agent = home.beside("agent.sock");
    let listener = UnixListener::bind(&agent).unwrap();
    let bundle = Bundle::new(&["sleep", "1000"]).with(|config| watched(config, &agent));
    let id = home.id();
    home.create(&bundle, &id);
    let starting = home.command().args(["start", &id]).spawn().unwrap();
    let (_, first) = receive(&listener);
    assert!(starting.wait_with_output().unwrap().status.success());
    let mut command = home.command();
    command.args(["exec", &id, "sh", "-c", "echo $$; mkdir /a 2>&1"]);
    let child = command
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let (text, second) = receive(&listener);
    let state: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(state["state"]["status"], "running");
    assert_eq!(state["state"]["pid"], home.pid(&id));
    assert_ne!(state["pid"], state["state"]["pid"]);
    drop((first, second));
    let output = child.wait_with_output().unwrap();
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("Function not implemented")
    );
}

#[test]
fn an_agent_that_is_not_there_fails_the_container() {
    need!(root, cgroup2);
    let words = super::refused(|config| watched(config, std::path::Path::new("/no/such/agent")));
    assert!(words.contains("linux.seccomp.listenerPath"), "{words}");
}
