//! One more program in a workspace: what it is given, and what its caller is told.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::json;

use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::home::Said;
use crate::support::home::eventually;

fn sleeper() -> Bundle {
    Bundle::new(&["sleep", "1000"])
}

#[test]
fn exec_exits_as_its_program_does_and_with_255_when_there_is_none() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), sleeper());
    let id = home.id();
    home.start(&bundle, &id);
    assert_eq!(
        home.bulkhead(["exec", &id, "sh", "-c", "echo in; exit 3"])
            .status,
        3
    );
    assert_eq!(
        home.bulkhead(["exec", &id, "sh", "-c", "kill -TERM $$"])
            .status,
        143
    );
    let missing = home.bulkhead(["exec", &id, "/no/such"]);
    assert_eq!(missing.status, 255);
    assert!(
        missing.err.contains("no such file or directory"),
        "{}",
        missing.err
    );
    let missing = home.bulkhead(["exec", &id, "nosuch"]);
    assert!(
        missing.err.contains("executable file not found in $PATH"),
        "{}",
        missing.err
    );
    assert!(missing.err.contains("nosuch"), "{}", missing.err);
}

#[test]
fn exec_does_what_its_options_say() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), sleeper());
    let id = home.id();
    home.start(&bundle, &id);
    let script =
        "id -u; id -G; pwd; echo $X; grep -e CapInh -e CapEff -e NoNewPrivs /proc/self/status";
    let said = home.bulkhead([
        "exec",
        "--user",
        "1000:1001",
        "-g",
        "7",
        "--cwd",
        "/tmp",
        "--env",
        "X=y z",
        "--cap",
        "CAP_SYS_TIME",
        "--no-new-privs",
        &id,
        "sh",
        "-c",
        script,
    ]);
    let lines: Vec<String> = said.ok().lines().map(str::to_owned).collect();
    assert_eq!(lines[..4], ["1000", "1001 7", "/tmp", "y z"]);
    assert_eq!(lines[4], "CapInh:\t0000000000000000");
    assert_eq!(lines[6], "NoNewPrivs:\t1");
}

#[test]
fn a_user_that_is_no_number_is_refused() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), sleeper());
    let id = home.id();
    home.start(&bundle, &id);
    for word in [
        "root",
        "-1",
        "4294967296",
        "0x0",
        "",
        "1:",
        ":1",
        "4294967295",
    ] {
        let said = home.bulkhead(["exec", "--user", word, &id, "id"]);
        assert_eq!((said.status, said.out.as_str()), (255, ""), "{word}");
    }
}

#[test]
fn exec_takes_a_process_from_a_file_detached_with_a_pid_file() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), sleeper());
    let id = home.id();
    home.start(&bundle, &id);
    let process = json!({"args": ["sleep", "500"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}});
    let (file, pid_file) = (home.beside("process.json"), home.beside("exec.pid"));
    std::fs::write(&file, process.to_string()).unwrap();
    let mut command = home.command();
    command
        .args(["exec", "--process"])
        .arg(&file)
        .args(["--detach", "--pid-file"])
        .arg(&pid_file)
        .arg(&id);
    assert!(
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    );
    let pid = std::fs::read_to_string(&pid_file).unwrap();
    let listed = home.bulkhead(["ps", "--format", "json", &id]).ok();
    let listed: Vec<i32> = serde_json::from_str(&listed).unwrap();
    assert!(
        listed.contains(&pid.parse().unwrap()),
        "{pid} in {listed:?}"
    );
}

/// Which cgroup the program of an `exec` is in, as the host sees it.
fn group_of_exec(home: &Home, id: &str, options: &[&str]) -> Said {
    let mut args = vec!["exec"];
    args.extend(options);
    args.extend([id, "sed", "-n", "s/^0:://p", "/proc/self/cgroup"]);
    home.bulkhead(args)
}

/// The directory of a workspace's cgroup.
fn group(home: &Home, id: &str) -> PathBuf {
    std::fs::read_link(home.root().join(id).join("cgroup")).unwrap()
}

#[test]
fn exec_is_born_in_the_cgroup_or_in_one_below_it() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), sleeper());
    let id = home.id();
    home.start(&bundle, &id);
    let group = group(&home, &id);
    std::fs::create_dir(group.join("below")).unwrap();
    assert!(group_of_exec(&home, &id, &[]).ok().trim().ends_with(&id));
    let below = group_of_exec(&home, &id, &["--cgroup", "below"]).ok();
    assert!(below.trim().ends_with(&format!("{id}/below")), "{below}");
    for outside in ["..", "../..", "none", "below/../.."] {
        let said = group_of_exec(&home, &id, &["--cgroup", outside]);
        assert_eq!((said.status, said.out.as_str()), (255, ""), "{outside}");
    }
}

#[test]
fn exec_goes_where_the_first_process_went_when_its_cgroup_has_limited_children() {
    need!(root, limits);
    let (home, bundle) = (Home::new(), sleeper());
    let id = home.id();
    home.start(&bundle, &id);
    let group = group(&home, &id);
    std::fs::create_dir(group.join("init")).unwrap();
    std::fs::write(group.join("init/cgroup.procs"), home.pid(&id).to_string()).unwrap();
    std::fs::write(group.join("cgroup.subtree_control"), "+pids").unwrap();
    let inside = group_of_exec(&home, &id, &[]).ok();
    assert!(inside.trim().ends_with(&format!("{id}/init")), "{inside}");
    home.bulkhead(["delete", "--force", &id]).ok();
    assert!(!group.exists());
}

#[test]
fn a_workspace_without_a_cgroup_of_its_own_lives_and_ends_too() {
    need!(root);
    let (home, bundle) = (Home::new(), sleeper());
    let id = home.id();
    let mut command = home.command();
    command
        .args([
            "--cgroup-manager",
            "disabled",
            "create",
            "--no-new-keyring",
            "-b",
        ])
        .arg(bundle.path())
        .arg(&id);
    assert!(
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    );
    home.bulkhead(["start", &id]).ok();
    assert_eq!(home.bulkhead(["exec", &id, "echo", "in"]).ok(), "in\n");
    let pid = home.pid(&id);
    assert_eq!(
        home.bulkhead(["ps", "-f", "json", &id]).ok(),
        format!("[{pid}]\n")
    );
    let words = home.bulkhead(["pause", &id]).failed();
    assert!(words.contains("no cgroup of its own"), "{words}");
    assert!(words.contains("--cgroup-manager disabled"), "{words}");
    home.bulkhead(["kill", "--all", &id, "KILL"]).ok();
    eventually("its end", || home.status(&id) == "stopped");
    home.bulkhead(["delete", &id]).ok();
}
