//! ONE table of what a workspace must find and do, asked behind both walls: the same bundle, and the same answers.
//!
//! Each question is a shell command. All questions of a bundle are asked in one run, first in a container, then in a
//! microVM; whatever differs must stand in [`DIFFERENT`] with its reason. Outside the test machine no stock kernel boots,
//! so there the container's answers are compared with those that are expected alone.

mod commands;
pub(crate) mod different;
mod disks;
mod exercise;
mod network;

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;

use serde_json::Value;
use serde_json::json;

use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::home::eventually;
use crate::support::need::kvm;
use crate::support::need::machine;
use crate::support::wall;

/// A wall, by the word for it.
type Wall = &'static str;
const CONTAINER: Wall = "container";
const MICROVM: Wall = "microvm";

/// What a program asks: a name, the shell command, and the answer where it is known beforehand.
type Question = (&'static str, &'static str, Option<&'static str>);

/// Whatever may be asked differently answered, and why.
const DIFFERENT: &[(&str, &str)] = &[
    ("kernel", "a microVM has a kernel of its own"),
    (
        "root filesystem",
        "a microVM sees the host's files through virtio-fs",
    ),
];

/// Asked of a program with everything that a configuration can ask for a process.
const PROCESS: &[Question] = &[
    ("kernel", "uname -r", None),
    ("arguments", "echo \"$#/$1/$2/$3\"", Some("3/a  b//$c")),
    (
        "environment",
        "env | grep -v ^SHLVL | grep -v ^OLDPWD | grep -v ^PWD",
        None,
    ),
    ("one variable", "echo \"$GREETING\"", Some("hello you")),
    ("directory", "pwd", Some("/work")),
    ("user", "id -u; id -g", Some("1000\n1001")),
    ("groups", "grep Groups: /proc/self/status", None),
    ("home", "echo $HOME", Some("/tmp")),
    ("mask", "umask", Some("0027")),
    ("name", "hostname", Some("both")),
    ("capabilities", "grep ^Cap /proc/self/status", None),
    (
        "no new privileges",
        "grep ^NoNewPrivs /proc/self/status",
        Some("NoNewPrivs:\t1"),
    ),
    (
        "filter",
        "grep ^Seccomp: /proc/self/status",
        Some("Seccomp:\t2"),
    ),
    (
        "filtered call",
        "mkdir /tmp/d 2>&1; echo $?",
        Some("mkdir: can't create directory '/tmp/d': Operation not permitted\n1"),
    ),
    ("files limit", "ulimit -n; ulimit -Hn", Some("512\n1024")),
    ("core limit", "grep 'core file' /proc/self/limits", None),
    ("number", "echo $$", Some("1")),
    ("nobody else", "ls /proc | grep -c '^[0-9]'", None),
    (
        "blocked signals",
        "grep -E '^Sig(Blk|Ign)' /proc/self/status",
        None,
    ),
    (
        "a child killed",
        "exec 2>/dev/null; sh -c 'kill -9 $$'; echo $?",
        Some("137"),
    ),
    (
        "loopback",
        "ip addr show lo | grep -o 'inet 127[^ ]*'",
        Some("inet 127.0.0.1/8"),
    ),
    ("input", "wc -c", Some("300000")),
];

/// Asked of a program about the tree that it finds.
const TREE: &[Question] = &[
    ("mount points", "cut -d' ' -f5 /proc/self/mountinfo", None),
    (
        "root filesystem",
        "grep ' / ' /proc/self/mountinfo | sed 's/.* - //' | cut -d' ' -f1",
        None,
    ),
    ("devices", "ls /dev", None),
    (
        "null",
        "stat -c '%F %t:%T %a' /dev/null",
        Some("character special file 1:3 666"),
    ),
    (
        "masked",
        "exec 2>/dev/null; cat /proc/keys | wc -c; ls /proc/irq | wc -l",
        Some("0\n0"),
    ),
    (
        "read-only path",
        "touch /proc/sys/kernel/x 2>&1; echo $?",
        None,
    ),
    (
        "sysctl",
        "cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/shmmni",
        Some("77\n123"),
    ),
    (
        "tmpfs",
        "grep ' /scratch ' /proc/mounts | grep -o 'size=[^, ]*'; echo x >/scratch/x; cat /scratch/x",
        Some("size=1024k\nx"),
    ),
    ("tmpfs owner", "stat -c '%a %u' /scratch", Some("1777 0")),
    (
        "bound directory",
        "cat /data/given; echo made >/data/made; echo $?",
        Some("given\n0"),
    ),
    (
        "bound read-only",
        "cat /fixed/given; echo x 2>&1 >/fixed/new; echo $?",
        None,
    ),
    (
        "bound file",
        "cat /etc/one; echo more >>/etc/one; cat /etc/one",
        Some("one\none\nmore"),
    ),
    (
        "owner of a file",
        "stat -c '%u:%g %a' /data/owned",
        Some("1234:4321 640"),
    ),
    (
        "written root",
        "echo 1 >/written; mkdir -p /a/b; mv /written /a/b/moved; ls /a/b",
        Some("moved"),
    ),
    (
        "hard link",
        "cd /data; ln given other; stat -c %h given; rm other; stat -c %h given",
        Some("2\n1"),
    ),
    (
        "symbolic link",
        "ln -s ../etc/one /data/link; readlink /data/link",
        Some("../etc/one"),
    ),
    (
        "sparse file",
        "dd if=/dev/zero of=/data/sparse bs=1 count=1 seek=1048575 2>/dev/null; stat -c '%s' /data/sparse",
        Some("1048576"),
    ),
    (
        "renamed over an open file",
        "cd /data; echo old >f; echo new >g; (mv g f; cat) <f; cat f",
        Some("old\nnew"),
    ),
    (
        "removed while open",
        "cd /data; echo still >h; (rm h; cat) <h; ls h 2>&1",
        None,
    ),
    (
        "executable",
        "cp /bin/busybox /data/cat 2>/dev/null || cat /bin/busybox >/data/cat; chmod 755 /data/cat; echo ran | /data/cat",
        Some("ran"),
    ),
    (
        "mode",
        "chmod 4711 /data/cat; stat -c %a /data/cat; chown 5:6 /data/cat; stat -c '%u:%g' /data/cat",
        None,
    ),
    (
        "large file",
        "dd if=/dev/zero bs=65536 count=64 2>/dev/null >/data/large; wc -c </data/large",
        Some("4194304"),
    ),
];

/// A shell script that asks all questions, each answer behind its name.
fn script(questions: &[Question]) -> String {
    let asked = questions
        .iter()
        .map(|(name, command, _)| format!("echo '=== {name}'; ( {command} )\n"));
    asked.collect()
}

/// The answers by the names of the questions.
fn answers(text: &str) -> BTreeMap<String, String> {
    let parts = text.split("=== ").skip(1);
    let answers = parts.map(|part| {
        let (name, answer) = part.split_once('\n').unwrap_or((part, ""));
        (name.to_owned(), answer.trim_end().to_owned())
    });
    answers.collect()
}

/// The state root of a test, which finds the guests of the test machine.
pub(crate) fn home() -> Home {
    let home = Home::new();
    if machine().is_ok() && !wall::is_microvm() {
        wall::with_guests(&home.root());
    }
    home
}

/// The walls that can be asked on this machine.
fn walls() -> &'static [Wall] {
    match machine().and_then(|()| kvm()) {
        Ok(()) => &[CONTAINER, MICROVM],
        Err(_) => &[CONTAINER],
    }
}

/// Asks behind every wall, in a bundle made anew for each, with `input` to read.
#[track_caller]
fn ask(questions: &[Question], input: &str, bundle: impl Fn(&str) -> Bundle) {
    let mut before: Option<BTreeMap<String, String>> = None;
    for wall in walls() {
        let (home, bundle) = (home(), bundle(&script(questions)));
        let path = bundle.path().display().to_string();
        let id = home.id();
        let said = home.bulkhead_reading(&["run", "--isolation", wall, "-b", &path, &id], input);
        assert_eq!(said.err, "", "{wall}");
        let found = answers(&said.out);
        for (name, _, expected) in questions {
            let answer = found
                .get(*name)
                .unwrap_or_else(|| panic!("{wall}: no answer to {name}"));
            if let Some(expected) = expected {
                assert_eq!(answer, expected, "{wall}: {name}");
            }
        }
        if let Some(before) = &before {
            compare(before, &found);
        }
        before = Some(found);
    }
}

/// What differs stands in the table, and what stands in the table differs.
#[track_caller]
fn compare(one: &BTreeMap<String, String>, other: &BTreeMap<String, String>) {
    for (name, answer) in one {
        let excused = DIFFERENT.iter().any(|(excused, _)| excused == name);
        let same = other.get(name) == Some(answer);
        assert_eq!(
            same,
            !excused,
            "{name}: {answer:?} and {:?}",
            other.get(name)
        );
    }
}

#[test]
fn a_program_is_what_its_configuration_says_behind_both_walls() {
    need!(root, cgroup2);
    let input = "x".repeat(300_000);
    ask(PROCESS, &input, |script| {
        Bundle::new(&["/bin/sh", "-c", script, "sh", "a  b", "", "$c"]).with(|config| {
            config["hostname"] = json!("both");
            let process = &mut config["process"];
            process["cwd"] = json!("/work");
            process["user"] = json!({"uid": 1000, "gid": 1001, "additionalGids": [7], "umask": 0o027});
            process["rlimits"] = json!([
                {"type": "RLIMIT_NOFILE", "soft": 512, "hard": 1024},
                {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
            ]);
            let env = process["env"].as_array_mut().unwrap();
            env.push(json!("GREETING=hello you"));
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
            });
        })
    });
}

#[test]
fn a_tree_is_what_its_configuration_says_behind_both_walls() {
    need!(root, cgroup2);
    let shared = tempfile::tempdir().unwrap();
    ask(TREE, "", |script| {
        let there = tempfile::tempdir_in(&shared).unwrap().keep();
        fs::write(there.join("given"), "given\n").unwrap();
        fs::write(there.join("owned"), "").unwrap();
        fs::set_permissions(
            there.join("owned"),
            std::os::unix::fs::PermissionsExt::from_mode(0o640),
        )
        .unwrap();
        std::os::unix::fs::chown(there.join("owned"), Some(1234), Some(4321)).unwrap();
        fs::write(there.join("one"), "one\n").unwrap();
        let path = there.display().to_string();
        Bundle::shell(script).with(|config| {
            let mounts = config["mounts"].as_array_mut().unwrap();
            let bind = |to: &str, from: String, mode: &str| {
                json!({"destination": to, "type": "bind", "source": from, "options": ["rbind", mode]})
            };
            mounts.push(json!({"destination": "/scratch", "type": "tmpfs", "source": "tmpfs",
                               "options": ["size=1m", "mode=1777", "nosuid"]}));
            mounts.push(bind("/data", path.clone(), "rw"));
            mounts.push(bind("/fixed", path.clone(), "ro"));
            mounts.push(bind("/etc/one", format!("{path}/one"), "rw"));
            config["process"]["capabilities"] = all_capabilities();
            config["linux"]["maskedPaths"] = json!(["/proc/keys", "/proc/irq", "/proc/nothing"]);
            config["linux"]["sysctl"] =
                json!({"net.ipv4.ip_default_ttl": "77", "kernel.shmmni": "123"});
        })
    });
}

/// What a program needs to do as it likes with files.
fn all_capabilities() -> Value {
    let all = json!([
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_FSETID",
        "CAP_SETUID",
        "CAP_SETGID",
        "CAP_KILL"
    ]);
    json!({"bounding": all, "effective": all, "permitted": all})
}

/// A program that says what reaches it, and ends with 7 when it is told to terminate.
fn listener() -> Bundle {
    Bundle::shell(
        "trap 'echo got USR1' USR1; trap 'echo got TERM; exit 7' TERM; echo ready; while :; do sleep 1; done",
    )
}

/// A life as callers drive it, behind one wall.
#[track_caller]
fn live(wall: Wall) {
    let (home, bundle) = (home(), listener());
    let id = home.id();
    let log = home.beside("log");
    let read = || fs::read_to_string(&log).unwrap();
    let created = home
        .command()
        .args(["create", "--isolation", wall, "-b"])
        .arg(bundle.path())
        .args([
            "--pid-file".as_ref(),
            home.beside("pid").as_os_str(),
            id.as_ref(),
        ])
        .stdout(fs::File::create(&log).unwrap())
        .stderr(Stdio::inherit())
        .status()
        .unwrap();
    assert!(created.success(), "{wall}");
    assert_eq!(home.status(&id), "created", "{wall}");
    assert_eq!(read(), "", "{wall}: it ran before it was started");
    home.bulkhead(["start", &id]).ok();
    assert_eq!(home.status(&id), "running", "{wall}");
    let pid = fs::read_to_string(home.beside("pid")).unwrap();
    assert_eq!(pid, home.pid(&id).to_string(), "{wall}");
    eventually("its first word", || read().contains("ready"));
    one_more_program(&home, wall, &id);
    let listed = home.bulkhead(["ps", &id]).ok();
    assert!(listed.contains("sleep 1"), "{wall}: {listed}");
    home.bulkhead(["kill", &id, "USR1"]).ok();
    eventually("the signal", || read().contains("got USR1"));
    home.bulkhead(["pause", &id]).ok();
    assert_eq!(home.status(&id), "paused", "{wall}");
    home.bulkhead(["resume", &id]).ok();
    assert_eq!(home.status(&id), "running", "{wall}");
    home.bulkhead(["kill", &id]).ok();
    eventually("the end", || home.status(&id) == "stopped");
    assert!(read().contains("got TERM"), "{wall}: {}", read());
    home.bulkhead(["delete", &id]).ok();
    assert!(!home.root().join(&id).exists(), "{wall}");
}

/// `exec`, with its streams and its status.
#[track_caller]
fn one_more_program(home: &Home, wall: Wall, id: &str) {
    let more = home.bulkhead_reading(
        &[
            "exec",
            id,
            "sh",
            "-c",
            "cat; echo to stderr >&2; hostname; exit 5",
        ],
        "to stdin\n",
    );
    assert_eq!(
        (more.status, more.out.as_str(), more.err.as_str()),
        (5, "to stdin\nbulkhead\n", "to stderr\n"),
        "{wall}"
    );
    let killed = home.bulkhead(["exec", id, "sh", "-c", "kill -9 $$"]);
    assert_eq!(killed.status, 137, "{wall}");
    let missing = home.bulkhead(["exec", id, "nothing"]);
    let words = missing.failed();
    assert!(
        words.contains("executable file not found in $PATH"),
        "{wall}: {words}"
    );
}

#[test]
fn a_life_goes_the_same_way_behind_both_walls() {
    need!(root, cgroup2);
    for wall in walls() {
        live(wall);
    }
}

#[test]
fn what_fails_is_told_in_the_same_words_behind_both_walls() {
    need!(root, cgroup2);
    let words = |wall: &Wall, change: fn(&mut Value)| {
        let (home, bundle) = (home(), Bundle::shell("echo it ran").with(change));
        let id = home.id();
        let path = bundle.path().display().to_string();
        let said = home.bulkhead(["run", "--isolation", wall, "-b", &path, &id]);
        assert_eq!(said.out, "", "{wall}");
        assert!(
            !home.root().join(&id).exists(),
            "{wall}: it left its directory"
        );
        said.failed().replace(&id, "ID").replace(&path, "BUNDLE")
    };
    let cases: [fn(&mut Value); 2] = [
        |config| config["process"]["args"] = json!(["/bin/missing"]),
        |config| config["process"]["cwd"] = json!("/proc/1/root/../self/exe"),
    ];
    for change in cases {
        let said: Vec<String> = walls().iter().map(|wall| words(wall, change)).collect();
        assert!(said[0].contains("cannot run ID: "), "{said:?}");
        assert!(
            said.iter().all(|one| tail(one) == tail(&said[0])),
            "{said:?}"
        );
    }
}

/// A message without the number of the step, which is another in a guest.
fn tail(words: &str) -> &str {
    words.rsplit_once(" of ").map_or(words, |(_, tail)| {
        tail.split_once(": ").map_or(tail, |(_, rest)| rest)
    })
}

#[test]
fn a_machine_that_cannot_be_had_is_refused_in_one_sentence_and_nothing_is_made() {
    need!(root, cgroup2);
    // Where machines run there is no guest in this state root; elsewhere no guest would run.
    let (home, bundle) = (Home::new(), Bundle::shell("echo it ran"));
    let (id, path) = (home.id(), bundle.path().display().to_string());
    let said = home.bulkhead(["run", "--isolation", "microvm", "-b", &path, &id]);
    assert_eq!(said.out, "");
    assert_eq!(said.err.lines().count(), 1, "{}", said.err);
    let words = said.failed();
    assert!(words.contains("isolation: microvm: "), "{words}");
    assert!(!home.root().join(&id).exists());
    assert_eq!(home.bulkhead(["list", "-q"]).ok(), "");
}
