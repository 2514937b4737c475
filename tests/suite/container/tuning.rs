//! How the program is run: limits, order of death, scheduling, memory placement, personality.

use serde_json::json;

use super::inside;
use super::refused;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;

#[test]
fn every_resource_limit_is_in_force() {
    need!(root, cgroup2, raising);
    let names = [
        ("AS", "Max address space"),
        ("CORE", "Max core file size"),
        ("CPU", "Max cpu time"),
        ("DATA", "Max data size"),
        ("FSIZE", "Max file size"),
        ("LOCKS", "Max file locks"),
        ("MEMLOCK", "Max locked memory"),
        ("MSGQUEUE", "Max msgqueue size"),
        ("NICE", "Max nice priority"),
        ("NOFILE", "Max open files"),
        ("NPROC", "Max processes"),
        ("RSS", "Max resident set"),
        ("RTPRIO", "Max realtime priority"),
        ("RTTIME", "Max realtime timeout"),
        ("SIGPENDING", "Max pending signals"),
        ("STACK", "Max stack size"),
    ];
    let limit = |index: usize| 100_000_000 + index;
    let seen = inside("cat /proc/self/limits", |config| {
        let all = names.iter().enumerate().map(|(index, (name, _))| {
            json!({"type": format!("RLIMIT_{name}"), "soft": limit(index), "hard": limit(index) + 50})
        });
        let all: Vec<_> = all
            .filter(|limit| limit["type"] != "RLIMIT_NOFILE")
            .collect();
        config["process"]["rlimits"] = json!(all);
        super::add(
            config,
            "/process/rlimits",
            json!({"type": "RLIMIT_NOFILE", "soft": 1009, "hard": 1059}),
        );
    });
    let line = |words: &str| seen.lines().find(|line| line.starts_with(words)).unwrap();
    let numbers = |words: &str| -> Vec<String> {
        let line = line(words)[words.len()..].split_whitespace();
        line.take(2).map(str::to_owned).collect()
    };
    assert_eq!(numbers("Max open files"), ["1009", "1059"]);
    let others = names
        .iter()
        .enumerate()
        .filter(|(_, (name, _))| *name != "NOFILE");
    for (index, (name, words)) in others {
        let expected = [limit(index).to_string(), (limit(index) + 50).to_string()];
        assert_eq!(numbers(words), expected, "{name}");
    }
}

#[test]
fn a_limit_can_be_no_limit() {
    need!(root, cgroup2);
    let seen = inside("grep 'Max core' /proc/self/limits", |config| {
        config["process"]["rlimits"] =
            json!([{"type": "RLIMIT_CORE", "soft": u64::MAX, "hard": u64::MAX}]);
    });
    assert_eq!(seen.matches("unlimited").count(), 2, "{seen}");
}

#[test]
fn the_order_of_death_is_set() {
    need!(root, cgroup2);
    let script = "cat /proc/self/oom_score_adj";
    let with = |score: i32| {
        inside(script, |config| {
            config["process"]["oomScoreAdj"] = json!(score)
        })
    };
    assert_eq!(with(777), "777");
    assert_eq!(with(1000), "1000");
}

#[test]
fn the_order_of_death_is_set_from_outside_in_a_user_namespace() {
    need!(root, cgroup2, raising);
    let script = "cat /proc/self/oom_score_adj";
    let in_user_namespace = inside(script, |config| {
        super::owner::with_users(config);
        config["process"]["oomScoreAdj"] = json!(-7);
    });
    assert_eq!(in_user_namespace, "-7");
}

#[test]
fn limits_beyond_the_rights_of_a_user_namespace_are_set_from_outside() {
    need!(root, cgroup2, raising);
    let seen = inside("grep 'Max processes' /proc/self/limits", |config| {
        super::owner::with_users(config);
        config["process"]["rlimits"] =
            json!([{"type": "RLIMIT_NPROC", "soft": 4_000_000, "hard": 4_000_000}]);
    });
    assert_eq!(seen.matches("4000000").count(), 2, "{seen}");
}

/// Nice value, real-time priority and policy.
const POLICY: &str = "cut -d' ' -f19,40,41 /proc/self/stat";

#[test]
fn the_scheduler_is_the_one_asked_for() {
    need!(root, cgroup2);
    let with = |scheduler: serde_json::Value| {
        inside(POLICY, |config| config["process"]["scheduler"] = scheduler)
    };
    assert_eq!(with(json!({"policy": "SCHED_OTHER", "nice": 5})), "5 0 0");
    assert_eq!(with(json!({"policy": "SCHED_BATCH", "nice": 3})), "3 0 3");
    assert_eq!(with(json!({"policy": "SCHED_IDLE"})), "0 0 5");
}

#[test]
fn a_scheduler_that_is_not_inherited_is_not() {
    need!(root, cgroup2);
    let script = format!("{POLICY}; cut -d' ' -f19,41 /proc/1/stat");
    let seen = inside(&script, |config| {
        config["process"]["scheduler"] =
            json!({"policy": "SCHED_BATCH", "nice": -2, "flags": ["SCHED_FLAG_RESET_ON_FORK"]});
    });
    assert_eq!(seen, "0 0 3\n-2 3");
}

#[test]
fn an_exec_has_a_scheduler_of_its_own() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), Bundle::new(&["sleep", "1000"]));
    let id = home.id();
    home.start(&bundle, &id);
    let seen = exec(
        &home,
        &id,
        &json!({
            "args": ["sh", "-c", POLICY], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0},
            "scheduler": {"policy": "SCHED_BATCH", "nice": 4},
        }),
    );
    assert_eq!(seen, "4 0 3\n");
}

fn exec(home: &Home, id: &str, process: &serde_json::Value) -> String {
    let file = home.beside("process.json");
    std::fs::write(&file, process.to_string()).unwrap();
    let args: [&std::ffi::OsStr; 4] = [
        "exec".as_ref(),
        "--process".as_ref(),
        file.as_ref(),
        id.as_ref(),
    ];
    home.bulkhead(args).ok()
}

#[test]
fn the_priority_of_io_is_the_one_asked_for() {
    need!(root, cgroup2);
    let with = |class: &str, priority: i32| {
        inside("busybox ionice -p $$", |config| {
            config["process"]["ioPriority"] = json!({"class": class, "priority": priority});
        })
    };
    assert_eq!(with("IOPRIO_CLASS_BE", 6), "best-effort: prio 6");
    assert_eq!(with("IOPRIO_CLASS_RT", 1), "realtime: prio 1");
    assert_eq!(with("IOPRIO_CLASS_IDLE", 0), "idle");
}

#[test]
fn an_exec_runs_on_the_cpus_that_it_is_given() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), Bundle::new(&["sleep", "1000"]));
    let id = home.id();
    home.start(&bundle, &id);
    let with = |affinity: serde_json::Value| {
        exec(
            &home,
            &id,
            &json!({
                "args": ["grep", "Cpus_allowed_list", "/proc/self/status"], "cwd": "/", "env": ["PATH=/bin"],
                "user": {"uid": 0, "gid": 0}, "execCPUAffinity": affinity,
            }),
        )
    };
    assert_eq!(
        with(json!({"initial": "0", "final": "1"})),
        "Cpus_allowed_list:\t1\n"
    );
    assert_eq!(with(json!({"final": "0"})), "Cpus_allowed_list:\t0\n");
}

#[test]
fn memory_comes_from_the_nodes_of_its_policy() {
    need!(root, cgroup2);
    let with = |policy: serde_json::Value| {
        inside(
            "busybox head -n 1 /proc/self/numa_maps | cut -d' ' -f2",
            |config| {
                config["linux"]["memoryPolicy"] = policy;
            },
        )
    };
    assert_eq!(with(json!({"mode": "MPOL_BIND", "nodes": "0"})), "bind:0");
    assert_eq!(
        with(json!({"mode": "MPOL_INTERLEAVE", "nodes": "0"})),
        "interleave:0"
    );
    assert_eq!(
        with(json!({"mode": "MPOL_PREFERRED", "nodes": "0"})),
        "prefer:0"
    );
    assert_eq!(with(json!({"mode": "MPOL_LOCAL"})), "local");
    let flags = json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]});
    assert_eq!(with(flags), "bind=static:0");
}

#[test]
fn a_memory_policy_of_nodes_that_are_not_there_is_refused() {
    need!(root, cgroup2);
    let words = refused(|config| {
        config["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "63"});
    });
    assert!(words.contains("set memory policy"), "{words}");
}

#[test]
fn a_personality_of_32_bits_is_seen_by_the_program() {
    need!(root, cgroup2);
    let seen = inside("uname -m", |config| {
        config["linux"]["personality"] = json!({"domain": "LINUX32"});
    });
    assert_eq!(seen, "i686");
}

#[test]
fn a_program_of_real_time_is_scheduled_so() {
    need!(root, cgroup2, real_time);
    let with = |scheduler: serde_json::Value| {
        inside(POLICY, |config| config["process"]["scheduler"] = scheduler)
    };
    assert_eq!(
        with(json!({"policy": "SCHED_FIFO", "priority": 10})),
        "0 10 1"
    );
    assert_eq!(
        with(json!({"policy": "SCHED_RR", "priority": 99})),
        "0 99 2"
    );
    let deadline = json!({
        "policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 50_000_000, "period": 100_000_000,
        "flags": ["SCHED_FLAG_RESET_ON_FORK"],
    });
    let seen = inside("cut -d' ' -f41 /proc/1/stat; true", |config| {
        config["process"]["scheduler"] = deadline;
    });
    assert_eq!(seen, "6");
}

#[test]
fn an_exec_has_all_that_its_process_says() {
    need!(root, cgroup2);
    let (home, bundle) = (Home::new(), Bundle::new(&["sleep", "1000"]));
    let id = home.id();
    home.start(&bundle, &id);
    let script = "id -u; id -g; grep Groups /proc/self/status; umask; pwd; echo $HOME; cat /proc/self/oom_score_adj
        busybox ionice -p $$; ulimit -n; ulimit -Hn";
    let seen = exec(
        &home,
        &id,
        &json!({
            "args": ["sh", "-c", script], "cwd": "/tmp", "env": ["PATH=/bin"],
            "user": {"uid": 1000, "gid": 1001, "umask": 0o027, "additionalGids": [9, 8]},
            "oomScoreAdj": 321, "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 2},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88}],
        }),
    );
    let words: Vec<&str> = seen.split_whitespace().collect();
    let expected = [
        "1000",
        "1001",
        "Groups:",
        "8",
        "9",
        "0027",
        "/tmp",
        "/tmp",
        "321",
        "best-effort:",
        "prio",
        "2",
        "77",
        "88",
    ];
    assert_eq!(words, expected);
}

#[test]
fn a_class_of_cache_is_refused_by_its_field_where_there_is_none_to_be_had() {
    need!(root, cgroup2);
    let home = Home::new();
    let bundle = Bundle::shell("echo it ran").with(|config| {
        config["linux"]["intelRdt"] = json!({"l3CacheSchema": "L3:0=1"});
    });
    let script = "umount /sys/fs/resctrl 2>/dev/null || true\n$RUN run -b $BUNDLE $ID";
    let mut command = super::elsewhere(&home, script);
    command.env("BUNDLE", bundle.path()).env("ID", home.id());
    let said: crate::support::home::Said = command.output().unwrap().into();
    assert_eq!(said.out, "");
    assert!(
        said.failed()
            .contains(": linux.intelRdt: resctrl is not mounted")
    );
    assert_eq!(home.bulkhead(["list", "-q"]).ok(), "");
}
