//! Id-mapped mounts: which owner a file has inside.

use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::chown;

use serde_json::Value;
use serde_json::json;

use super::add;
use super::elsewhere;
use super::refused;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::home::Said;

/// A user namespace in which 0 is 100000 outside.
pub(crate) fn with_users(config: &mut Value) {
    add(config, "/linux/namespaces", json!({"type": "user"}));
    let mapping = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    config["linux"]["uidMappings"] = mapping.clone();
    config["linux"]["gidMappings"] = mapping;
}

fn shifted(options: &[&str]) -> Bundle {
    let mapping = json!([{"containerID": 0, "hostID": 5000, "size": 1000}]);
    let bundle = Bundle::shell("stat -c '%u %g' /m/file; touch /m/made").with(|config| {
        add(
            config,
            "/mounts",
            json!({"destination": "/m", "source": "dir", "options": options,
                   "uidMappings": mapping, "gidMappings": mapping}),
        );
    });
    let directory = bundle.path().join("dir");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("file"), "").unwrap();
    chown(&directory, Some(0), Some(0)).unwrap();
    chown(directory.join("file"), Some(3), Some(4)).unwrap();
    bundle
}

#[test]
fn owners_are_mapped_by_the_mappings_of_the_mount() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = shifted(&["bind", "idmap"]);
    assert_eq!(home.run(&bundle).status, 1, "nobody to own a new file");
    let said = home.run(&bundle);
    assert_eq!(said.out, "5003 5004\n", "{}", said.err);
}

#[test]
fn mappings_alone_ask_for_a_mapped_mount() {
    need!(root, cgroup2);
    let said = Home::new().run(&shifted(&["bind"]));
    assert_eq!(said.out, "5003 5004\n", "{}", said.err);
}

#[test]
fn owners_are_mapped_by_the_user_namespace_when_the_mount_has_no_mappings() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle =
        Bundle::shell("stat -c '%u %g' /m/file /plain/file; touch /m/made").with(|config| {
            with_users(config);
            add(
                config,
                "/mounts",
                json!({"destination": "/m", "source": "dir", "options": ["bind", "idmap"]}),
            );
            add(
                config,
                "/mounts",
                json!({"destination": "/plain", "source": "dir", "options": ["bind"]}),
            );
        });
    std::fs::set_permissions(
        bundle.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    for place in ["/m", "/plain"] {
        std::fs::create_dir(bundle.rootfs(place)).unwrap();
    }
    let directory = bundle.path().join("dir");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("file"), "").unwrap();
    chown(directory.join("file"), Some(3), Some(4)).unwrap();
    assert_eq!(home.run(&bundle).ok(), "3 4\n65534 65534\n");
    let made = directory.join("made").metadata().unwrap();
    assert_eq!((made.uid(), made.gid()), (0, 0));
}

#[test]
fn only_a_recursive_mapping_reaches_the_mounts_below() {
    need!(root, cgroup2);
    let home = Home::new();
    let mapping = json!([{"containerID": 0, "hostID": 5000, "size": 1000}]);
    let bundle = Bundle::shell("stat -c %u /one /one/sub /all /all/sub").with(|config| {
        for (place, word) in [("/one", "idmap"), ("/all", "ridmap")] {
            add(
                config,
                "/mounts",
                json!({"destination": place, "source": "tree", "options": ["rbind", word],
                       "uidMappings": mapping, "gidMappings": mapping}),
            );
        }
    });
    let script =
        "cd $BUNDLE; mkdir tree; mount -t tmpfs t tree; mkdir tree/sub; mount -t tmpfs t tree/sub
                  exec $RUN run -b $BUNDLE $ID";
    let mut command = elsewhere(&home, script);
    command.env("BUNDLE", bundle.path()).env("ID", home.id());
    let said: Said = command.output().unwrap().into();
    assert_eq!(said.ok(), "5000\n0\n5000\n5000\n");
}

#[test]
fn a_mapped_mount_without_any_mappings_is_refused() {
    need!(root, cgroup2);
    let words = refused(|config| {
        add(
            config,
            "/mounts",
            json!({"destination": "/m", "source": ".", "options": ["bind", "idmap"]}),
        );
    });
    assert!(
        words.contains("mounts[4].options: \"idmap\" without uidMappings"),
        "{words}"
    );
}
