//! `/dev`: the devices that every container has, those that are asked for, and the links.

use serde_json::Value;
use serde_json::json;

use super::inside;
use super::owner::with_users;
use super::refused;
use crate::need;

/// What `stat` is asked: type, mode, owner, group, major and minor in hexadecimal.
const STAT: &str = "stat -c '%n %F %a %u %g %t %T'";

const USUAL: &str = "\
/dev/null character special file 666 0 0 1 3
/dev/zero character special file 666 0 0 1 5
/dev/full character special file 666 0 0 1 7
/dev/random character special file 666 0 0 1 8
/dev/urandom character special file 666 0 0 1 9
/dev/tty character special file 666 0 0 5 0";

#[test]
fn the_usual_devices_are_there() {
    need!(root, cgroup2);
    let script =
        format!("cd /dev; {STAT} /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty");
    assert_eq!(inside(&script, |_| {}), USUAL);
}

#[test]
fn the_usual_links_are_there() {
    need!(root, cgroup2);
    let script = "for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done";
    assert_eq!(
        inside(script, |_| {}),
        "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx"
    );
}

fn asked(config: &mut Value) {
    config["linux"]["devices"] = json!([
        {"path": "/dev/test-c", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 5, "gid": 6},
        {"path": "/dev/sub/test-b", "type": "b", "major": 7, "minor": 300, "fileMode": 0o600},
        {"path": "/dev/test-p", "type": "p", "fileMode": 0o622, "uid": 7},
        {"path": "/dev/test-u", "type": "u", "major": 1, "minor": 5},
    ]);
}

#[test]
fn devices_that_are_asked_for_have_their_kind_mode_and_owner() {
    need!(root, cgroup2);
    let script = format!("{STAT} /dev/test-c /dev/sub/test-b /dev/test-p /dev/test-u");
    let expected = "\
/dev/test-c character special file 640 5 6 1 3
/dev/sub/test-b block special file 600 0 0 7 12c
/dev/test-p fifo 622 7 0 0 0
/dev/test-u character special file 666 0 0 1 5";
    assert_eq!(inside(&script, asked), expected);
}

#[test]
fn a_usual_device_can_be_asked_for_with_another_mode() {
    need!(root, cgroup2);
    let seen = inside(&format!("{STAT} /dev/null"), |config| {
        config["linux"]["devices"] =
            json!([{"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600}]);
    });
    assert_eq!(seen, "/dev/null character special file 600 0 0 1 3");
}

#[test]
fn in_a_user_namespace_the_devices_of_the_host_are_shown() {
    need!(root, cgroup2);
    let script =
        format!("echo x > /dev/null; {STAT} /dev/null; grep -c ' /dev/null ' /proc/self/mountinfo");
    let seen = inside(&script, |config| {
        with_users(config);
        config["mounts"][2]["options"] = json!(["newinstance", "ptmxmode=0666"]);
    });
    assert_eq!(
        seen,
        "/dev/null character special file 666 65534 65534 1 3\n1"
    );
}

#[test]
fn a_device_that_the_image_has_already_must_be_the_one() {
    need!(root, cgroup2);
    let words = refused(|config| {
        config["linux"]["devices"] = json!([
            {"path": "/dev/twice", "type": "c", "major": 1, "minor": 3},
            {"path": "/dev/./twice", "type": "c", "major": 1, "minor": 5},
        ]);
    });
    assert!(words.contains("/dev/"), "{words}");
}

#[test]
fn the_modes_of_devices_are_not_masked_by_the_callers_umask() {
    need!(root, cgroup2);
    let home = crate::support::home::Home::new();
    let bundle =
        crate::support::bundle::Bundle::shell("stat -c %a /dev/null /dev/test-p").with(|config| {
            config["linux"]["devices"] =
                json!([{"path": "/dev/test-p", "type": "p", "fileMode": 0o666}]);
        });
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "umask 077; exec \"$@\"", "sh"]);
    command.arg(crate::support::wall::program());
    command.arg("--root").arg(home.root()).args(["run", "-b"]);
    command.arg(bundle.path()).arg(home.id());
    let said: crate::support::home::Said = command.output().unwrap().into();
    assert_eq!(said.ok(), "666\n666\n");
}
