//! What a file server has of the machine, looked at from outside while it serves.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;

use bulkhead::backend::microvm::files;

use super::place::Place;
use super::place::Served;
use super::place::read_only;
use crate::need;

/// `CHOWN DAC_OVERRIDE FOWNER FSETID SETGID SETUID MKNOD SETFCAP`.
const CAPABILITIES: &str = "00000000880000db";

fn of(served: &Served, what: &str) -> PathBuf {
    Path::new("/proc")
        .join(served.server.pid.to_string())
        .join(what)
}

/// The lines of a process's or thread's `status`, by their names.
fn status(path: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(path.join("status")).unwrap();
    let lines = text.lines().filter_map(|line| line.split_once(":\t"));
    lines
        .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
        .collect()
}

#[test]
fn every_thread_has_the_rights_of_a_file_server_and_a_filter() {
    need!(root);
    let served = Place::new().serve_root();
    let threads: Vec<_> = std::fs::read_dir(of(&served, "task")).unwrap().collect();
    assert!(threads.len() >= 3, "{}", threads.len());
    for thread in threads {
        let status = status(&thread.unwrap().path());
        let has = |key: &str| status.get(key).map(String::as_str);
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            assert_eq!(has(set), Some(CAPABILITIES), "{set}");
        }
        for set in ["CapInh", "CapAmb"] {
            assert_eq!(has(set), Some("0000000000000000"), "{set}");
        }
        assert_eq!(has("NoNewPrivs"), Some("1"));
        assert_eq!(has("Seccomp"), Some("2"));
        assert_eq!(has("Groups"), Some(""));
    }
}

#[test]
fn its_namespaces_are_its_own() {
    need!(root);
    let served = Place::new().serve_root();
    for kind in ["mnt", "net", "ipc", "uts", "pid"] {
        let theirs = std::fs::read_link(of(&served, "ns").join(kind)).unwrap();
        let ours = std::fs::read_link(Path::new("/proc/self/ns").join(kind)).unwrap();
        assert_ne!(theirs, ours, "{kind}");
    }
    assert_eq!(status(&of(&served, ""))["NSpid"].split('\t').count(), 2);
}

#[test]
fn its_mounts_are_the_room_and_the_shares() {
    need!(root);
    let place = Place::new();
    let served = place.serve(&[place.share(), read_only("1", &place.shared(""))]);
    let text = std::fs::read_to_string(of(&served, "mountinfo")).unwrap();
    let mounts: BTreeMap<&str, BTreeSet<&str>> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some((words.nth(4)?, words.next()?.split(',').collect()))
        })
        .collect();
    assert_eq!(
        mounts.keys().copied().collect::<Vec<_>>(),
        ["/", "/1", "/root"]
    );
    for (point, options) in &mounts {
        let expected = ["nodev", "nosuid", "noexec"];
        assert!(expected.iter().all(|one| options.contains(one)), "{point}");
    }
    let writable: Vec<_> = mounts
        .iter()
        .filter(|(_, options)| options.contains("rw"))
        .collect();
    assert_eq!(
        writable
            .iter()
            .map(|(point, _)| **point)
            .collect::<Vec<_>>(),
        ["/root"]
    );
    assert!(!text.contains("shared:"), "{text}");
    let entries: BTreeSet<_> = std::fs::read_dir(of(&served, "root"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(entries, ["1".into(), "root".into()].into());
}

#[test]
fn its_descriptors_are_those_of_its_work() {
    need!(root);
    // One that the caller has open, and that is not closed on exec.
    let leaked = tempfile::tempfile().unwrap();
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
    let place = Place::new();
    let served = place.serve_root();
    let mut counted: BTreeMap<String, usize> = BTreeMap::new();
    for entry in std::fs::read_dir(of(&served, "fd")).unwrap() {
        let leads = std::fs::read_link(entry.unwrap().path()).unwrap();
        let leads = leads.to_string_lossy().into_owned();
        let kind = leads.split(':').next().unwrap_or_default();
        let kind = if leads.contains("eventfd") {
            "eventfd"
        } else {
            kind
        };
        let kind = if leads.contains("eventpoll") {
            "eventpoll"
        } else {
            kind
        };
        *counted.entry(kind.to_owned()).or_default() += 1;
    }
    let expected = [
        // The standard streams.
        ("/dev/null", 3),
        // The room, to go back to, its root as the guest knows it, and `/proc/self/fd`, which is nowhere.
        ("/", 3),
        ("/memfd", 1),
        ("eventfd", 6),
        ("eventpoll", 1),
        ("socket", 2),
    ];
    let expected: BTreeMap<String, usize> = expected
        .into_iter()
        .map(|(kind, count)| (kind.to_owned(), count))
        .collect();
    assert_eq!(counted, expected);
}

#[test]
fn it_is_unreadable_to_its_user_and_leaves_no_core() {
    need!(root);
    let served = Place::new().serve_root();
    let limits = std::fs::read_to_string(of(&served, "limits")).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core"))
        .unwrap();
    assert_eq!(core.split_ascii_whitespace().nth(4), Some("0"));
}

#[test]
fn the_list_of_its_system_calls_is_the_one_that_was_thought_about() {
    let forbidden = [
        libc::SYS_open_by_handle_at,
        libc::SYS_name_to_handle_at,
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_clone,
        libc::SYS_clone3,
        libc::SYS_fork,
        libc::SYS_vfork,
        libc::SYS_socket,
        libc::SYS_connect,
        libc::SYS_bind,
        libc::SYS_accept4,
        libc::SYS_mount,
        libc::SYS_move_mount,
        libc::SYS_open_tree,
        libc::SYS_fsopen,
        libc::SYS_pivot_root,
        libc::SYS_chroot,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_kill,
        libc::SYS_ioctl,
        libc::SYS_bpf,
        libc::SYS_memfd_create,
        libc::SYS_io_uring_setup,
        libc::SYS_userfaultfd,
    ];
    let found: Vec<_> = forbidden
        .iter()
        .filter(|call| files::ALLOWED.contains(call))
        .collect();
    assert_eq!(found, Vec::<&libc::c_long>::new());
    let once: BTreeSet<_> = files::ALLOWED.iter().collect();
    assert_eq!(once.len(), files::ALLOWED.len());
    assert_eq!(once.len(), 87);
}
