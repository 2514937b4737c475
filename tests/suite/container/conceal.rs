//! Masked and read-only paths: what is hidden, what is only fixed, and what need not be there.

use std::fs;

use serde_json::Value;
use serde_json::json;

use super::inside;
use super::mounted;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;

fn image(script: &str, change: impl FnOnce(&mut Value)) -> Bundle {
    let bundle = Bundle::shell(script).with(change);
    fs::create_dir_all(bundle.rootfs("/data/sub")).unwrap();
    fs::write(bundle.rootfs("/data/file"), "secret\n").unwrap();
    fs::write(bundle.rootfs("/data/sub/file"), "secret\n").unwrap();
    bundle
}

#[test]
fn a_masked_file_is_empty_and_a_masked_directory_too() {
    need!(root, cgroup2);
    let script = "cat /data/file; ls -A /data/sub; touch /data/sub/x 2>/dev/null || echo denied; echo x > /data/file; cat /data/file";
    let bundle = image(script, |config| {
        config["linux"]["maskedPaths"] = json!(["/data/file", "/data/sub"]);
    });
    assert_eq!(Home::new().run(&bundle).ok(), "denied\n");
    let untouched = fs::read_to_string(bundle.rootfs("/data/file")).unwrap();
    assert_eq!(untouched, "secret\n");
}

#[test]
fn all_masked_directories_show_the_same_empty_one() {
    need!(root, cgroup2);
    let script = "stat -c %d /data/sub /tmp /root | busybox uniq | wc -l; grep -c ' ro,' /proc/self/mountinfo";
    let bundle = image(script, |config| {
        config["linux"]["readonlyPaths"] = json!([]);
        config["linux"]["maskedPaths"] = json!(["/data/sub", "/tmp", "/root"]);
    });
    assert_eq!(Home::new().run(&bundle).ok(), "1\n3\n");
}

#[test]
fn a_read_only_path_is_read_and_not_written() {
    need!(root, cgroup2);
    let script =
        "cat /data/sub/file; echo x > /data/sub/file; echo x > /data/file; echo x > /data/new";
    let bundle = image(script, |config| {
        config["linux"]["readonlyPaths"] = json!(["/data/sub", "/data/file"]);
    });
    let said = Home::new().run(&bundle);
    assert_eq!(said.out, "secret\n");
    assert_eq!(
        said.err.matches("Read-only file system").count(),
        2,
        "{}",
        said.err
    );
    assert!(bundle.rootfs("/data/new").exists());
}

#[test]
fn paths_that_are_not_there_need_no_hiding() {
    need!(root, cgroup2);
    let seen = inside("ls /none 2>&1", |config| {
        config["process"]["args"] = json!(["sh", "-c", "ls -d /none || true"]);
        config["linux"]["maskedPaths"] = json!(["/none", "/none/below", "/proc/no_such"]);
        config["linux"]["readonlyPaths"] = json!(["/none", "/etc/none"]);
    });
    assert_eq!(seen, "");
}

#[test]
fn a_path_that_is_masked_and_read_only_is_masked() {
    need!(root, cgroup2);
    let bundle = image("cat /data/file", |config| {
        config["linux"]["readonlyPaths"] = json!(["/data", "/data/file"]);
        config["linux"]["maskedPaths"] = json!(["/data/file"]);
    });
    assert_eq!(Home::new().run(&bundle).ok(), "");
}

#[test]
fn the_usual_paths_of_proc_and_sys_are_hidden() {
    need!(root, cgroup2);
    let script = "wc -c < /proc/keys; wc -c < /proc/timer_list; ls -A /sys/firmware; cat /proc/self/mountinfo";
    let seen = inside(script, |config| {
        super::add(
            config,
            "/mounts",
            json!({"destination": "/sys", "type": "sysfs", "source": "sysfs",
                   "options": ["nosuid", "noexec", "nodev", "ro"]}),
        );
        config["linux"]["maskedPaths"] = json!(["/proc/keys", "/proc/timer_list", "/sys/firmware"]);
        config["linux"]["readonlyPaths"] =
            json!(["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"]);
    });
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[..2], ["0", "0"]);
    let mounts = mounted(&lines[2..].join("\n"));
    for point in ["/proc/fs", "/proc/irq", "/proc/sys"] {
        let mount = super::at(&mounts, point);
        assert!(mount.options.contains(&"ro".to_owned()), "{mount:?}");
    }
}

#[test]
fn the_null_device_of_the_image_must_be_the_null_device() {
    need!(root, cgroup2);
    let words = super::refused(|config| {
        config["linux"]["maskedPaths"] = json!(["/etc/passwd"]);
        super::add(
            config,
            "/mounts",
            json!({"destination": "/dev", "type": "bind", "source": "rootfs/tmp", "options": ["bind"]}),
        );
    });
    assert!(words.contains("mask /etc/passwd"), "{words}");
}
