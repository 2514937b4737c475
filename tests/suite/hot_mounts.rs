//! Mounts that are added to a container while it runs, and removed.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use serde_json::json;

use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;

fn running() -> (Home, Bundle, String) {
    let (home, bundle) = (Home::new(), Bundle::new(&["sleep", "1000"]));
    let id = home.id();
    home.start(&bundle, &id);
    (home, bundle, id)
}

fn listed(home: &Home, mounts: &Value) -> PathBuf {
    let file = home.beside("mounts.json");
    fs::write(&file, mounts.to_string()).unwrap();
    file
}

#[test]
fn a_directory_of_the_host_appears_and_disappears() {
    need!(root, cgroup2);
    let (home, _bundle, id) = running();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("file"), "seen").unwrap();
    let mount = json!({"destination": "/new/place", "type": "bind", "source": outside.path(), "options": ["bind", "ro"]});
    let file = listed(&home, &json!([mount]));
    let file = file.to_str().unwrap();
    home.bulkhead(["mounts", "add", &id, file]).ok();
    let inside = |script: &str| home.bulkhead(["exec", &id, "sh", "-c", script]);
    assert_eq!(inside("cat /new/place/file").ok(), "seen");
    assert!(
        inside("echo x > /new/place/file")
            .failed()
            .contains("Read-only")
    );
    home.bulkhead(["mounts", "remove", &id, file]).ok();
    assert_eq!(inside("ls /new/place").ok(), "");
}

#[test]
fn a_file_system_is_mounted_as_a_configuration_lists_it() {
    need!(root, cgroup2);
    let (home, _bundle, id) = running();
    let mount = json!({"destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k"]});
    let file = listed(&home, &json!({"mounts": [mount]}));
    home.bulkhead(["mounts", "add", &id, file.to_str().unwrap()])
        .ok();
    let seen = home.bulkhead(["exec", &id, "grep", " /scratch ", "/proc/self/mountinfo"]);
    assert!(seen.ok().contains("size=64k"));
}

#[test]
fn a_link_in_the_image_does_not_lead_a_mount_out() {
    need!(root, cgroup2);
    let (home, bundle, id) = running();
    std::os::unix::fs::symlink("/../../../../tmp", bundle.rootfs("way")).unwrap();
    let outside = tempfile::tempdir().unwrap();
    let name = home.id();
    let mount = json!({"destination": format!("/way/{name}"), "type": "bind", "source": outside.path(), "options": ["bind"]});
    let file = listed(&home, &json!([mount]));
    home.bulkhead(["mounts", "add", &id, file.to_str().unwrap()])
        .ok();
    assert!(bundle.rootfs("tmp").join(&name).exists());
    assert!(!std::path::Path::new("/tmp").join(&name).exists());
}

#[test]
fn what_depends_on_its_maker_is_refused() {
    need!(root, cgroup2);
    let (home, _bundle, id) = running();
    let file = listed(
        &home,
        &json!([{"destination": "/p", "type": "proc", "source": "proc"}]),
    );
    let refusal = home
        .bulkhead(["mounts", "add", &id, file.to_str().unwrap()])
        .failed();
    assert!(refusal.contains("mounts[0].type"), "{refusal}");
}

#[test]
fn a_place_where_nothing_is_mounted_is_named() {
    need!(root, cgroup2);
    let (home, _bundle, id) = running();
    let file = listed(
        &home,
        &json!([{"destination": "/etc", "type": "bind", "source": "/"}]),
    );
    let refusal = home
        .bulkhead(["mounts", "remove", &id, file.to_str().unwrap()])
        .failed();
    assert!(refusal.contains("unmount /etc"), "{refusal}");
}
