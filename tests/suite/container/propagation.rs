//! Whether mounts that the host makes later are seen inside, and the other way round.

use serde_json::Value;
use serde_json::json;

use super::add;
use super::elsewhere;
use super::inside;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::home::Said;

/// Starts a container with a directory of the host bound in, mounts something below that on the host, and asks
/// inside; then the other way round.
fn both_ways(root: Value, options: &[&str]) -> (bool, bool) {
    let home = Home::new();
    let bundle = Bundle::new(&["sleep", "1000"]).with(|config| {
        config["linux"]["rootfsPropagation"] = root;
        config["process"]["capabilities"]["bounding"] = json!(["CAP_SYS_ADMIN"]);
        config["process"]["capabilities"]["permitted"] = json!(["CAP_SYS_ADMIN"]);
        config["process"]["capabilities"]["effective"] = json!(["CAP_SYS_ADMIN"]);
        add(
            config,
            "/mounts",
            json!({"destination": "/m", "source": "tree", "options": options}),
        );
    });
    let script = "cd $BUNDLE; mkdir tree; mount --bind tree tree; mount --make-shared tree
        mkdir tree/in tree/out; $RUN create -b $BUNDLE $ID >/dev/null 2>&1; $RUN start $ID
        mount -t tmpfs t tree/in; $RUN exec $ID sh -c \"grep -c ' /m/in ' /proc/self/mountinfo || true\"
        $RUN exec $ID mount -t tmpfs t /m/out; grep -c ' /.*/tree/out ' /proc/self/mountinfo || true
        $RUN delete --force $ID";
    let mut command = elsewhere(&home, script);
    command.env("BUNDLE", bundle.path()).env("ID", home.id());
    let said: Said = command.output().unwrap().into();
    let text = said.ok();
    let counts: Vec<bool> = text.lines().map(|line| line != "0").collect();
    assert_eq!(counts.len(), 2, "{text}");
    (counts[0], counts[1])
}

#[test]
fn mounts_of_the_host_come_in_and_none_go_out_by_default() {
    need!(root, cgroup2);
    assert_eq!(both_ways(Value::Null, &["rbind"]), (true, false));
}

#[test]
fn a_slave_sees_mounts_of_the_host() {
    need!(root, cgroup2);
    assert_eq!(both_ways(json!("slave"), &["rbind"]), (true, false));
    assert_eq!(
        both_ways(json!("rslave"), &["rbind", "rslave"]),
        (true, false)
    );
}

#[test]
fn a_private_mount_sees_nothing_of_the_host() {
    need!(root, cgroup2);
    assert_eq!(both_ways(json!("rprivate"), &["rbind"]), (false, false));
    assert_eq!(
        both_ways(Value::Null, &["rbind", "rprivate"]),
        (false, false)
    );
}

#[test]
fn a_shared_mount_is_seen_on_both_sides() {
    need!(root, cgroup2);
    assert_eq!(
        both_ways(json!("shared"), &["rbind", "rshared"]),
        (true, true)
    );
}

/// The propagation of the root itself, as the tags of `mountinfo` say it.
fn tags_of_root(propagation: &str) -> String {
    let text = inside(
        "grep ' / / \\| /rootfs / ' /proc/self/mountinfo || cat /proc/self/mountinfo",
        |config| {
            config["linux"]["rootfsPropagation"] = json!(propagation);
        },
    );
    super::at(&super::mounted(&text), "/").tags.clone()
}

#[test]
fn the_root_has_the_propagation_that_was_asked_for() {
    need!(root, cgroup2);
    assert_eq!(tags_of_root("private"), "");
    assert_eq!(tags_of_root("unbindable"), "unbindable");
    let shared = tags_of_root("shared");
    assert!(shared.starts_with("shared:"), "{shared}");
}

#[test]
fn a_mount_has_the_propagation_that_was_asked_for() {
    need!(root, cgroup2);
    let text = inside("grep ' /m/' /proc/self/mountinfo", |config| {
        for word in ["shared", "private", "unbindable", "runbindable", "rshared"] {
            add(
                config,
                "/mounts",
                json!({"destination": format!("/m/{word}"), "type": "tmpfs", "source": "t", "options": [word]}),
            );
        }
    });
    let mounts = super::mounted(&text);
    let tags = |word: &str| super::at(&mounts, &format!("/m/{word}")).tags.clone();
    assert!(tags("shared").starts_with("shared:"));
    assert!(tags("rshared").starts_with("shared:"));
    assert_eq!(tags("private"), "");
    assert_eq!(tags("unbindable"), "unbindable");
    assert_eq!(tags("runbindable"), "unbindable");
}
