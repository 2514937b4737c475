//! What is mounted where: binds of files and directories, places that are missing, links on the way, copies.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;

use serde_json::json;

use super::add;
use super::at;
use super::inside;
use super::mounted;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;

#[test]
fn a_file_is_bound_over_a_file_that_is_made_when_missing() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::shell("cat /etc/there /new/dir/file").with(|config| {
        for place in ["/etc/there", "/new/dir/file"] {
            add(
                config,
                "/mounts",
                json!({"destination": place, "source": "file", "options": ["bind"]}),
            );
        }
    });
    fs::write(bundle.rootfs("/etc/there"), "old\n").unwrap();
    fs::write(bundle.path().join("file"), "bound\n").unwrap();
    assert_eq!(home.run(&bundle).ok(), "bound\nbound\n");
    let made = bundle.rootfs("/new/dir/file").metadata().unwrap();
    assert_eq!((made.len(), made.permissions().mode() & 0o777), (0, 0o644));
}

#[test]
fn missing_mount_points_are_made() {
    need!(root, cgroup2);
    let seen = inside(
        "stat -c %a /a /a/b; grep ' /a/b/c ' /proc/self/mountinfo",
        |config| {
            add(
                config,
                "/mounts",
                json!({"destination": "/a/b/c", "type": "tmpfs", "source": "t"}),
            );
        },
    );
    assert!(seen.starts_with("755\n755\n"), "{seen}");
    assert!(seen.contains(" /a/b/c "), "{seen}");
}

#[test]
fn a_relative_destination_begins_at_the_root() {
    need!(root, cgroup2);
    let seen = inside(
        "cd /tmp; grep ' /rel/dir ' /proc/self/mountinfo",
        |config| {
            add(
                config,
                "/mounts",
                json!({"destination": "rel/dir", "type": "tmpfs", "source": "t"}),
            );
        },
    );
    assert_eq!(at(&mounted(&seen), "/rel/dir").kind, "tmpfs");
}

#[test]
fn a_link_to_the_outside_on_the_way_is_followed_inside() {
    need!(root, cgroup2);
    let home = Home::new();
    let outside = home.beside("outside");
    fs::create_dir(&outside).unwrap();
    let bundle = Bundle::shell("grep -c /inner/m /proc/self/mountinfo").with(|config| {
        add(
            config,
            "/mounts",
            json!({"destination": "/link/inner/m", "type": "tmpfs", "source": "t"}),
        );
    });
    symlink(&outside, bundle.rootfs("/link")).unwrap();
    let within = bundle.rootfs(outside.to_str().unwrap());
    fs::create_dir_all(within).unwrap();
    assert_eq!(home.run(&bundle).ok(), "1\n");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn a_missing_source_is_named() {
    need!(root, cgroup2);
    let words = super::refused(|config| {
        add(
            config,
            "/mounts",
            json!({"destination": "/m", "source": "/no/such/source", "options": ["bind"]}),
        );
    });
    assert!(
        words.contains("bind /no/such/source on /m: no such file or directory"),
        "{words}"
    );
}

#[test]
fn a_new_tmpfs_has_a_copy_of_what_it_covers() {
    need!(root, cgroup2);
    let home = Home::new();
    let script = "cat /data/sub/file; stat -c '%a %u %g' /data/sub/file /data; readlink /data/link; echo x > /data/new";
    let bundle = Bundle::shell(script).with(|config| {
        add(
            config,
            "/mounts",
            json!({"destination": "/data", "type": "tmpfs", "source": "t", "options": ["tmpcopyup", "noexec"]}),
        );
    });
    fs::create_dir_all(bundle.rootfs("/data/sub")).unwrap();
    fs::set_permissions(bundle.rootfs("/data"), fs::Permissions::from_mode(0o750)).unwrap();
    let file = bundle.rootfs("/data/sub/file");
    fs::write(&file, "content\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4755)).unwrap();
    std::os::unix::fs::chown(&file, Some(7), Some(8)).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4755)).unwrap();
    symlink("sub/file", bundle.rootfs("/data/link")).unwrap();
    assert_eq!(
        home.run(&bundle).ok(),
        "content\n4755 7 8\n750 0 0\nsub/file\n"
    );
    assert!(!bundle.rootfs("/data/new").exists());
}

#[test]
fn a_read_only_tmpfs_is_filled_before_it_is_read_only() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::shell("cat /data/file; touch /data/x || echo denied").with(|config| {
        add(
            config,
            "/mounts",
            json!({"destination": "/data", "type": "tmpfs", "source": "t", "options": ["tmpcopyup", "ro"]}),
        );
    });
    fs::create_dir(bundle.rootfs("/data")).unwrap();
    fs::write(bundle.rootfs("/data/file"), "content\n").unwrap();
    assert_eq!(home.run(&bundle).ok(), "content\ndenied\n");
}

#[test]
fn a_link_as_the_source_is_made_again_when_it_is_to_be_copied() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::shell("readlink /etc/copied").with(|config| {
        add(
            config,
            "/mounts",
            json!({"destination": "/etc/copied", "source": "link", "options": ["bind", "copy-symlink"]}),
        );
    });
    symlink("/no/such/target", bundle.path().join("link")).unwrap();
    assert_eq!(home.run(&bundle).ok(), "/no/such/target\n");
}

#[test]
fn a_link_as_the_source_is_shown_itself_when_it_is_not_followed() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::shell("readlink /shown").with(|config| {
        add(
            config,
            "/mounts",
            json!({"destination": "/shown", "source": "link", "options": ["bind", "src-nofollow"]}),
        );
    });
    symlink("the-target", bundle.path().join("link")).unwrap();
    assert_eq!(home.run(&bundle).ok(), "the-target\n");
}

#[test]
fn a_link_as_the_destination_is_covered_itself_when_it_is_not_followed() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::shell("cat /link /target").with(|config| {
        add(
            config,
            "/mounts",
            json!({"destination": "/link", "source": "file", "options": ["bind", "dest-nofollow"]}),
        );
    });
    fs::write(bundle.path().join("file"), "bound\n").unwrap();
    fs::write(bundle.rootfs("/target"), "target\n").unwrap();
    symlink("target", bundle.rootfs("/link")).unwrap();
    assert_eq!(home.run(&bundle).ok(), "bound\ntarget\n");
}

#[test]
fn a_read_only_root_cannot_be_written_and_mounts_in_it_can() {
    need!(root, cgroup2);
    let script = "touch /x 2>/dev/null || echo denied; touch /m/x && echo written";
    let seen = inside(script, |config| {
        config["root"]["readonly"] = json!(true);
        add(
            config,
            "/mounts",
            json!({"destination": "/m", "type": "tmpfs", "source": "t"}),
        );
    });
    assert_eq!(seen, "denied\nwritten");
}

#[test]
fn a_read_only_bind_cannot_be_written() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::shell("cat /m/file; echo x > /m/file || echo denied").with(|config| {
        add(
            config,
            "/mounts",
            json!({"destination": "/m", "source": "dir", "options": ["rbind", "ro"]}),
        );
    });
    fs::create_dir(bundle.path().join("dir")).unwrap();
    fs::write(bundle.path().join("dir/file"), "text\n").unwrap();
    assert_eq!(home.run(&bundle).ok(), "text\ndenied\n");
}

#[test]
fn mounts_are_made_in_the_order_in_which_they_are_listed() {
    need!(root, cgroup2);
    let seen = inside("touch /m/n/x; grep ' /m' /proc/self/mountinfo", |config| {
        for (place, size) in [("/m", "1m"), ("/m/n", "2m")] {
            add(
                config,
                "/mounts",
                json!({"destination": place, "type": "tmpfs", "source": "t", "options": [format!("size={size}")]}),
            );
        }
    });
    let mounts = mounted(&seen);
    let points: Vec<&str> = mounts.iter().map(|mount| mount.point.as_str()).collect();
    assert_eq!(points, ["/m", "/m/n"]);
}

#[test]
fn the_image_can_stand_on_a_root_that_is_moved() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::shell("ls /; echo $(readlink /proc/self/cwd)");
    let mut command = home.command();
    command
        .args(["run", "--no-pivot", "-b"])
        .arg(bundle.path())
        .arg(home.id());
    let said: crate::support::home::Said = command.output().unwrap().into();
    assert_eq!(said.ok(), "bin\ndev\netc\nproc\nroot\nrun\nsys\ntmp\n/\n");
}

#[test]
fn a_file_is_bound_where_a_link_in_the_image_leads() {
    need!(root, cgroup2);
    let home = Home::new();
    let target = home.beside("resolv");
    fs::write(&target, "hosts\n").unwrap();
    let bundle = Bundle::shell("cat /etc/resolv.conf").with(|config| {
        add(
            config,
            "/mounts",
            json!({"destination": "/etc/resolv.conf", "source": "file", "options": ["bind"]}),
        );
    });
    fs::write(bundle.path().join("file"), "bound\n").unwrap();
    symlink(&target, bundle.rootfs("/etc/resolv.conf")).unwrap();
    let within = bundle.rootfs(target.to_str().unwrap());
    fs::create_dir_all(within.parent().unwrap()).unwrap();
    fs::write(&within, "").unwrap();
    assert_eq!(home.run(&bundle).ok(), "bound\n");
    assert_eq!(fs::read_to_string(&target).unwrap(), "hosts\n");
}

#[test]
fn a_mount_is_changed_by_a_later_remount() {
    need!(root, cgroup2);
    let seen = inside("grep ' /m ' /proc/self/mountinfo", |config| {
        for options in [json!(["size=1m"]), json!(["remount", "ro", "size=2m"])] {
            add(
                config,
                "/mounts",
                json!({"destination": "/m", "type": "tmpfs", "source": "t", "options": options}),
            );
        }
    });
    let mounts = mounted(&seen);
    assert_eq!(mounts.len(), 1, "{seen}");
    assert!(mounts[0].options.contains(&"ro".to_owned()), "{seen}");
    assert!(
        mounts[0].system.contains(&"size=2048k".to_owned()),
        "{seen}"
    );
}

#[test]
fn a_stack_of_layers_longer_than_one_value_of_the_kernel_is_mounted() {
    need!(root, cgroup2);
    let home = Home::new();
    let layers = tempfile::tempdir().unwrap();
    let directories: Vec<String> = (0..4)
        .map(|layer| {
            let directory = layers.path().join(format!("{layer}{}", "x".repeat(90)));
            fs::create_dir(&directory).unwrap();
            fs::write(directory.join(format!("file{layer}")), "").unwrap();
            directory.to_str().unwrap().to_owned()
        })
        .collect();
    let stack = format!("lowerdir={}", directories.join(":"));
    let bundle = Bundle::shell("ls /stack").with(|config| {
        add(
            config,
            "/mounts",
            json!({"destination": "/stack", "type": "overlay", "source": "overlay", "options": [stack]}),
        );
    });
    assert_eq!(home.run(&bundle).ok(), "file0\nfile1\nfile2\nfile3\n");
}
