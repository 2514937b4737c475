//! The processes of a machine, looked at from outside while its guest runs.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use sha2::Digest;
use sha2::Sha256;

use super::Walled;
use super::guests;
use crate::need;

/// What is read of a process or a thread in `status`, by name.
fn status(path: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(path.join("status")).unwrap();
    let lines = text.lines().filter_map(|line| line.split_once(":\t"));
    lines
        .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
        .collect()
}

/// The threads of a process, but for those of KVM's and vhost's own, which never leave the kernel.
fn threads(pid: i32) -> Vec<BTreeMap<String, String>> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let all = entries.map(|thread| status(&thread.unwrap().path()));
    let kernels = |name: &str| name.starts_with("kvm-nx-lpage") || name.starts_with("vhost-");
    all.filter(|thread| !kernels(&thread["Name"])).collect()
}

fn namespace(pid: &str, kind: &str) -> PathBuf {
    std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap()
}

/// The VMM: nobody, without rights, in a room without anything.
fn vmm_is_nobody(pid: i32, keeper: i32) {
    let threads = threads(pid);
    assert_eq!(threads.len(), 5, "four processors and the devices");
    for thread in threads {
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(thread[set], "0000000000000000", "{set}");
        }
        let numbers = |key: &str| -> BTreeSet<u32> {
            let words = thread[key].split_whitespace();
            words.map(|word| word.parse().unwrap()).collect()
        };
        let nobody = 0x7000_0000 | pid.unsigned_abs();
        assert_eq!(numbers("Uid"), [nobody].into(), "{thread:?}");
        assert_eq!(numbers("Gid"), [nobody].into());
        assert_eq!(thread["Groups"], "");
        assert_eq!((&*thread["NoNewPrivs"], &*thread["Seccomp"]), ("1", "2"));
        assert_eq!(thread["NSpid"].split_whitespace().count(), 2);
    }
    let (pid, keeper) = (pid.to_string(), keeper.to_string());
    for kind in ["user", "mnt", "pid", "ipc", "uts"] {
        assert_ne!(namespace(&pid, kind), namespace(&keeper, kind), "{kind}");
    }
    assert_eq!(namespace(&pid, "net"), namespace(&keeper, "net"));
    assert_ne!(namespace(&pid, "net"), namespace("self", "net"));
    let home = Path::new("/proc").join(&pid);
    let mounts = std::fs::read_to_string(home.join("mountinfo")).unwrap();
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    assert_eq!(std::fs::read_dir(home.join("root/")).unwrap().count(), 0);
}

/// What the descriptors of a process lead to, each once; one that is closed meanwhile is none.
fn open(pid: i32) -> Vec<String> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let targets = entries.filter_map(|entry| {
        let target = match std::fs::read_link(entry.unwrap().path()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            answer => answer.unwrap(),
        };
        let name = target.to_string_lossy().into_owned();
        // Two of them are files of the workspace.
        let own = ["serial.log", "balloon"].into_iter();
        let mut own = own.filter(|own| {
            Path::new(&name)
                .file_name()
                .is_some_and(|last| last == *own)
        });
        let name = own.next().map_or(name.clone(), str::to_owned);
        let numbered = name.starts_with("socket:") || name.contains("kvm-vcpu");
        let kind = name.rsplit_once(':').map_or("", |(kind, _)| kind);
        Some(if numbered { kind.to_owned() } else { name })
    });
    let all: BTreeSet<String> = targets.collect();
    all.into_iter().collect()
}

const GOLDEN: [&str; 14] = [
    "/dev/null",
    "/memfd:complaint (deleted)",
    "/memfd:guest (deleted)",
    "/memfd:report (deleted)",
    "anon_inode:[eventfd]",
    "anon_inode:[eventpoll]",
    "anon_inode:[io_uring]",
    "anon_inode:[timerfd]",
    "anon_inode:kvm-vcpu",
    "anon_inode:kvm-vcpu-stats",
    "anon_inode:kvm-vm",
    "balloon",
    "serial.log",
    "socket",
];

/// A keeper has nothing but its connections; only the file server has rights, those of one.
fn the_others_have_what_they_need(keeper: i32, server: i32) {
    for thread in threads(keeper) {
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(thread[set], "0000000000000000", "keeper: {set}");
        }
        assert_eq!(thread["NoNewPrivs"], "1");
    }
    for thread in threads(server) {
        assert_eq!(thread["CapBnd"], "00000000880000db");
        assert_eq!(&*thread["Seccomp"], "2");
    }
    let (server, own) = (server.to_string(), "self");
    for kind in ["mnt", "pid", "net", "ipc", "uts"] {
        assert_ne!(namespace(&server, kind), namespace(own, kind), "{kind}");
    }
}

/// Hundredths of a second that processes have used.
fn ticks<'a>(pids: impl IntoIterator<Item = &'a i32>) -> u64 {
    let used = pids.into_iter().map(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        let number = |index: usize| fields[index].parse::<u64>().unwrap();
        number(11) + number(12)
    });
    used.sum()
}

fn hashes() -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for guest in std::fs::read_dir(guests()).unwrap() {
        for file in std::fs::read_dir(guest.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            found.insert(path, Sha256::digest(bytes).to_vec());
        }
    }
    found
}

/// What root does inside who wants to write to what the machine booted from, or to a disk.
const HOSTILE: &str = "
    mknod /dev/disk b 254 0; (echo x >/dev/disk) 2>&1; (cat </dev/disk) 2>&1
    mknod /dev/memory c 1 1; (cat </dev/memory) 2>&1
    (echo x >/proc/1/exe) 2>&1; ls /init 2>&1; (echo x >/proc/1/root/init) 2>&1; true";

#[test]
fn the_processes_of_a_machine_have_no_rights_and_use_nothing_when_it_is_idle() {
    need!(machine, kvm);
    let booted = hashes();
    let walled = Walled::started(":", |config| {
        config["linux"]["resources"] = json!({"cpu": {"quota": 400_000, "period": 100_000}});
    });
    let processes = walled.processes();
    assert_eq!(walled.asks("grep -c ^processor /proc/cpuinfo"), "4\n");
    vmm_is_nobody(processes["@vmm"], processes["@keeper"]);
    let golden: Vec<_> = GOLDEN.iter().collect();
    let found = open(processes["@vmm"]);
    let strange: Vec<_> = found
        .iter()
        .filter(|name| !GOLDEN.contains(&&***name))
        .collect();
    assert!(strange.is_empty(), "{strange:?} beside {golden:?}");
    the_others_have_what_they_need(processes["@keeper"], processes["@files"]);
    let said = walled.asks(HOSTILE);
    assert_eq!(said.matches("Operation not permitted").count(), 3, "{said}");
    assert!(!said.contains("/init\n"), "{said}");
    let before = ticks(processes.values());
    // Not a wait for anything: it is what is measured.
    std::thread::park_timeout(Duration::from_secs(10));
    let used = ticks(processes.values()) - before;
    println!("an idle machine used {used} of 1000 ticks");
    // Of four processors; where every exit of theirs is emulated, each costs some hundred times what it does elsewhere.
    assert!(used <= 100, "{used} of 1000 ticks");
    walled.removed(&processes);
    assert_eq!(hashes(), booted);
}
