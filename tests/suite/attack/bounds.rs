//! Fields as long as they like, databases without an end, descriptors by every number: an answer comes, and it is exact.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use serde_json::json;

use crate::container::add;
use crate::container::owner::with_users;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::need::in_machine;
use crate::support::sentinel::Sentinel;

fn run(script: &str, change: impl FnOnce(&mut Value)) -> crate::support::home::Said {
    Home::new().run(&Bundle::shell(script).with(change))
}

#[test]
fn fields_beyond_sixteen_bits_of_length_arrive_whole() {
    need!(root, cgroup2);
    let long = "x".repeat(100_000);
    let seen = run("echo -n \"$LONG\" | wc -c", |config| {
        add(config, "/process/env", json!(format!("LONG={long}")));
    });
    assert_eq!(seen.ok(), "100000\n");
    let seen = run("echo -n \"$0\" | wc -c", |config| {
        add(config, "/process/args", json!(long));
    });
    assert_eq!(seen.ok(), "100000\n");
    let many = run("busybox env | grep -c ^MANY", |config| {
        for number in 0..10_000 {
            add(
                config,
                "/process/env",
                json!(format!("MANY{number}=0123456789")),
            );
        }
    });
    assert_eq!(many.ok(), "10000\n");
}

#[test]
fn what_the_kernel_takes_no_longer_is_refused_and_not_cut() {
    need!(root, cgroup2);
    let long = "x".repeat(200_000);
    let path = format!("/{}", "d/".repeat(4000));
    let name = "n".repeat(300);
    let changes: [&dyn Fn(&mut Value); 7] = [
        &|config: &mut Value| add(config, "/process/env", json!(format!("LONG={long}"))),
        &|config: &mut Value| add(config, "/process/args", json!(long)),
        &|config: &mut Value| config["process"]["cwd"] = json!(path),
        &|config: &mut Value| config["hostname"] = json!(name),
        &|config: &mut Value| config["domainname"] = json!(name),
        &|config: &mut Value| {
            add(
                config,
                "/mounts",
                json!({"destination": path, "type": "tmpfs", "source": "t"}),
            )
        },
        &|config: &mut Value| config["linux"]["sysctl"] = json!({"net.core.somaxconn": long}),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let said = run("echo it ran", change);
        assert_eq!(said.out, "", "{number}");
        assert!(said.failed().len() < 300_000, "{number}");
    }
}

#[test]
fn as_many_ranges_of_users_as_the_kernel_takes_are_mapped_and_no_more() {
    need!(root, cgroup2);
    let ranges = |count: u32| -> Value {
        let one =
            |number| json!({"containerID": number, "hostID": 100_000 + 2 * number, "size": 1});
        (0..count).map(one).collect()
    };
    let mapped = |count: u32| {
        run("wc -l < /proc/self/uid_map", |config| {
            with_users(config);
            config["linux"]["uidMappings"] = ranges(count);
            config["linux"]["gidMappings"] = ranges(count);
            config["mounts"][2]["options"] = json!(["newinstance", "ptmxmode=0666"]);
        })
    };
    // A page is all that the kernel takes at once: of lines this long there are fewer in it than the 340 that it allows.
    assert_eq!(mapped(300).ok(), "300\n");
    assert!(mapped(341).failed().contains("linux.uidMappings"));
}

#[test]
fn a_user_database_without_an_end_is_not_read_to_it() {
    need!(root, cgroup2);
    let bundle = Bundle::shell("echo $HOME")
        .with(|config| config["process"]["user"] = json!({"uid": 1000, "gid": 1000}));
    let database = bundle.rootfs("/etc/passwd");
    let entry = "guest:x:1000:1000::/found:/bin/sh\n";
    let home = Home::new();
    let homes = |content: &[u8]| {
        fs::write(&database, content).unwrap();
        home.run(&bundle).ok()
    };
    assert_eq!(homes(entry.as_bytes()), "/found\n");
    let line = format!("long:{}\n", "x".repeat(100_000));
    assert_eq!(homes(format!("{line}{entry}").as_bytes()), "/found\n");
    let endless = [entry.as_bytes(), &b"\n".repeat(2 << 20)].concat();
    assert_eq!(homes(&endless), "/\n");
    // A hole of many gigabytes takes no disk, and would take all memory.
    let file = fs::OpenOptions::new().write(true).open(&database).unwrap();
    file.set_len(64 << 30).unwrap();
    assert_eq!(home.run(&bundle).ok(), "/\n");
}

/// Every number of a descriptor; on an emulated processor every sixteenth.
fn numbers() -> impl Iterator<Item = u32> {
    (0..256).step_by(if in_machine() { 16 } else { 1 })
}

#[test]
fn no_descriptor_of_the_runtime_is_a_working_directory_of_a_run() {
    need!(root, cgroup2);
    let (home, sentinel) = (Home::new(), Sentinel::new());
    for number in numbers() {
        let bundle = Bundle::shell("pwd; ls ..").with(|config| {
            config["process"]["cwd"] = json!(format!("/proc/self/fd/{number}"));
        });
        let said = home.run(&bundle);
        assert_eq!(said.out, "", "{number}");
        said.failed();
    }
    sentinel.untouched();
}

#[test]
fn no_descriptor_of_the_runtime_is_a_working_directory_of_an_exec() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), Bundle::new(&["sleep", "1000"]));
    let id = home.id();
    home.start(&bundle, &id);
    for number in numbers() {
        let directory = format!("/proc/self/fd/{number}");
        let said = home.bulkhead(["exec", "--cwd", &directory, &id, "sh", "-c", "pwd; ls .."]);
        assert_eq!((said.status, said.out.as_str()), (255, ""), "{number}");
    }
}

#[test]
fn what_is_kept_of_a_workspace_is_for_its_owner_and_its_sockets_have_names_there() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), Bundle::new(&["sleep", "1000"]));
    let id = home.id();
    home.create(&bundle, &id);
    let own = home.root().join(&id);
    for directory in [home.root(), own.clone()] {
        let mode = directory.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}", directory.display());
    }
    let inside = fs::read_dir(&own).unwrap().flatten();
    let sockets = inside.filter(|entry| entry.file_type().unwrap().is_socket());
    assert!(
        sockets.count() >= 1,
        "start comes over a socket in the directory"
    );
    let all = fs::read_to_string("/proc/net/unix").unwrap();
    let abstract_ones = all
        .lines()
        .filter(|line| line.contains(" @") && line.contains(&id));
    assert_eq!(abstract_ones.count(), 0);
}
