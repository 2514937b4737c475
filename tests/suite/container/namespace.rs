//! Namespaces: made, joined by path, left to the host, and refused when the path leads to another kind.

use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use serde_json::Value;
use serde_json::json;

use super::add;
use super::inside;
use super::owner::with_users;
use super::refused;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::home::eventually;

const KINDS: [(&str, &str); 8] = [
    ("cgroup", "cgroup"),
    ("ipc", "ipc"),
    ("mount", "mnt"),
    ("network", "net"),
    ("pid", "pid"),
    ("time", "time"),
    ("user", "user"),
    ("uts", "uts"),
];
const LINKS: &str =
    "for n in cgroup ipc mnt net pid time user uts; do readlink /proc/self/ns/$n; done";

fn own(file: &str) -> String {
    let link = std::fs::read_link(format!("/proc/self/ns/{file}")).unwrap();
    link.to_str().unwrap().to_owned()
}

#[test]
fn every_namespace_that_is_asked_for_is_a_new_one() {
    need!(root, cgroup2);
    let seen = inside(LINKS, |config| {
        with_users(config);
        for kind in ["cgroup", "time"] {
            add(config, "/linux/namespaces", json!({"type": kind}));
        }
    });
    let seen: Vec<&str> = seen.lines().collect();
    assert_eq!(seen.len(), KINDS.len());
    for (index, (kind, file)) in KINDS.iter().enumerate() {
        assert_ne!(seen[index], own(file), "{kind}");
    }
}

#[test]
fn what_is_not_asked_for_is_shared_with_the_host() {
    need!(root, cgroup2);
    let seen = inside(LINKS, |config| {
        config["hostname"] = json!("");
        config["linux"]["namespaces"] = json!([{"type": "mount"}]);
    });
    let seen: Vec<&str> = seen.lines().collect();
    let shared = KINDS
        .iter()
        .enumerate()
        .filter(|(_, (kind, _))| *kind != "mount");
    for (index, (kind, file)) in shared {
        assert_eq!(seen[index], own(file), "{kind}");
    }
}

/// A process in namespaces of its own, which ends with the value.
struct Holder(Child);

impl Holder {
    fn new(options: &[&str]) -> Self {
        let mut command = Command::new("unshare");
        command
            .args(options)
            .args(["sh", "-c", "echo ready; exec sleep 1000"]);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        let output = child.stdout.as_mut().unwrap();
        std::io::Read::read_exact(output, &mut ready).unwrap();
        Self(child)
    }

    fn path(&self, file: &str) -> String {
        format!("/proc/{}/ns/{file}", self.0.id())
    }

    fn namespace(&self, file: &str) -> String {
        let link = std::fs::read_link(self.path(file)).unwrap();
        link.to_str().unwrap().to_owned()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Puts a namespace with a path in the place of a new one.
fn join(config: &mut Value, kind: &str, path: &str) {
    let list = config["linux"]["namespaces"].as_array_mut().unwrap();
    list.retain(|namespace| namespace["type"] != kind);
    list.push(json!({"type": kind, "path": path}));
}

#[test]
fn namespaces_are_joined_by_their_paths() {
    need!(root, cgroup2);
    let holder = Holder::new(&["-i", "-n", "-u", "-C", "-T"]);
    for (kind, file) in [
        ("ipc", "ipc"),
        ("network", "net"),
        ("uts", "uts"),
        ("cgroup", "cgroup"),
        ("time", "time"),
    ] {
        let seen = inside(&format!("readlink /proc/self/ns/{file}"), |config| {
            config["hostname"] = json!("");
            join(config, kind, &holder.path(file));
        });
        assert_eq!(seen, holder.namespace(file), "{kind}");
    }
}

#[test]
fn a_mount_namespace_is_joined_by_its_path() {
    need!(root, cgroup2);
    let holder = Holder::new(&["-m", "--propagation", "private"]);
    let seen = inside("readlink /proc/self/ns/mnt; ls -d /bin/busybox", |config| {
        join(config, "mount", &holder.path("mnt"));
    });
    assert_eq!(seen, format!("{}\n/bin/busybox", holder.namespace("mnt")));
}

#[test]
fn a_pid_namespace_is_joined_by_its_path() {
    need!(root, cgroup2);
    let home = Home::new();
    let first = Bundle::new(&["sleep", "4321"]);
    let id = home.id();
    home.start(&first, &id);
    let path = format!("/proc/{}/ns/pid", home.pid(&id));
    let second = Bundle::shell("ps").with(|config| join(config, "pid", &path));
    let seen = home.run(&second).ok();
    assert!(seen.contains("sleep 4321"), "{seen}");
}

#[test]
fn a_user_namespace_is_joined_by_its_path() {
    need!(root, cgroup2);
    let home = Home::new();
    let first = Bundle::new(&["sleep", "1000"]).with(with_users);
    let id = home.id();
    home.start(&first, &id);
    let path = format!("/proc/{}/ns/user", home.pid(&id));
    let second =
        Bundle::shell("cat /proc/self/uid_map; id -u").with(|config| join(config, "user", &path));
    open_to_others(&second);
    let seen = home.run(&second).ok();
    let words: Vec<&str> = seen.split_whitespace().collect();
    assert_eq!(words, ["0", "100000", "65536", "0"]);
}

fn open_to_others(bundle: &Bundle) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(bundle.path(), mode).unwrap();
}

#[test]
fn a_path_to_another_kind_of_namespace_is_refused_by_name() {
    need!(root, cgroup2);
    for (kind, file) in KINDS {
        let other = if file == "net" { "uts" } else { "net" };
        let holder = Holder::new(&["-n", "-u"]);
        let path = holder.path(other);
        let words = refused(|config| {
            config["hostname"] = json!("");
            join(config, kind, &path);
        });
        let found = if other == "net" { "network" } else { other };
        let expected =
            format!(".path: \"{path}\" is a {found} namespace, expected one of the kind {kind:?}");
        assert!(words.contains(": linux.namespaces["), "{kind}: {words}");
        assert!(words.contains(&expected), "{kind}: {words}");
    }
}

#[test]
fn a_path_to_nothing_is_refused_by_name() {
    need!(root, cgroup2);
    let words = refused(|config| join(config, "network", "/no/such/namespace"));
    assert!(
        words.contains(".path: cannot open \"/no/such/namespace\": no such file or directory"),
        "{words}"
    );
    assert!(words.contains(": linux.namespaces["), "{words}");
    let words = refused(|config| join(config, "network", "/etc/passwd"));
    assert!(words.contains("\"/etc/passwd\" is no namespace"), "{words}");
}

#[test]
fn the_message_queues_belong_to_the_root_of_a_user_namespace() {
    need!(root, cgroup2);
    let seen = inside(
        "stat -c '%u %g' /dev/mqueue; touch /dev/mqueue/made && stat -c '%u %g' /dev/mqueue/made; readlink /proc/self/ns/ipc",
        |config| {
            with_users(config);
            let queues =
                json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue"});
            config["mounts"]
                .as_array_mut()
                .unwrap()
                .retain(|mount| mount["destination"] != "/dev/mqueue");
            add(config, "/mounts", queues);
        },
    );
    let seen: Vec<&str> = seen.lines().collect();
    assert_eq!(seen[..2], ["0 0", "0 0"]);
    assert_ne!(seen[2], own("ipc"));
}

#[test]
fn a_new_user_namespace_of_roots_needs_its_mappings() {
    need!(root, cgroup2);
    let words = refused(|config| add(config, "/linux/namespaces", json!({"type": "user"})));
    assert!(words.contains(": linux.uidMappings: "), "{words}");
    let words = refused(|config| {
        with_users(config);
        config["linux"]["gidMappings"] = json!([]);
    });
    assert!(words.contains(": linux.gidMappings: "), "{words}");
}

#[test]
fn users_and_groups_are_mapped_as_the_configuration_says() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::shell(
        "cat /proc/self/uid_map /proc/self/gid_map; id -u; touch /tmp/made; kill -l >/dev/null",
    )
    .with(|config| {
        with_users(config);
        config["linux"]["gidMappings"] = json!([
            {"containerID": 0, "hostID": 200_000, "size": 10},
            {"containerID": 10, "hostID": 300_000, "size": 10},
        ]);
    });
    open_to_others(&bundle);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
    std::fs::set_permissions(bundle.rootfs("/tmp"), mode).unwrap();
    let seen = home.run(&bundle).ok();
    let words: Vec<&str> = seen.split_whitespace().collect();
    let expected = [
        "0", "100000", "65536", "0", "200000", "10", "10", "300000", "10", "0",
    ];
    assert_eq!(words, expected);
    let made = bundle.rootfs("/tmp/made").metadata().unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), 100_000);
    assert_eq!(std::os::unix::fs::MetadataExt::gid(&made), 200_000);
}

#[test]
fn a_cgroup_namespace_begins_at_the_containers_own_cgroup() {
    need!(root, cgroup2);
    let script = "grep ^0:: /proc/self/cgroup; grep ' /sys/fs/cgroup ' /proc/self/mountinfo; mkdir /sys/fs/cgroup/x 2>/dev/null || echo denied";
    let seen = inside(script, |config| {
        add(config, "/linux/namespaces", json!({"type": "cgroup"}));
        add(
            config,
            "/mounts",
            json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                   "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}),
        );
    });
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!((lines[0], lines[2]), ("0::/", "denied"));
    let mount = super::at(&super::mounted(lines[1]), "/sys/fs/cgroup").clone();
    assert_eq!(mount.kind, "cgroup2");
    assert!(mount.options.contains(&"ro".to_owned()), "{mount:?}");
}

#[test]
fn without_a_cgroup_namespace_the_containers_own_directory_is_shown() {
    need!(root, cgroup2);
    // The shell reads by itself: nobody else is there, or on the way.
    let script = "n=0; while read -r _; do n=$((n + 1)); done </sys/fs/cgroup/cgroup.procs; echo $n; \
                  mkdir /sys/fs/cgroup/x 2>/dev/null || echo denied";
    let seen = inside(script, |config| {
        add(
            config,
            "/mounts",
            json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}),
        );
    });
    assert_eq!(seen, "1\ndenied");
}

#[test]
fn the_first_process_of_a_pid_namespace_is_one_and_alone() {
    need!(root, cgroup2);
    let seen = inside("echo $$; ps | wc -l", |_| {});
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[0], "1");
}

#[test]
fn loopback_is_up_in_a_new_network_namespace() {
    need!(root, cgroup2);
    let seen = inside("busybox ip -o addr show lo", |_| {});
    assert!(seen.contains("127.0.0.1/8"), "{seen}");
}

#[test]
fn one_more_program_is_in_all_namespaces_of_its_container() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::new(&["sleep", "1000"]).with(|config| {
        with_users(config);
        for kind in ["cgroup", "time"] {
            add(config, "/linux/namespaces", json!({"type": kind}));
        }
    });
    let id = home.id();
    home.start(&bundle, &id);
    let pid = home.pid(&id);
    eventually("the program", || {
        std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ends_with("busybox"))
    });
    let seen = home.bulkhead(["exec", &id, "sh", "-c", LINKS]).ok();
    for (line, (kind, file)) in seen.lines().zip(KINDS) {
        let theirs = std::fs::read_link(format!("/proc/{pid}/ns/{file}")).unwrap();
        assert_eq!(line, theirs.to_str().unwrap(), "{kind}");
    }
}

#[test]
fn a_new_user_namespace_and_a_network_of_the_hosts_go_together() {
    need!(root, cgroup2);
    let holder = Holder::new(&["-n"]);
    let path = holder.path("net");
    let script = "readlink /proc/self/ns/net; cat /proc/self/uid_map; id -u";
    let seen = inside(script, |config| {
        with_users(config);
        join(config, "network", &path);
    });
    let words: Vec<&str> = seen.split_whitespace().collect();
    assert_eq!(
        words,
        [&holder.namespace("net"), "0", "100000", "65536", "0"]
    );
}

#[test]
fn in_a_user_namespace_all_of_the_tree_works() {
    need!(root, cgroup2);
    let home = Home::new();
    let script = "wc -c < /proc/keys; ls -A /hidden; touch /fixed/x 2>/dev/null || echo fixed
        readlink /etc/copied; cat /proc/sys/kernel/shmmni; cat /secret/file; hostname; ls -d /sys/kernel
        mkdir /t/a && echo made; cat /proc/sys/net/ipv4/ip_forward";
    let bundle = Bundle::shell(script).with(|config| {
        with_users(config);
        config["hostname"] = json!("inside");
        config["linux"]["sysctl"] = json!({"kernel.shmmni": "77", "net.ipv4.ip_forward": "1"});
        config["linux"]["maskedPaths"] = json!(["/proc/keys", "/hidden"]);
        config["linux"]["readonlyPaths"] = json!(["/proc/sys", "/fixed"]);
        for mount in [
            json!({"destination": "/etc/copied", "source": "dangling", "options": ["bind", "copy-symlink"]}),
            json!({"destination": "/secret", "source": "secret", "options": ["rbind", "ro"]}),
            json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro", "nosuid"]}),
            json!({"destination": "/t", "type": "tmpfs", "source": "t", "options": ["mode=700"]}),
        ] {
            add(config, "/mounts", mount);
        }
    });
    std::os::unix::fs::symlink("/no/target", bundle.path().join("dangling")).unwrap();
    std::fs::create_dir(bundle.path().join("secret")).unwrap();
    std::fs::write(bundle.path().join("secret/file"), "bound\n").unwrap();
    std::fs::create_dir(bundle.rootfs("/secret")).unwrap();
    std::fs::create_dir(bundle.rootfs("/t")).unwrap();
    for place in ["/hidden", "/fixed", "/etc"] {
        std::fs::create_dir_all(bundle.rootfs(place)).unwrap();
        std::os::unix::fs::chown(bundle.rootfs(place), Some(100_000), Some(100_000)).unwrap();
    }
    std::fs::write(bundle.rootfs("/hidden/file"), "").unwrap();
    let seen = home.run(&bundle).ok();
    let lines: Vec<&str> = seen.lines().collect();
    let expected = [
        "0",
        "fixed",
        "/no/target",
        "77",
        "bound",
        "inside",
        "/sys/kernel",
        "made",
        "1",
    ];
    assert_eq!(lines, expected);
}
