//! What is left to the process of a machine while its guest runs.

use std::collections::BTreeSet;
use std::io::BufRead;
use std::io::BufReader;
use std::process::Child;

use bulkhead::backend::microvm::vmm::jail::calls;
use serde_json::json;

use super::Machine;
use super::guest::Guest;
use crate::need;

/// A machine whose guest stands still, running.
fn standing(machine: &Machine) -> Child {
    let mut child = machine.start();
    let mut line = String::new();
    let mut told = BufReader::new(child.stdout.take().unwrap());
    told.read_line(&mut line).unwrap();
    assert_eq!(line, "{\"event\":\"running\"}\n");
    child
}

fn machine() -> Machine {
    let guest = Guest::new().stands();
    Machine::of(&guest.pvh())
        .with("vcpus", json!(2))
        .with("rng", json!(true))
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The values of a field in the `status` of every thread.
fn values(pid: u32, field: &str) -> BTreeSet<String> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let files = threads.map(|thread| thread.unwrap().path().join("status"));
    files
        .map(|file| std::fs::read_to_string(file).unwrap())
        // A thread of KVM's own, which never leaves the kernel.
        .filter(|text| !text.starts_with("Name:\tkvm-nx-lpage"))
        .map(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix(field));
            line.unwrap().trim_matches([':', '\t', ' ']).to_owned()
        })
        .collect()
}

fn only(value: &str) -> BTreeSet<String> {
    BTreeSet::from([value.to_owned()])
}

#[test]
fn no_thread_has_a_right_or_can_get_one() {
    need!(kvm, root);
    let machine = machine().with("jail", json!({"uid": 64321, "gid": 64322}));
    let child = standing(&machine);
    let pid = child.id();
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(values(pid, set), only("0000000000000000"), "{set}");
    }
    assert_eq!(values(pid, "NoNewPrivs"), only("1"));
    assert_eq!(values(pid, "Seccomp:"), only("2"));
    assert_eq!(values(pid, "Seccomp_filters"), only("1"));
    assert_eq!(values(pid, "Uid"), only("64321\t64321\t64321\t64321"));
    assert_eq!(values(pid, "Gid"), only("64322\t64322\t64322\t64322"));
    assert_eq!(values(pid, "Groups"), only(""));
    assert_eq!(values(pid, "Name").len(), 3);
    end(child);
}

#[test]
fn the_root_is_empty_and_the_only_mount() {
    need!(kvm, root);
    let machine = machine();
    let child = standing(&machine);
    let home = format!("/proc/{}", child.id());
    let inside = std::fs::read_dir(format!("{home}/root/")).unwrap().count();
    assert_eq!(inside, 0);
    let mounts = std::fs::read_to_string(format!("{home}/mountinfo")).unwrap();
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    let fields: Vec<&str> = mounts.split_whitespace().collect();
    assert_eq!((fields[4], fields[fields.len() - 3]), ("/", "tmpfs"));
    assert!(fields[5].starts_with("ro,nosuid,nodev,noexec"), "{mounts}");
    end(child);
}

#[test]
fn only_the_descriptors_of_the_machine_are_open() {
    need!(kvm, root);
    let machine = machine();
    // Handed through by mistake.
    let stray = std::fs::File::open("/etc/passwd").unwrap();
    rustix::io::fcntl_setfd(&stray, rustix::io::FdFlags::empty()).unwrap();
    let child = standing(&machine);
    let mut open = BTreeSet::new();
    for entry in std::fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap() {
        let target = std::fs::read_link(entry.unwrap().path()).unwrap();
        let name = target.to_string_lossy().into_owned();
        let name = if name.starts_with("pipe:") {
            "pipe"
        } else {
            &name
        };
        open.insert(name.replace(&machine.path("").display().to_string(), "DIR/"));
    }
    let golden = [
        "/dev/null",
        "/memfd:guest (deleted)",
        "DIR/serial",
        "anon_inode:[eventfd]",
        "anon_inode:[eventpoll]",
        "anon_inode:[timerfd]",
        "anon_inode:kvm-vcpu-stats:0",
        "anon_inode:kvm-vcpu-stats:1",
        "anon_inode:kvm-vcpu:0",
        "anon_inode:kvm-vcpu:1",
        "anon_inode:kvm-vm",
        "pipe",
    ];
    let open: Vec<&str> = open.iter().map(String::as_str).collect();
    assert_eq!(open, golden);
    end(child);
    drop(stray);
}

#[test]
fn the_system_calls_of_each_thread_are_few_and_known() {
    let names = |calls: &[calls::Call]| -> BTreeSet<i64> {
        calls.iter().map(|(number, _)| *number).collect()
    };
    assert!(names(calls::VCPU).len() <= 27);
    assert!(names(calls::VMM).len() <= 50);
    let never = [
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_fork,
        libc::SYS_vfork,
        libc::SYS_clone,
        libc::SYS_clone3,
        libc::SYS_open,
        libc::SYS_openat,
        libc::SYS_openat2,
        libc::SYS_socket,
        libc::SYS_connect,
        libc::SYS_ptrace,
        libc::SYS_mount,
        libc::SYS_setuid,
        libc::SYS_unshare,
        libc::SYS_bpf,
    ];
    for call in never {
        assert!(!names(calls::VCPU).contains(&call), "{call}");
        assert!(!names(calls::VMM).contains(&call), "{call}");
    }
}
