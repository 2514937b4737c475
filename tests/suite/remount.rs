//! Mounts that are changed after they were made, and clocks in a user namespace: what goes through two steps or more.

use serde_json::Value;
use serde_json::json;

use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;

/// Runs a script over some more mounts, and gives what it says.
#[track_caller]
fn said_over(mounts: &[Value], script: &str) -> String {
    let bundle = Bundle::shell(script).with(|config| {
        config["mounts"]
            .as_array_mut()
            .unwrap()
            .extend_from_slice(mounts);
    });
    Home::new().run(&bundle).ok()
}

const SEEN: &str = "grep ' /mnt ' /proc/mounts | cut -d' ' -f2-4";

#[test]
fn a_remounted_tmpfs_has_its_new_options_in_the_one_place() {
    need!(root);
    let mounts = [
        json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k"]}),
        json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["remount", "ro", "size=128k"]}),
    ];
    let seen = said_over(&mounts, SEEN);
    assert_eq!(seen.lines().count(), 1, "{seen}");
    assert!(
        seen.starts_with("/mnt tmpfs ro,") && seen.contains("size=128k"),
        "{seen}"
    );
}

#[test]
fn a_remounted_bind_mount_changes_alone_and_keeps_what_it_had() {
    need!(root);
    let shown = tempfile::tempdir().unwrap();
    let mounts = [
        json!({"destination": "/mnt", "source": shown.path(), "options": ["rbind", "nosuid"]}),
        json!({"destination": "/mnt", "source": shown.path(), "options": ["bind", "remount", "ro"]}),
    ];
    let seen = said_over(&mounts, SEEN);
    assert_eq!(seen.lines().count(), 1, "{seen}");
    assert!(seen.contains(" ro,nosuid"), "{seen}");
    std::fs::write(shown.path().join("file"), "the host can still write").unwrap();
}

#[test]
fn the_root_is_remounted_as_it_is_and_not_with_the_hosts() {
    need!(root);
    let mounts = [json!({"destination": "/", "source": "/", "options": ["bind", "remount", "ro"]})];
    let seen = said_over(&mounts, "touch /file 2>/dev/null || ls /");
    assert!(seen.contains("proc") && !seen.contains("boot"), "{seen}");
}

#[test]
fn clocks_of_its_own_go_with_users_of_its_own() {
    need!(root);
    let mapping = json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
    let bundle = Bundle::shell("cut -d. -f1 /proc/uptime").with(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.extend([json!({"type": "user"}), json!({"type": "time"})]);
        config["linux"]["uidMappings"] = mapping.clone();
        config["linux"]["gidMappings"] = mapping;
        config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1_000_000_000}});
    });
    let uptime: u64 = Home::new().run(&bundle).ok().trim().parse().unwrap();
    assert!(uptime >= 1_000_000_000, "{uptime}");
}
