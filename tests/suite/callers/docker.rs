//! Docker Engine: `docker run --runtime` through a container's whole life, and the lines of others.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use super::HOME;
use super::IMAGE;
use super::Said;
use super::archive;
use super::ask;
use super::containerd::containerd;
use super::runtime;
use super::start_daemon;
use super::until;
use crate::need;
use crate::support::wall;

/// Starts the machine's one Docker Engine with our runtime as its default, unless it is there.
fn dockerd() {
    static STARTED: OnceLock<()> = OnceLock::new();
    STARTED.get_or_init(|| {
        containerd();
        let runtimes = serde_json::json!({
            "ours": { "path": runtime() },
            "loud": { "path": runtime(), "runtimeArgs": ["--debug"] },
            "machine": { "path": wall::machines() },
        });
        let settings = serde_json::json!({
            "runtimes": runtimes,
            "default-runtime": "ours",
            "iptables": false,
            "ip6tables": false,
            "containerd": "/run/containerd/containerd.sock",
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
        });
        let file = Path::new(HOME).join("daemon.json");
        fs::write(&file, settings.to_string()).unwrap();
        let file = file.to_string_lossy();
        let program = ["dockerd", "--log-level", "warn", "--config-file", &file];
        start_daemon(&program, "dockerd.log");
        until("dockerd answers", || {
            ask(Command::new("docker").arg("version")).status == Some(0)
        });
        ask(Command::new("docker")
            .arg("import")
            .arg(archive())
            .arg(IMAGE))
        .fine();
    });
}

fn docker(args: &[&str]) -> Said {
    dockerd();
    let mut command = Command::new("docker");
    // The Engine may be one that tests of the other wall have started.
    match args.split_first() {
        Some((&"run", rest)) if wall::is_microvm() => {
            command.args(["run", "--runtime", "machine"]).args(rest)
        }
        _ => command.args(args),
    };
    ask(&mut command)
}

/// A container that sleeps until it is removed with this value.
struct Sleeper(&'static str);

impl Sleeper {
    #[track_caller]
    fn new(name: &'static str, options: &[&str]) -> Self {
        let start = ["run", "--detach", "--network", "none", "--name", name];
        let program = [
            IMAGE,
            "sh",
            "-c",
            "trap 'exit 9' TERM; while :; do sleep 1; done",
        ];
        docker(&[&start, options, &program].concat()).fine();
        Self(name)
    }

    fn inspect(&self, what: &str) -> String {
        docker(&[
            "inspect",
            "--format",
            &format!("{{{{.State.{what}}}}}"),
            self.0,
        ])
        .fine()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        docker(&["rm", "--force", self.0]);
    }
}

/// Runs a shell command in a container that is removed afterwards.
fn once(options: &[&str], script: &str) -> Said {
    let start = ["run", "--rm", "--network", "none"];
    docker(&[&start, options, &[IMAGE, "sh", "-c", script]].concat())
}

#[test]
fn docker_gets_the_output_and_the_status_of_a_container() {
    need!(machine);
    let said = once(&[], "echo out; echo err >&2; exit 7");
    assert_eq!(said.status, Some(7), "{said}");
    assert_eq!((said.out.as_str(), said.err.as_str()), ("out\n", "err\n"));
}

#[test]
fn docker_knows_a_program_that_is_not_there_from_one_that_may_not_run() {
    need!(machine);
    let missing = docker(&["run", "--rm", "--network", "none", IMAGE, "/nonexistent"]);
    assert_eq!(missing.status, Some(127), "{missing}");
    let plain = docker(&["run", "--rm", "--network", "none", IMAGE, "/etc/passwd"]);
    assert_eq!(plain.status, Some(126), "{plain}");
    let absent = docker(&["run", "--rm", "--network", "none", IMAGE, "nowhere-in-path"]);
    assert_eq!(absent.status, Some(127), "{absent}");
}

#[test]
fn docker_gives_a_container_a_terminal() {
    need!(machine);
    let said = once(&["--tty"], "tty; exit 4");
    assert_eq!(
        (said.out.as_str(), said.status),
        ("/dev/pts/0\r\n", Some(4)),
        "{said}"
    );
}

#[test]
fn docker_execs_with_status_terminal_and_detached() {
    need!(machine);
    let sleeper = Sleeper::new("execs", &[]);
    let said = docker(&["exec", sleeper.0, "sh", "-c", "echo inside; exit 5"]);
    assert_eq!(
        (said.out.as_str(), said.status),
        ("inside\n", Some(5)),
        "{said}"
    );
    let said = docker(&["exec", "--tty", sleeper.0, "tty"]);
    assert!(said.out.starts_with("/dev/pts/"), "{said}");
    docker(&["exec", "--detach", sleeper.0, "touch", "/tmp/detached"]).fine();
    until("the detached process has made its file", || {
        docker(&["exec", sleeper.0, "ls", "/tmp/detached"]).status == Some(0)
    });
    let said = docker(&["exec", sleeper.0, "/nonexistent"]);
    assert!(said.out.contains("no such file or directory"), "{said}");
    let said = docker(&["exec", sleeper.0, "/etc/passwd"]);
    assert_eq!(said.status, Some(126), "{said}");
}

#[test]
fn docker_pauses_and_resumes() {
    need!(machine);
    let sleeper = Sleeper::new("pauses", &[]);
    docker(&["pause", sleeper.0]).fine();
    assert_eq!(sleeper.inspect("Status"), "paused");
    docker(&["unpause", sleeper.0]).fine();
    assert_eq!(sleeper.inspect("Status"), "running");
}

#[test]
fn docker_updates_limits_and_leaves_what_it_does_not_name() {
    need!(machine);
    let sleeper = Sleeper::new(
        "updates",
        &[
            "--pids-limit",
            "99",
            "--memory",
            "100m",
            "--memory-swap",
            "100m",
        ],
    );
    docker(&[
        "update",
        "--memory",
        "64m",
        "--memory-swap",
        "64m",
        "--cpus",
        "0.5",
        sleeper.0,
    ])
    .fine();
    let limits = "cd /sys/fs/cgroup; cat memory.max memory.swap.max cpu.max pids.max";
    let said = docker(&["exec", sleeper.0, "sh", "-c", limits]);
    assert_eq!(said.fine(), "67108864\n0\n50000 100000\n99");
}

#[test]
fn docker_stops_by_the_signal_that_the_program_handles() {
    need!(machine);
    let sleeper = Sleeper::new("stops", &[]);
    docker(&["kill", "--signal", "WINCH", sleeper.0]).fine();
    assert_eq!(sleeper.inspect("Status"), "running");
    docker(&["stop", "--time", "20", sleeper.0]).fine();
    assert_eq!(sleeper.inspect("ExitCode"), "9");
    docker(&["start", sleeper.0]).fine();
    docker(&["kill", sleeper.0]).fine();
    assert_eq!(docker(&["wait", sleeper.0]).fine(), "137");
}

#[test]
fn docker_counts_and_lists_processes() {
    need!(machine);
    let sleeper = Sleeper::new("counts", &["--memory", "100m"]);
    let memory = docker(&[
        "stats",
        "--no-stream",
        "--format",
        "{{.MemUsage}}",
        sleeper.0,
    ])
    .fine();
    assert!(memory.ends_with("/ 100MiB"), "{memory}");
    assert!(docker(&["top", sleeper.0]).fine().contains("trap"));
}

#[test]
fn docker_is_told_of_a_program_beyond_the_memory_of_its_container() {
    need!(machine);
    let options = ["--memory", "24m", "--memory-swap", "24m"];
    let start = ["run", "--network", "none", "--name", "greedy"];
    // The container outlives what was killed: a shim that is busy can miss what comes with the end.
    let program = [IMAGE, "sh", "-c", "tail /dev/zero; sleep 3; exit 3"];
    let said = docker(&[&start[..], &options, &program].concat());
    let killed = docker(&["inspect", "--format", "{{.State.OOMKilled}}", "greedy"]);
    docker(&["rm", "--force", "greedy"]);
    assert_eq!(said.status, Some(3), "{said}");
    assert_eq!(killed.fine(), "true");
}

#[test]
fn docker_networks_are_there_when_the_program_starts() {
    need!(machine);
    let said = docker(&["run", "--rm", IMAGE, "cat", "/proc/net/dev"]);
    assert!(said.out.contains("eth0"), "{said}");
}

#[test]
fn docker_privileged_containers_have_all_capabilities_and_devices() {
    need!(machine);
    let said = once(
        &["--privileged"],
        "grep CapEff /proc/self/status; ls /dev/nvme0n1",
    );
    assert_eq!(said.fine(), "CapEff:\t000001ffffffffff\n/dev/nvme0n1");
}

#[test]
fn docker_arguments_for_the_runtime_come_first() {
    need!(machine);
    let said = once(&["--runtime", "loud"], "echo hello");
    assert_eq!(
        (said.out.as_str(), said.status),
        ("hello\n", Some(0)),
        "{said}"
    );
}

#[test]
fn docker_runs_what_a_batch_system_asks_for() {
    need!(machine);
    let create = [
        "create",
        "--cpu-shares=100",
        "--memory=128m",
        "--cap-drop=all",
        "--cap-add=SYS_PTRACE",
        "--security-opt",
        "no-new-privileges",
        "--init",
        "--name",
        "HTCJob1_0_slot1_PID7",
        "--log-driver",
        "none",
        "-e",
        "GIVEN=yes",
        "--volume",
        "/var/tmp:/scratch",
        "--user",
        "3000:3000",
        "--group-add",
        "3001",
        "--hostname",
        "slot1",
        "--network",
        "none",
        "--workdir",
        "/scratch",
        IMAGE,
        "sh",
        "-c",
        "id; hostname; echo $GIVEN; pwd; grep CapBnd /proc/self/status; exit 5",
    ];
    docker(&create).fine();
    let said = docker(&["start", "-a", "HTCJob1_0_slot1_PID7"]);
    let code = docker(&[
        "inspect",
        "--format",
        "{{.State.ExitCode}}",
        "HTCJob1_0_slot1_PID7",
    ]);
    docker(&["rm", "-f", "-v", "HTCJob1_0_slot1_PID7"]).fine();
    let expected =
        "uid=3000 gid=3000 groups=3000,3001\nslot1\nyes\n/scratch\nCapBnd:\t0000000000080000\n";
    assert_eq!(
        (said.out.as_str(), said.status),
        (expected, Some(5)),
        "{said}"
    );
    assert_eq!(code.fine(), "5");
}
