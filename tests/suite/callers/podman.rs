//! podman and conmon: `podman --runtime` through a container's whole life.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use super::HOME;
use super::IMAGE;
use super::Said;
use super::archive;
use super::ask;
use super::runtime;
use super::until;
use crate::need;

/// A podman with a store of its own and our runtime, cgroups made by the runtime itself.
fn podman(args: &[&str]) -> Said {
    podman_with("cgroupfs", args)
}

fn podman_with(cgroup_manager: &str, args: &[&str]) -> Said {
    static IMPORTED: OnceLock<()> = OnceLock::new();
    IMPORTED.get_or_init(|| {
        let archive = archive().to_string_lossy();
        ask(bare("cgroupfs").args(["import", "--quiet", &archive, IMAGE])).fine();
    });
    ask(bare(cgroup_manager).args(args))
}

fn bare(cgroup_manager: &str) -> Command {
    let mut command = Command::new("podman");
    command
        .args([
            "--root",
            &format!("{HOME}/podman"),
            "--runroot",
            "/run/callers-podman",
        ])
        .args(["--runtime", &runtime(), "--cgroup-manager", cgroup_manager]);
    command
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
        podman(&[&start, options, &program].concat()).fine();
        Self(name)
    }

    fn state(&self) -> String {
        podman(&["inspect", "--format", "{{.State.Status}}", self.0]).fine()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        podman(&["rm", "--force", "--time", "0", self.0]);
    }
}

/// Runs a shell command in a container that is removed afterwards.
fn once(options: &[&str], script: &str) -> Said {
    let start = ["run", "--rm", "--network", "none"];
    podman(&[&start, options, &[IMAGE, "sh", "-c", script]].concat())
}

#[test]
fn podman_gets_the_output_and_the_status_of_a_container() {
    need!(machine);
    let said = once(&[], "echo out; echo err >&2; exit 7");
    assert_eq!(said.status, Some(7), "{said}");
    assert_eq!((said.out.as_str(), said.err.as_str()), ("out\n", "err\n"));
}

#[test]
fn podman_knows_a_program_that_is_not_there_from_one_that_may_not_run() {
    need!(machine);
    let missing = podman(&["run", "--rm", "--network", "none", IMAGE, "/nonexistent"]);
    assert_eq!(missing.status, Some(127), "{missing}");
    let plain = podman(&["run", "--rm", "--network", "none", IMAGE, "/etc/passwd"]);
    assert_eq!(plain.status, Some(126), "{plain}");
    let absent = podman(&["run", "--rm", "--network", "none", IMAGE, "nowhere-in-path"]);
    assert_eq!(absent.status, Some(127), "{absent}");
}

#[test]
fn podman_gives_a_container_a_terminal() {
    need!(machine);
    let said = once(&["--tty"], "tty; exit 4");
    assert_eq!(
        (said.out.as_str(), said.status),
        ("/dev/pts/0\r\n", Some(4)),
        "{said}"
    );
}

#[test]
fn podman_execs_with_status_terminal_and_detached() {
    need!(machine);
    let sleeper = Sleeper::new("execs", &[]);
    let said = podman(&["exec", sleeper.0, "sh", "-c", "echo inside; exit 5"]);
    assert_eq!(
        (said.out.as_str(), said.status),
        ("inside\n", Some(5)),
        "{said}"
    );
    let said = podman(&["exec", "--tty", sleeper.0, "tty"]);
    assert!(said.out.starts_with("/dev/pts/"), "{said}");
    podman(&["exec", "--detach", sleeper.0, "touch", "/tmp/detached"]).fine();
    until("the detached process has made its file", || {
        podman(&["exec", sleeper.0, "ls", "/tmp/detached"]).status == Some(0)
    });
    let said = podman(&["exec", sleeper.0, "/nonexistent"]);
    assert_eq!(said.status, Some(127), "{said}");
    let said = podman(&["exec", sleeper.0, "/etc/passwd"]);
    assert_eq!(said.status, Some(126), "{said}");
    let said = podman(&[
        "exec",
        "--user",
        "7:8",
        "--workdir",
        "/tmp",
        sleeper.0,
        "sh",
        "-c",
        "id -u; pwd",
    ]);
    assert_eq!(said.fine(), "7\n/tmp");
}

#[test]
fn podman_pauses_and_resumes() {
    need!(machine);
    let sleeper = Sleeper::new("pauses", &[]);
    podman(&["pause", sleeper.0]).fine();
    assert_eq!(sleeper.state(), "paused");
    podman(&["unpause", sleeper.0]).fine();
    assert_eq!(sleeper.state(), "running");
}

#[test]
fn podman_updates_limits_of_a_running_container() {
    need!(machine);
    let sleeper = Sleeper::new("updates", &["--memory", "100m"]);
    let limits = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max";
    podman(&["update", "--memory", "64m", "--pids-limit", "77", sleeper.0]).fine();
    assert_eq!(
        podman(&["exec", sleeper.0, "sh", "-c", limits]).fine(),
        "67108864\n77"
    );
}

#[test]
fn podman_stops_by_the_signal_that_the_program_handles() {
    need!(machine);
    let sleeper = Sleeper::new("stops", &[]);
    podman(&["kill", "--signal", "WINCH", sleeper.0]).fine();
    assert_eq!(sleeper.state(), "running");
    podman(&["stop", "--time", "20", sleeper.0]).fine();
    assert_eq!(
        podman(&["inspect", "--format", "{{.State.ExitCode}}", sleeper.0]).fine(),
        "9"
    );
    podman(&["start", sleeper.0]).fine();
    podman(&["kill", sleeper.0]).fine();
    assert_eq!(podman(&["wait", sleeper.0]).fine(), "137");
}

#[test]
fn podman_removes_a_running_container_and_its_name_is_free_again() {
    need!(machine);
    let sleeper = Sleeper::new("removed", &[]);
    podman(&["rm", "--force", "--time", "0", sleeper.0]).fine();
    let again = Sleeper::new("removed", &[]);
    assert_eq!(again.state(), "running");
}

#[test]
fn podman_counts_and_lists_processes() {
    need!(machine);
    let sleeper = Sleeper::new("counts", &["--memory", "100m"]);
    let memory = podman(&[
        "stats",
        "--no-stream",
        "--format",
        "{{.MemLimit}}",
        sleeper.0,
    ])
    .fine();
    assert_eq!(memory, "104857600");
    assert!(podman(&["top", sleeper.0, "args"]).fine().contains("trap"));
}

#[test]
fn podman_hands_through_descriptors() {
    need!(machine);
    podman(&["image", "exists", IMAGE]).fine();
    let file = Path::new(HOME).join("handed");
    fs::write(&file, "from descriptor 3\n").unwrap();
    let script = format!(
        "exec 3<{}; exec podman --root {HOME}/podman --runroot /run/callers-podman --runtime {} \
         --cgroup-manager cgroupfs run --rm --network none --preserve-fds 1 {IMAGE} sh -c 'cat <&3'",
        file.display(),
        runtime(),
    );
    assert_eq!(
        ask(Command::new("sh").args(["-c", &script])).fine(),
        "from descriptor 3"
    );
}

#[test]
fn podman_limits_users_mounts_and_kernel_settings_hold() {
    need!(machine);
    let options = [
        "--user=3000:3001",
        "--group-add=3002",
        "--hostname=named",
        "--read-only",
        "--tmpfs=/scratch",
        "--volume=/etc/os-release:/etc/given:ro",
        "--ulimit=nofile=123:456",
        "--cap-drop=all",
        "--sysctl=net.ipv4.ip_default_ttl=77",
        "--security-opt=no-new-privileges",
        "--pids-limit=55",
        "--oom-score-adj=300",
        "--env=GIVEN=yes",
        "--workdir=/tmp",
    ];
    let script = "id; hostname; touch /x 2>&1; touch /scratch/y && echo wrote; \
        grep -c ^ID= /etc/given; ulimit -Sn; ulimit -Hn; grep -E 'CapEff|NoNewPrivs' /proc/self/status; \
        cat /proc/sys/net/ipv4/ip_default_ttl /sys/fs/cgroup/pids.max /proc/self/oom_score_adj; \
        echo $GIVEN; pwd";
    let expected = "uid=3000(3000) gid=3001(3001) groups=3001(3001),3002\nnamed\ntouch: /x: Read-only file system\nwrote\n\
        1\n123\n456\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\n77\n55\n300\nyes\n/tmp";
    assert_eq!(once(&options, script).fine(), expected);
}

#[test]
fn podman_gets_137_from_a_container_beyond_its_memory() {
    need!(machine);
    let said = once(
        &["--memory=24m", "--memory-swap=24m"],
        "cat /dev/zero | tail -c 200m; exec tail /dev/zero",
    );
    assert_eq!(said.status, Some(137), "{said}");
}

#[test]
fn podman_privileged_containers_have_all_capabilities_and_devices() {
    need!(machine);
    let said = once(
        &["--privileged"],
        "grep CapEff /proc/self/status; ls /dev/nvme0n1",
    );
    assert_eq!(said.fine(), "CapEff:\t000001ffffffffff\n/dev/nvme0n1");
}

#[test]
fn podman_devices_are_given_one_by_one() {
    need!(machine);
    ask(Command::new("modprobe").arg("fuse"));
    let script = "dd if=/dev/nvme0n1 of=/dev/null count=1 2>/dev/null && echo read; \
        mknod /dev/other b 259 0 2>/dev/null; dd if=/dev/other of=/dev/null count=1 2>&1 | tail -1";
    let said = once(&["--device=/dev/nvme0n1:/dev/nvme0n1:r"], script);
    assert!(said.out.starts_with("read\n"), "{said}");
}

#[test]
fn podman_joins_containers_of_a_pod() {
    need!(machine);
    podman(&[
        "pod",
        "create",
        "--name",
        "pod",
        "--network",
        "none",
        "--share",
        "ipc,net,uts",
    ])
    .fine();
    let first = podman(&[
        "run",
        "--rm",
        "--pod",
        "pod",
        IMAGE,
        "readlink",
        "/proc/self/ns/net",
    ]);
    let second = podman(&[
        "run",
        "--rm",
        "--pod",
        "pod",
        IMAGE,
        "readlink",
        "/proc/self/ns/net",
    ]);
    podman(&["pod", "rm", "--force", "--time", "0", "pod"]);
    assert_eq!(first.fine(), second.fine());
}

#[test]
fn podman_networks_are_joined_by_path() {
    need!(machine);
    let said = podman(&["run", "--rm", IMAGE, "cat", "/proc/net/dev"]);
    assert!(said.out.contains("eth0"), "{said}");
}

#[test]
fn podman_builds_an_image_with_a_command_of_its_own() {
    need!(machine);
    let context = Path::new(HOME).join("context");
    fs::create_dir_all(&context).unwrap();
    let recipe = format!("FROM {IMAGE}\nRUN echo built >/made\n");
    fs::write(context.join("Dockerfile"), recipe).unwrap();
    let context = context.to_string_lossy();
    podman(&[
        "build",
        "--network",
        "none",
        "--isolation",
        "oci",
        "--tag",
        "made:1",
        &context,
    ])
    .fine();
    assert_eq!(
        podman(&["run", "--rm", "--network", "none", "made:1", "cat", "/made"]).fine(),
        "built"
    );
}

#[test]
fn podman_checkpoints_and_restores_a_process_that_goes_on_counting() {
    need!(machine);
    let script = "i=0; while :; do i=$((i + 1)); echo $i >/tmp/next; mv /tmp/next /tmp/count; sleep 0.1; done";
    podman(&[
        "run",
        "--detach",
        "--network",
        "none",
        "--name",
        "counter",
        IMAGE,
        "sh",
        "-c",
        script,
    ])
    .fine();
    let count = || -> Option<u32> {
        podman(&["exec", "counter", "cat", "/tmp/count"])
            .out
            .trim()
            .parse()
            .ok()
    };
    until("it has counted", || count().is_some_and(|count| count > 3));
    let checkpointed = podman(&["container", "checkpoint", "counter"]);
    let restored = podman(&["container", "restore", "counter"]);
    let after = count();
    podman(&["rm", "--force", "--time", "0", "counter"]);
    checkpointed.fine();
    restored.fine();
    assert!(after > Some(3), "counted on from {after:?}");
}

#[test]
fn podman_scopes_are_systemds_when_it_is_asked() {
    need!(machine);
    let start = [
        "run",
        "--detach",
        "--network",
        "none",
        "--memory",
        "100m",
        "--name",
        "scoped",
    ];
    let run = podman_with("systemd", &[&start[..], &[IMAGE, "sleep", "1000"]].concat());
    let cgroup = podman_with(
        "systemd",
        &["inspect", "--format", "{{.State.CgroupPath}}", "scoped"],
    );
    let path = cgroup.out.trim().to_owned();
    let scope = path
        .split('/')
        .find(|part| part.ends_with(".scope"))
        .unwrap_or("none")
        .to_owned();
    let shown =
        ask(Command::new("systemctl").args(["show", "--property=MemoryMax,ActiveState", &scope]));
    let exec = podman_with("systemd", &["exec", "scoped", "echo", "inside"]);
    podman_with("systemd", &["rm", "--force", "--time", "0", "scoped"]);
    run.fine();
    assert_eq!(exec.fine(), "inside");
    assert_eq!(
        shown.fine(),
        "MemoryMax=104857600\nActiveState=active",
        "{path}"
    );
}

#[test]
fn podman_flags_for_the_runtime_come_first() {
    need!(machine);
    let said = podman(&[
        "--runtime-flag",
        "debug",
        "run",
        "--rm",
        "--network",
        "none",
        IMAGE,
        "echo",
        "hello",
    ]);
    assert_eq!(
        (said.out.as_str(), said.status),
        ("hello\n", Some(0)),
        "{said}"
    );
}
