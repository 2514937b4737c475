//! podman without root: the runtime is uid 0 of a user namespace, told only `XDG_RUNTIME_DIR`.

use std::process::Command;
use std::sync::OnceLock;

use super::IMAGE;
use super::Said;
use super::archive;
use super::ask;
use super::runtime;
use crate::need;

/// Runs a shell command as the machine's user, with their runtime directory and their bus.
fn user(script: &str) -> Said {
    static STARTED: OnceLock<()> = OnceLock::new();
    STARTED.get_or_init(|| {
        ask(Command::new("systemctl").args(["start", "user@1000.service"])).fine();
    });
    let environment = "export XDG_RUNTIME_DIR=/run/user/1000; cd;";
    ask(Command::new("su").args(["user", "-c", &format!("{environment} {script}")]))
}

fn podman(args: &str) -> Said {
    static IMPORTED: OnceLock<()> = OnceLock::new();
    let podman = format!("podman --runtime {} --cgroup-manager cgroupfs", runtime());
    IMPORTED.get_or_init(|| {
        user(&format!(
            "{podman} import --quiet {} {IMAGE}",
            archive().display()
        ))
        .fine();
    });
    user(&format!("{podman} {args}"))
}

#[test]
fn rootless_podman_gets_the_output_and_the_status_of_a_container() {
    need!(machine);
    let said = podman(&format!(
        "run --rm --network none {IMAGE} sh -c 'id -u; exit 7'"
    ));
    assert_eq!((said.out.as_str(), said.status), ("0\n", Some(7)), "{said}");
}

#[test]
fn rootless_podman_execs_stops_and_removes() {
    need!(machine);
    podman(&format!(
        "run --detach --network none --name rootless {IMAGE} sleep 1000"
    ))
    .fine();
    let said = podman("exec rootless sh -c 'echo inside; exit 5'");
    let stopped = podman("stop --time 0 rootless");
    let removed = podman("rm --force rootless");
    assert_eq!(
        (said.out.as_str(), said.status),
        ("inside\n", Some(5)),
        "{said}"
    );
    stopped.fine();
    removed.fine();
}

#[test]
fn rootless_podman_maps_the_users_own_range() {
    need!(machine);
    let said = podman(&format!(
        "run --rm --network none --user 33 {IMAGE} sh -c 'id -u; cat /proc/self/uid_map'"
    ));
    let words: Vec<String> = said.fine().split_whitespace().map(str::to_owned).collect();
    assert_eq!(words, ["33", "0", "1000", "1", "1", "100000", "65536"]);
}
