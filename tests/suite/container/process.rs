//! What the program is: its user and groups, its environment, its directory, its files.

use serde_json::json;

use super::inside;
use super::refused;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::home::Said;
use crate::support::wall;

#[test]
fn the_program_has_its_user_and_all_its_groups() {
    need!(root, cgroup2);
    let seen = inside("id -u; id -g; grep Groups /proc/self/status", |config| {
        config["process"]["user"] = json!({"uid": 1000, "gid": 1001, "additionalGids": [7, 70000]});
    });
    let words: Vec<&str> = seen.split_whitespace().collect();
    assert_eq!(words, ["1000", "1001", "Groups:", "7", "70000"]);
}

#[test]
fn no_group_of_the_caller_is_left() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), Bundle::shell("grep Groups /proc/self/status"));
    let plain = home.command();
    let mut command = std::process::Command::new("setpriv");
    command.args(["--groups", "4,20"]).arg(plain.get_program());
    command.args(plain.get_args()).args(["run", "-b"]);
    let said: Said = command
        .arg(bundle.path())
        .arg(home.id())
        .output()
        .unwrap()
        .into();
    assert_eq!(said.ok().trim_end(), "Groups:");
}

#[test]
fn the_mask_for_new_files_is_the_one_asked_for_or_022() {
    need!(root, cgroup2);
    assert_eq!(inside("umask", |_| {}), "0022");
    let asked = inside("umask", |config| {
        config["process"]["user"]["umask"] = json!(0o077)
    });
    assert_eq!(asked, "0077");
}

#[test]
fn home_is_found_in_the_images_own_user_database() {
    need!(root, cgroup2);
    let script = "echo $HOME";
    assert_eq!(inside(script, |_| {}), "/root");
    let guest = |uid: u32| {
        inside(script, |config| {
            config["process"]["user"]["uid"] = json!(uid)
        })
    };
    assert_eq!(guest(1000), "/tmp");
    assert_eq!(guest(4711), "/");
}

#[test]
fn a_home_of_the_configuration_stays_and_an_empty_one_does_not() {
    need!(root, cgroup2);
    let with = |home: &str| {
        let entry = format!("HOME={home}");
        inside("echo $HOME", |config| {
            config["process"]["env"] = json!(["PATH=/bin", entry])
        })
    };
    assert_eq!(with("/elsewhere"), "/elsewhere");
    assert_eq!(with(""), "/root");
}

#[test]
fn a_user_database_that_is_a_pipe_does_not_hold_the_program_up() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::shell("echo $HOME");
    let database = bundle.rootfs("/etc/passwd");
    std::fs::remove_file(&database).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &database,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )
    .unwrap();
    assert_eq!(home.run(&bundle).ok(), "/\n");
}

#[test]
fn of_two_values_of_a_name_the_last_counts_and_it_is_there_once() {
    need!(root, cgroup2);
    let seen = inside("env | grep ^X=", |config| {
        config["process"]["env"] = json!(["X=1", "PATH=/bin", "X=2=3"]);
    });
    assert_eq!(seen, "X=2=3");
}

#[test]
fn nothing_of_the_callers_environment_comes_in() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::new(&["/bin/env"]).with(|config| {
        config["process"]["env"] = json!(["A=b"]);
    });
    let mut command = home.command();
    command.env("SECRET", "x").args(["run", "-b"]);
    let said: crate::support::home::Said = command
        .arg(bundle.path())
        .arg(home.id())
        .output()
        .unwrap()
        .into();
    assert_eq!(said.ok(), "A=b\nHOME=/root\n");
}

#[test]
fn the_directory_is_made_when_missing_and_entered() {
    need!(root, cgroup2);
    let seen = inside("pwd; stat -c %a /new/place", |config| {
        config["process"]["cwd"] = json!("/new/place");
    });
    assert_eq!(seen, "/new/place\n755");
}

#[test]
fn a_directory_that_only_the_programs_user_may_enter_is_entered() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::shell("pwd").with(|config| {
        config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        config["process"]["cwd"] = json!("/private");
    });
    let private = bundle.rootfs("/private");
    std::fs::create_dir(&private).unwrap();
    std::os::unix::fs::chown(&private, Some(1000), Some(1000)).unwrap();
    std::fs::set_permissions(
        &private,
        std::os::unix::fs::PermissionsExt::from_mode(0o700),
    )
    .unwrap();
    assert_eq!(home.run(&bundle).ok(), "/private\n");
}

#[test]
fn a_program_that_cannot_be_run_fails_the_creation_with_the_words_that_callers_know() {
    need!(root, cgroup2);
    let with = |program: &str| refused(|config| config["process"]["args"] = json!([program]));
    let missing = with("no-such-program");
    assert!(
        missing.contains("executable file not found in $PATH"),
        "{missing}"
    );
    assert!(missing.contains("\"no-such-program\""), "{missing}");
    let missing = with("/no/such/program");
    assert!(
        missing.contains("\"/no/such/program\": no such file or directory"),
        "{missing}"
    );
    let denied = with("/etc/passwd");
    assert!(
        denied.contains("\"/etc/passwd\": permission denied"),
        "{denied}"
    );
    let directory = with("/etc");
    assert!(directory.contains("permission denied"), "{directory}");
    let below = with("/etc/passwd/x");
    assert!(below.contains("not a directory"), "{below}");
}

#[test]
fn a_program_is_found_in_the_path_of_its_own_environment() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::new(&["own-name", "x"]).with(|config| {
        config["process"]["env"] = json!(["PATH=/none:/opt/own:/bin"]);
    });
    std::fs::create_dir_all(bundle.rootfs("/opt/own")).unwrap();
    let program = bundle.rootfs("/opt/own/own-name");
    std::fs::write(&program, "#!/bin/sh\necho found $0 $1\n").unwrap();
    std::fs::set_permissions(
        &program,
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    assert_eq!(home.run(&bundle).ok(), "found /opt/own/own-name x\n");
}

#[test]
fn a_program_with_a_relative_path_is_found_from_its_directory_on() {
    need!(root, cgroup2);
    let seen = inside("", |config| {
        config["process"]["cwd"] = json!("/bin");
        config["process"]["args"] = json!(["./busybox", "echo", "found"]);
    });
    assert_eq!(seen, "found");
}

#[test]
fn the_program_leads_a_session_and_has_no_signals_blocked_or_ignored() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::new(&["grep", "-E", "^(SigBlk|SigIgn|NSsid)", "/proc/self/status"]);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "trap '' HUP QUIT PIPE TERM; exec \"$@\"", "sh"]);
    command.arg(wall::program()).arg("--root").arg(home.root());
    command
        .args(["run", "-b"])
        .arg(bundle.path())
        .arg(home.id());
    let said: crate::support::home::Said = command.output().unwrap().into();
    let seen = said.ok();
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[0], "NSsid:\t1");
    assert_eq!(lines[1], "SigBlk:\t0000000000000000");
    let ignored = u64::from_str_radix(lines[2].trim_start_matches("SigIgn:\t"), 16).unwrap();
    // Also those that a C library keeps for itself, and has its children ignore.
    assert_eq!(ignored, 0, "{}", lines[2]);
}
