//! Images and configurations that want out: each is refused, and nothing of the host is changed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

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

fn sysfs(config: &mut Value) {
    add(
        config,
        "/mounts",
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]}),
    );
}

/// A bundle whose image has a link in the place of a directory, and where that link leads.
fn linked(home: &Home, place: &str, change: impl FnOnce(&mut Value)) -> (Bundle, PathBuf) {
    let outside = home.beside("outside");
    fs::create_dir_all(&outside).unwrap();
    let bundle = Bundle::shell("echo it ran").with(change);
    drop(fs::remove_dir_all(bundle.rootfs(place)));
    symlink(&outside, bundle.rootfs(place)).unwrap();
    (bundle, outside)
}

#[test]
fn proc_and_sys_must_be_ordinary_directories() {
    need!(root, cgroup2);
    let home = Home::new();
    for place in ["/proc", "/sys"] {
        let (bundle, outside) = linked(&home, place, sysfs);
        let words = home.run(&bundle).failed();
        assert!(
            words.contains("must be mounted on ordinary directory"),
            "{words}"
        );
        assert_eq!(fs::read_dir(outside).unwrap().count(), 0);
    }
}

#[test]
fn proc_behind_a_link_inside_the_image_is_refused_too() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::shell("echo it ran");
    fs::remove_dir(bundle.rootfs("/proc")).unwrap();
    fs::create_dir(bundle.rootfs("/other")).unwrap();
    symlink("other", bundle.rootfs("/proc")).unwrap();
    let words = home.run(&bundle).failed();
    assert!(
        words.contains("must be mounted on ordinary directory"),
        "{words}"
    );
}

#[test]
fn links_in_place_of_directories_change_nothing_outside() {
    need!(root, cgroup2);
    for place in ["/dev", "/etc", "/run", "/dev/pts", "/dev/shm", "/tmp"] {
        let home = Home::new();
        let (bundle, outside) = linked(&home, place, |config| {
            config["process"]["cwd"] = json!("/etc/made");
            add(
                config,
                "/mounts",
                json!({"destination": "/run/made", "type": "tmpfs", "source": "t"}),
            );
        });
        home.run(&bundle);
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{place}");
    }
}

#[test]
fn a_link_at_dev_without_a_mount_there_makes_no_device_outside() {
    need!(root, cgroup2);
    let home = Home::new();
    let (bundle, outside) = linked(&home, "/dev", |config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    });
    fs::write(outside.join("ptmx"), "marker").unwrap();
    home.run(&bundle);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(outside.join("ptmx")).unwrap(), "marker");
}

/// A bundle that brings a `/dev` of its own, with something in the place of the null device.
fn own_dev(script: &str, null: impl FnOnce(&std::path::Path)) -> Bundle {
    let bundle = Bundle::shell(script).with(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["destination"] == "/proc");
        config["linux"]["maskedPaths"] = json!(["/etc/secret"]);
    });
    fs::write(bundle.rootfs("/etc/secret"), "secret\n").unwrap();
    null(&bundle.rootfs("/dev/null"));
    bundle
}

#[test]
fn a_null_device_that_is_none_hides_nothing_and_is_refused() {
    need!(root, cgroup2);
    let before = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let home = Home::new();
    let zero = |place: &std::path::Path| {
        let device = rustix::fs::makedev(1, 5);
        let kind = rustix::fs::FileType::CharacterDevice;
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(rustix::fs::CWD, place, kind, mode, device).unwrap();
    };
    let bundles = [
        own_dev("echo it ran", |place| {
            symlink("/proc/sys/kernel/core_pattern", place).unwrap()
        }),
        own_dev("echo it ran", |place| symlink("/dev/zero", place).unwrap()),
        own_dev("echo it ran", |place| fs::write(place, "").unwrap()),
        own_dev("echo it ran", zero),
    ];
    for bundle in bundles {
        let said = home.run(&bundle);
        assert_eq!(said.out, "");
        let words = said.failed();
        assert!(words.contains("/dev/null"), "{words}");
    }
    let after = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    assert_eq!(before, after);
}

#[test]
fn a_directory_of_a_descriptor_is_no_working_directory() {
    need!(root, cgroup2);
    for number in 3..20 {
        let words = refused(|config| {
            config["process"]["cwd"] = json!(format!("/proc/self/fd/{number}"));
        });
        assert!(words.contains("/proc/self/fd/"), "{words}");
    }
}

#[test]
fn a_link_to_a_descriptor_is_no_working_directory() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle =
        Bundle::shell("echo it ran").with(|config| config["process"]["cwd"] = json!("/way"));
    symlink("/proc/self/fd/7", bundle.rootfs("/way")).unwrap();
    let said = home.run(&bundle);
    assert_eq!(said.out, "");
    said.failed();
}

#[test]
fn an_exec_enters_no_directory_of_a_descriptor() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), Bundle::new(&["sleep", "1000"]));
    let id = home.id();
    home.start(&bundle, &id);
    for number in 3..12 {
        let directory = format!("/proc/self/fd/{number}");
        let said = home.bulkhead(["exec", "--cwd", &directory, &id, "sh", "-c", "pwd; ls .."]);
        assert_eq!((said.status, said.out.as_str()), (255, ""), "{directory}");
    }
}

#[test]
fn the_runtime_does_not_run_itself_inside() {
    need!(root, cgroup2);
    for program in [
        "/proc/self/exe",
        "/proc/1/exe",
        "/proc/self/fd/3",
        "/proc/thread-self/exe",
    ] {
        let words = refused(|config| config["process"]["args"] = json!([program, "list"]));
        assert!(words.contains(program), "{words}");
    }
    let home = Home::new();
    let bundle = Bundle::new(&["/bin/way"]);
    symlink("/proc/self/exe", bundle.rootfs("/bin/way")).unwrap();
    home.run(&bundle).failed();
}

#[test]
fn a_script_interpreted_by_the_runtime_cannot_write_to_it() {
    need!(root, cgroup2);
    let home = Home::new();
    let file = PathBuf::from(env!("CARGO_BIN_EXE_bulkhead"));
    let before = file.metadata().unwrap();
    let bundle = Bundle::new(&["/bin/script", "--help"]);
    let script = bundle.rootfs("/bin/script");
    fs::write(&script, "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    home.run(&bundle);
    let sleeper = Bundle::new(&["sleep", "1000"]);
    let id = home.id();
    home.create(&sleeper, &id);
    let exe = PathBuf::from(format!("/proc/{}/exe", home.pid(&id)));
    for _ in 0..3 {
        let refused = fs::OpenOptions::new().write(true).open(&exe).unwrap_err();
        let number = refused.raw_os_error().unwrap();
        let all = [libc::EROFS, libc::ETXTBSY, libc::EPERM, libc::EACCES];
        assert!(all.contains(&number), "{refused}");
    }
    let after = file.metadata().unwrap();
    assert_eq!(
        (before.ino(), before.len(), before.mtime_nsec()),
        (after.ino(), after.len(), after.mtime_nsec())
    );
}

#[test]
fn the_file_of_the_runtime_is_on_a_read_only_mount_while_it_waits() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), Bundle::new(&["sleep", "1000"]));
    let id = home.id();
    home.create(&bundle, &id);
    let opened = fs::File::open(format!("/proc/{}/exe", home.pid(&id))).unwrap();
    let flags = rustix::fs::fstatvfs(&opened).unwrap().f_flag;
    assert!(flags.contains(rustix::fs::StatVfsMountFlags::RDONLY));
}

#[test]
fn a_process_is_hidden_until_it_is_its_program() {
    need!(root, cgroup2);
    let (home, bundle) = (
        Home::new(),
        Bundle::new(&["sleep", "1000"]).with(with_users),
    );
    let id = home.id();
    home.create(&bundle, &id);
    let own = PathBuf::from(format!("/proc/{}", home.pid(&id)));
    let owner = || own.join("fd").metadata().unwrap().uid();
    assert_eq!(owner(), 0, "what is not dumpable belongs to nobody inside");
    home.bulkhead(["start", &id]).ok();
    eventually("the program", || owner() == 100_000);
}

#[test]
fn nothing_is_mounted_over_what_the_kernel_says_of_itself() {
    need!(root, cgroup2);
    for place in [
        "/proc/self/attr",
        "/proc/sys",
        "/proc/sys/net",
        "/proc/self",
        "/proc/1",
    ] {
        let words = refused(|config| {
            add(
                config,
                "/mounts",
                json!({"destination": place, "type": "tmpfs", "source": "t"}),
            );
        });
        assert!(words.contains("inside /proc"), "{place}: {words}");
        let words = refused(|config| {
            add(
                config,
                "/mounts",
                json!({"destination": place, "source": ".", "options": ["bind"]}),
            );
        });
        assert!(words.contains("inside /proc"), "{place}: {words}");
    }
}

#[test]
fn links_do_not_lead_mounts_into_proc() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::shell("echo it ran").with(|config| {
        add(
            config,
            "/mounts",
            json!({"destination": "/way", "type": "tmpfs", "source": "t"}),
        );
    });
    symlink("/proc/sys/net", bundle.rootfs("/way")).unwrap();
    let words = home.run(&bundle).failed();
    assert!(words.contains("inside /proc"), "{words}");
}

#[test]
fn files_of_proc_that_only_describe_the_machine_may_be_replaced() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::shell("cat /proc/uptime").with(|config| {
        add(
            config,
            "/mounts",
            json!({"destination": "/proc/uptime", "source": "file", "options": ["bind"]}),
        );
    });
    fs::write(bundle.path().join("file"), "1 2\n").unwrap();
    assert_eq!(home.run(&bundle).ok(), "1 2\n");
}

#[test]
fn a_hostile_console_is_refused_and_makes_nothing() {
    need!(root, cgroup2);
    let home = Home::new();
    let target = home.beside("target");
    let existing = home.beside("existing");
    fs::write(&existing, "text").unwrap();
    for leads_to in [&target, &existing] {
        let bundle = Bundle::shell("echo it ran").with(|config| {
            config["process"]["terminal"] = json!(true);
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.retain(|mount| mount["destination"] != "/dev");
        });
        fs::create_dir_all(bundle.rootfs("/dev/pts")).unwrap();
        symlink(leads_to, bundle.rootfs("/dev/console")).unwrap();
        let said = home.run(&bundle);
        assert_eq!(said.out, "");
        let words = said.failed();
        assert!(words.contains("terminal"), "{words}");
    }
    assert!(!target.exists());
    assert_eq!(fs::read_to_string(&existing).unwrap(), "text");
    assert_eq!(existing.metadata().unwrap().uid(), 0);
}

#[test]
fn a_console_must_come_from_a_devpts_of_the_containers_own() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::shell("echo it ran").with(|config| {
        config["process"]["terminal"] = json!(true);
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["destination"] != "/dev/pts" && mount["destination"] != "/dev");
    });
    fs::create_dir_all(bundle.rootfs("/dev/pts")).unwrap();
    fs::write(bundle.rootfs("/dev/pts/ptmx"), "").unwrap();
    let words = home.run(&bundle).failed();
    // Nothing is asked of what is none.
    let reason = "not the device that it should be";
    assert!(
        words.contains("terminal") && words.contains(reason),
        "{words}"
    );
}

#[test]
fn the_root_cannot_be_left_by_dots_or_old_directories() {
    need!(root, cgroup2);
    let seen = inside(
        "cd /../../..; pwd; ls / | wc -l; cd /proc/1/root; pwd -P; ls /proc/1/root | wc -l",
        |_| {},
    );
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!((lines[0], lines[1]), ("/", lines[3]));
}

#[test]
fn a_file_in_place_of_a_device_is_refused() {
    need!(root, cgroup2);
    let home = Home::new();
    let target = home.beside("target");
    fs::write(&target, "text").unwrap();
    for name in ["file", "link"] {
        let bundle = own_dev("echo it ran", |place| {
            let device = rustix::fs::makedev(1, 3);
            let kind = rustix::fs::FileType::CharacterDevice;
            let mode = rustix::fs::Mode::from_raw_mode(0o666);
            rustix::fs::mknodat(rustix::fs::CWD, place, kind, mode, device).unwrap();
        })
        .with(|config| {
            config["linux"]["devices"] =
                json!([{"path": format!("/dev/{name}"), "type": "c", "major": 1, "minor": 3, "uid": 7}]);
        });
        fs::write(bundle.rootfs("/dev/file"), "").unwrap();
        symlink(&target, bundle.rootfs("/dev/link")).unwrap();
        let said = home.run(&bundle);
        assert_eq!(said.out, "");
        let words = said.failed();
        assert!(
            words.contains(&format!("make device /dev/{name}")),
            "{words}"
        );
    }
    let after = target.metadata().unwrap();
    assert_eq!((after.len(), after.uid()), (4, 0));
}
