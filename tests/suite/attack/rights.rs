//! What a program may do, as the kernel says it, for twenty ways to become one; and devices, users, hidden paths.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;
use serde_json::json;

use crate::container::add;
use crate::container::owner::with_users;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;

/// What the kernel says of a program's rights.
const STATUS: &str =
    "grep -E '^(Umask|Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp):' /proc/self/status";

/// The rights of a program, by default those of root with the three capabilities of the bundle.
#[derive(Clone)]
struct Rights {
    umask: &'static str,
    uid: u32,
    gid: u32,
    groups: &'static str,
    inheritable: u64,
    permitted: u64,
    bounding: u64,
    ambient: u64,
    no_new_privileges: u32,
    seccomp: u32,
}

const ROOT: Rights = Rights {
    umask: "0022",
    uid: 0,
    gid: 0,
    groups: "",
    inheritable: 0,
    permitted: 0x2000_0420,
    bounding: 0x2000_0420,
    ambient: 0,
    no_new_privileges: 1,
    seccomp: 0,
};

const GUEST: Rights = Rights {
    uid: 1000,
    gid: 1000,
    permitted: 0,
    ..ROOT
};

const AMBIENT: Rights = Rights {
    permitted: 0x400,
    bounding: 0x400,
    inheritable: 0x400,
    ambient: 0x400,
    ..GUEST
};

const TRACED: Rights = Rights {
    permitted: 0x2008_0420,
    bounding: 0x2008_0420,
    ..ROOT
};

/// The five sets of capabilities.
const SETS: [&str; 5] = [
    "bounding",
    "effective",
    "permitted",
    "inheritable",
    "ambient",
];

impl Rights {
    fn text(&self) -> String {
        let Self {
            umask,
            uid,
            gid,
            groups,
            ..
        } = self;
        let ids = |id: &u32| vec![id.to_string(); 4].join("\t");
        let sets = [
            ("Inh", self.inheritable),
            ("Prm", self.permitted),
            ("Eff", self.permitted),
            ("Bnd", self.bounding),
            ("Amb", self.ambient),
        ];
        let sets = sets
            .map(|(name, set)| format!("Cap{name}:\t{set:016x}\n"))
            .concat();
        let (uid, gid) = (ids(uid), ids(gid));
        format!(
            "Umask:\t{umask}\nUid:\t{uid}\nGid:\t{gid}\nGroups:\t{groups} \n{sets}NoNewPrivs:\t{}\nSeccomp:\t{}\n",
            self.no_new_privileges, self.seccomp
        )
    }
}

fn guest(config: &mut Value) {
    config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
}

fn sets(config: &mut Value, which: &[&str], names: &Value) {
    for set in which {
        config["process"]["capabilities"][set] = names.clone();
    }
}

fn filtered(config: &mut Value) {
    config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["getcwd"], "action": "SCMP_ACT_ERRNO"}]});
}

fn users(config: &mut Value) {
    with_users(config);
    config["mounts"][2]["options"] = json!(["newinstance", "ptmxmode=0666"]);
}

fn open(config: &mut Value) {
    config["process"]["noNewPrivileges"] = json!(false);
}

/// What a bundle's change makes of its first program.
type Case = (&'static str, fn(&mut Value), Rights);

fn first_programs() -> [Case; 7] {
    [
        ("root", |_| {}, ROOT),
        ("a user", guest, GUEST),
        (
            "a user with groups",
            |config| {
                guest(config);
                config["process"]["user"]["additionalGids"] = json!([5, 6]);
            },
            Rights {
                groups: "5 6",
                ..GUEST
            },
        ),
        (
            "a mask for files",
            |config| config["process"]["user"]["umask"] = json!(0o077),
            Rights {
                umask: "0077",
                ..ROOT
            },
        ),
        (
            "no capabilities",
            |config| config["process"]["capabilities"] = json!({}),
            Rights {
                permitted: 0,
                bounding: 0,
                ..ROOT
            },
        ),
        (
            "ambient capabilities",
            |config| {
                guest(config);
                sets(config, &SETS, &json!(["CAP_NET_BIND_SERVICE"]));
            },
            AMBIENT,
        ),
        (
            "inheritable capabilities",
            |config| sets(config, &["inheritable"], &json!(["CAP_KILL"])),
            Rights {
                inheritable: 0x20,
                ..ROOT
            },
        ),
    ]
}

fn confined_programs() -> [Case; 6] {
    [
        (
            "new rights allowed",
            open,
            Rights {
                no_new_privileges: 0,
                ..ROOT
            },
        ),
        ("a filter", filtered, Rights { seccomp: 2, ..ROOT }),
        (
            "a filter, and new rights allowed",
            |config| {
                filtered(config);
                open(config);
            },
            Rights {
                seccomp: 2,
                no_new_privileges: 0,
                ..ROOT
            },
        ),
        (
            "a filter for a user, and new rights allowed",
            |config| {
                filtered(config);
                open(config);
                guest(config);
            },
            Rights {
                seccomp: 2,
                no_new_privileges: 0,
                ..GUEST
            },
        ),
        ("root of a user namespace", users, ROOT),
        (
            "a user of a user namespace",
            |config| {
                users(config);
                guest(config);
            },
            GUEST,
        ),
    ]
}

#[test]
fn a_first_program_has_the_rights_that_were_asked_for_and_no_more() {
    need!(root, cgroup2);
    let home = Home::new();
    for (name, change, rights) in first_programs().into_iter().chain(confined_programs()) {
        let seen = home.run(&Bundle::shell(STATUS).with(change)).ok();
        assert_eq!(seen, rights.text(), "{name}");
    }
}

/// What options make of one more program, in a bundle that was changed.
type More = (
    &'static str,
    fn(&mut Value),
    &'static [&'static str],
    Rights,
);

fn further_programs() -> [More; 8] {
    [
        ("exec", |_| {}, &[], ROOT),
        ("exec --cap", |_| {}, &["--cap", "CAP_SYS_PTRACE"], TRACED),
        ("exec --user", |_| {}, &["--user", "1000:1000"], GUEST),
        (
            "exec with groups",
            |_| {},
            &[
                "--user",
                "1000:1000",
                "--additional-gids",
                "5",
                "--additional-gids",
                "6",
            ],
            Rights {
                groups: "5 6",
                ..GUEST
            },
        ),
        ("exec of a user's container", guest, &[], GUEST),
        (
            "exec under a filter",
            filtered,
            &[],
            Rights { seccomp: 2, ..ROOT },
        ),
        ("exec in a user namespace", users, &[], ROOT),
        (
            "exec --user in a user namespace",
            users,
            &["--user", "1000:1000"],
            GUEST,
        ),
    ]
}

#[test]
fn one_more_program_has_the_rights_that_were_asked_for_and_no_more() {
    need!(root, cgroup2);
    let home = Home::new();
    for (name, change, options, rights) in further_programs() {
        let id = home.id();
        let bundle = Bundle::new(&["sleep", "1000"]).with(change);
        home.start(&bundle, &id);
        let mut words = vec!["exec"];
        words.extend(options);
        words.extend([id.as_str(), "sh", "-c", STATUS]);
        let seen = home.bulkhead(words).ok();
        assert_eq!(seen, rights.text(), "{name}");
        home.bulkhead(["delete", "--force", &id]).ok();
    }
}

#[test]
fn the_keys_of_a_program_are_its_own() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = home.id();
    let bundle =
        Bundle::shell("cat /proc/keys").with(|config| config["linux"]["maskedPaths"] = json!([]));
    let mut command = home.command();
    let ran = command
        .args(["run", "-b"])
        .arg(bundle.path())
        .arg(&id)
        .output();
    let keys = String::from_utf8(ran.unwrap().stdout).unwrap();
    assert!(keys.contains(&format!("_ses.{id}")), "{keys}");
}

/// Devices of the host that nobody allowed, as `mknod(1)` names them.
const NODES: [&str; 20] = [
    "c 1 1", "c 1 2", "c 1 4", "c 1 11", "c 4 0", "c 4 64", "c 10 130", "c 10 229", "c 10 232",
    "c 10 237", "c 10 238", "c 13 63", "c 29 0", "c 108 0", "c 189 0", "c 226 0", "b 1 0", "b 7 0",
    "b 8 0", "b 259 0",
];

#[test]
fn no_device_of_the_host_can_be_opened_that_was_not_allowed() {
    need!(root, cgroup2);
    let open = "mknod /dev/node $1 $2 $3 && { true </dev/node; } 2>&1; rm /dev/node";
    let script = format!(
        "one() {{ {open}; }}; {}; for d in null zero full random urandom; do true </dev/$d || echo no $d; done",
        NODES.map(|node| format!("one {node}")).join("; ")
    );
    let bundle = Bundle::shell(&script).with(|config| {
        for set in ["bounding", "effective", "permitted"] {
            add(
                config,
                &format!("/process/capabilities/{set}"),
                json!("CAP_MKNOD"),
            );
        }
    });
    let seen = Home::new().run(&bundle).ok();
    let refused = seen.matches("Operation not permitted").count();
    assert_eq!(
        (refused, seen.lines().count()),
        (NODES.len(), NODES.len()),
        "{seen}"
    );
}

#[test]
fn nobody_of_a_user_namespace_is_root_outside() {
    need!(root, cgroup2);
    let home = Home::new();
    let id = home.id();
    let script = "sleep 1000 & sleep 1000 & exec sleep 1000";
    let bundle = Bundle::shell(script).with(users);
    home.start(&bundle, &id);
    let mut detached = home.command();
    detached.args(["exec", "--detach", &id, "sleep", "1000"]);
    // It keeps its streams, and who reads them would wait for it.
    let quiet = detached.stdout(Stdio::null()).stderr(Stdio::null());
    assert!(quiet.status().unwrap().success());
    let all = || -> Vec<i32> {
        let listed = home.bulkhead(["ps", "--format", "json", &id]).ok();
        serde_json::from_str(&listed).unwrap()
    };
    crate::support::home::eventually("four processes", || all().len() == 4);
    for pid in all() {
        let own = PathBuf::from(format!("/proc/{pid}"));
        let status = fs::read_to_string(own.join("status")).unwrap();
        let ids = status
            .lines()
            .filter(|line| line.starts_with("Uid:") || line.starts_with("Gid:"));
        let ids: Vec<u32> = ids
            .flat_map(|line| line.split_ascii_whitespace().skip(1))
            .map(|id| id.parse().unwrap())
            .collect();
        assert!(
            ids.len() == 8 && ids.iter().all(|id| *id >= 100_000),
            "{status}"
        );
    }
}

#[test]
fn every_path_that_is_hidden_or_fixed_by_default_is() {
    need!(root, cgroup2);
    let home = Home::new();
    let starter = tempfile::tempdir().unwrap();
    home.bulkhead(["spec", "--bundle", starter.path().to_str().unwrap()])
        .ok();
    let text = fs::read(starter.path().join("config.json")).unwrap();
    let usual: Value = serde_json::from_slice(&text).unwrap();
    let list = |name: &str| -> Vec<String> {
        serde_json::from_value(usual["linux"][name].clone()).unwrap()
    };
    let (hidden, fixed) = (list("maskedPaths"), list("readonlyPaths"));
    assert!(
        hidden.len() >= 10 && fixed.len() >= 5,
        "{hidden:?} {fixed:?}"
    );
    let script = format!(
        "for p in {}; do [ -e $p ] || continue
           if [ -d $p ]; then [ -z \"$(ls -A $p)\" ] || echo seen $p; touch $p/x 2>/dev/null && echo made $p
           else [ -z \"$(cat $p)\" ] || echo seen $p; fi; busybox umount $p 2>/dev/null && echo gone $p; done
         for p in {}; do [ -e $p ] || continue
           for f in $(busybox find $p -type f -perm -200 | busybox head -n 40); do
             {{ : >>$f; }} 2>&1 | grep -q 'Read-only' || echo open $f; done
           busybox umount $p 2>/dev/null && echo gone $p; done; true",
        hidden.join(" "),
        fixed.join(" ")
    );
    let bundle = Bundle::shell(&script).with(|config| {
        config["linux"]["maskedPaths"] = json!(hidden);
        config["linux"]["readonlyPaths"] = json!(fixed);
        add(
            config,
            "/mounts",
            json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]}),
        );
    });
    assert_eq!(home.run(&bundle).ok(), "");
}

#[test]
fn cgroups_that_are_shown_read_only_are_with_a_namespace_of_their_own_and_without() {
    need!(root, cgroup2);
    for own in [true, false] {
        let script = "mkdir /sys/fs/cgroup/made 2>&1 | grep -c Read-only; grep ' /sys/fs/cgroup' /proc/mounts | cut -d ' ' -f 4";
        let bundle = Bundle::shell(script).with(|config| {
            add(
                config,
                "/mounts",
                json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                       "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}),
            );
            if own {
                add(config, "/linux/namespaces", json!({"type": "cgroup"}));
            }
        });
        let seen = Home::new().run(&bundle).ok();
        let lines: Vec<&str> = seen.lines().collect();
        assert_eq!(lines[0], "1", "{seen}");
        assert!(
            lines.len() > 1 && lines[1..].iter().all(|line| line.starts_with("ro,")),
            "{seen}"
        );
    }
}
