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
pub(super) fn standing(machine: &Machine) -> Child {
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

/// Ends a machine that stands.
pub(super) fn end(mut child: Child) {
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

/// What the threads of the processors may do, and nothing else: a copy, so that a change is made twice.
const OF_A_PROCESSOR: [i64; 26] = [
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fcntl,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_ioctl,
    libc::SYS_madvise,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_pwrite64,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    libc::SYS_tkill,
    libc::SYS_write,
];
/// What the thread of the devices may do beyond that.
const OF_THE_DEVICES: [i64; 23] = [
    libc::SYS_accept4,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd2,
    libc::SYS_fallocate,
    libc::SYS_fdatasync,
    libc::SYS_fsync,
    libc::SYS_io_uring_enter,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_shutdown,
    libc::SYS_timerfd_settime,
    libc::SYS_writev,
];

#[test]
fn the_system_calls_of_each_thread_are_few_and_known() {
    let names = |calls: &[calls::Call]| -> BTreeSet<i64> {
        calls.iter().map(|(number, _)| *number).collect()
    };
    let processor = BTreeSet::from(OF_A_PROCESSOR);
    let devices: BTreeSet<i64> = processor.iter().copied().chain(OF_THE_DEVICES).collect();
    assert_eq!(names(calls::VCPU), processor);
    assert_eq!(names(calls::VMM), devices);
    // The shortest lists that are known.
    assert!(names(calls::VCPU).len() <= 27);
    assert!(names(calls::VMM).len() <= 50);
}

#[test]
fn whatever_takes_a_request_takes_those_of_the_machine_alone() {
    let free = |calls: &[calls::Call]| {
        let all = calls.contains(&(libc::SYS_ioctl, None));
        let memory = [libc::SYS_mmap, libc::SYS_mprotect];
        all || calls
            .iter()
            .any(|(number, argument)| memory.contains(number) && argument.is_none())
    };
    assert!(!free(calls::VCPU) && !free(calls::VMM));
}
