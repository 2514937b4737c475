//! The runtime's own file, and what of the runtime can be seen from inside while it works there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use serde_json::json;

use super::rounds;
use crate::need;
use crate::support::bundle::Bundle;
use crate::support::home::Home;
use crate::support::home::eventually;
use crate::support::sentinel::Sentinel;
use crate::support::sentinel::digest;

fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_bulkhead"))
}

#[test]
fn however_often_it_is_tried_the_runtime_cannot_be_written_to_through_its_process() {
    need!(root, cgroup2);
    let (home, bundle, sentinel) = (
        Home::new(),
        Bundle::new(&["sleep", "1000"]),
        Sentinel::new(),
    );
    let before = digest(binary());
    let id = home.id();
    home.create(&bundle, &id);
    let exe = PathBuf::from(format!("/proc/{}/exe", home.pid(&id)));
    let refusals = [libc::EROFS, libc::ETXTBSY, libc::EPERM, libc::EACCES];
    for _ in 0..rounds(2) {
        let refused = fs::OpenOptions::new().write(true).open(&exe).unwrap_err();
        assert!(
            refusals.contains(&refused.raw_os_error().unwrap()),
            "{refused}"
        );
        // A descriptor that was opened for reading stays one when the process has become its program.
        let held = fs::File::open(&exe).unwrap();
        let flags = rustix::fs::fstatvfs(&held).unwrap().f_flag;
        assert!(flags.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    }
    home.bulkhead(["start", &id]).ok();
    assert_eq!(digest(binary()), before);
    sentinel.untouched();
}

#[test]
fn a_program_that_waits_for_the_runtime_to_come_in_does_not_change_it() {
    need!(root, cgroup2);
    let (home, sentinel) = (Home::new(), Sentinel::new());
    let before = digest(binary());
    // It has every capability there is, and writes to every process that is not its own.
    let attack = "while :; do for p in /proc/[0-9]*; do [ $p = /proc/1 ] || [ $p = /proc/$$ ] || \
                  { echo x >$p/exe; } 2>/dev/null; done; done";
    let bundle = Bundle::shell(attack).with(|config| {
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = json!([
                "CAP_SYS_PTRACE",
                "CAP_DAC_OVERRIDE",
                "CAP_DAC_READ_SEARCH",
                "CAP_KILL"
            ]);
        }
    });
    fs::write(bundle.rootfs("/bin/again"), "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(
        bundle.rootfs("/bin/again"),
        PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let id = home.id();
    home.start(&bundle, &id);
    for _ in 0..rounds(100) {
        home.bulkhead(["exec", &id, "/bin/true"]).ok();
        home.bulkhead(["exec", &id, "/bin/again", "--help"]);
    }
    assert_eq!(digest(binary()), before);
    sentinel.untouched();
}

/// An `exec` that stands still just before it becomes its program.
fn standing_exec(home: &Home, id: &str) -> std::process::Child {
    let own = home.command();
    let mut command = Command::new("strace");
    command
        .args(["-f", "-o", "/dev/null", "-e", "trace=close_range"])
        .args(["-e", "inject=close_range:delay_enter=60000000"])
        .arg(own.get_program())
        .args(own.get_args())
        .args(["exec", id, "/bin/sleep", "1000"]);
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
    quiet.stderr(Stdio::null()).spawn().unwrap()
}

/// Whether a process waits in the call that closes what it does not hand on.
fn is_closing(pid: i32) -> bool {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    call.starts_with(&format!("{} ", libc::SYS_close_range))
}

#[test]
fn an_exec_cannot_be_looked_into_before_it_is_its_program() {
    need!(root, cgroup2, strace);
    let (home, bundle) = (Home::new(), Bundle::new(&["sleep", "1000"]));
    let id = home.id();
    home.start(&bundle, &id);
    let first = home.pid(&id);
    let mut tracer = standing_exec(&home, &id);
    let newcomer = || {
        let listed = home.bulkhead(["ps", "--format", "json", &id]).ok();
        let listed: Vec<i32> = serde_json::from_str(&listed).unwrap_or_default();
        let mut others = listed.into_iter().filter(|pid| *pid != first);
        others.find(|pid| is_closing(*pid))
    };
    eventually("the exec", || newcomer().is_some());
    let status = fs::read_to_string(format!("/proc/{}/status", newcomer().unwrap())).unwrap();
    let numbers = status
        .lines()
        .find(|line| line.starts_with("NSpid:"))
        .unwrap();
    let inner = numbers.split_ascii_whitespace().next_back().unwrap();
    // Whoever looks has the same user and the same capabilities.
    let look = format!(
        "cd /proc/{inner} && readlink exe; readlink root; readlink cwd; for f in fd/*; do readlink $f; done"
    );
    let seen = home.bulkhead(["exec", &id, "sh", "-c", &look]);
    let own = home.bulkhead(["exec", &id, "readlink", "/proc/1/exe"]).ok();
    tracer.kill().unwrap();
    tracer.wait().unwrap();
    assert_eq!(own, "/bin/busybox\n", "it can look into its like");
    assert_eq!(seen.out, "", "{seen:?}");
}

#[test]
fn a_program_named_relatively_is_not_the_runtime_either() {
    need!(root, cgroup2);
    let home = Home::new();
    for (program, cwd) in [
        ("proc/self/exe", "/"),
        ("self/exe", "/proc"),
        ("./exe", "/proc/self"),
    ] {
        let bundle = Bundle::new(&[program, "--version"]).with(|config| {
            config["process"]["cwd"] = json!(cwd);
        });
        let said = home.run(&bundle);
        assert_eq!(said.out, "", "{program}");
        said.failed();
    }
}
