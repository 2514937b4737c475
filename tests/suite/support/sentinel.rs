//! What of the host no workspace may change: looked at before something hostile is done, and after it.
//!
//! Other tests run beside, with mounts and files of their own in the directory for temporary files; those are left out.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::hash::Hasher;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use super::home::eventually;

/// Files and nodes of the host that images and configurations have been made to reach.
const WATCHED: [&str; 16] = [
    "/etc/passwd",
    "/etc/group",
    "/etc/shadow",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/bin/busybox",
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/ptmx",
    "/proc/sysrq-trigger",
    "/proc/sys/kernel/core_pattern",
];

/// Parameters below `/proc/sys` that change by themselves.
const RESTLESS: [&str; 11] = [
    "fs/aio-nr",
    "fs/dentry-state",
    "fs/epoll",
    "fs/file-nr",
    "fs/inode-",
    "fs/quota",
    "kernel/ns_last_pid",
    "kernel/perf_",
    "kernel/pty/nr",
    "kernel/random",
    "vm/nr_",
];

/// The parameters that are looked at; those of the network are the tests' own, which change them.
const PARAMETERS: [&str; 6] = ["abi", "debug", "dev", "fs", "kernel", "vm"];

/// A file as it is: kind and mode, owner, group, size or device, and when its content was changed last.
type Entry = (u32, u32, u32, u64, (i64, i64));

/// What has been seen of the host.
#[derive(Debug)]
pub(crate) struct Sentinel {
    outside: tempfile::TempDir,
    tree: BTreeMap<PathBuf, (Entry, Vec<u8>)>,
    watched: BTreeMap<PathBuf, Entry>,
    top: BTreeSet<PathBuf>,
    parameters: BTreeMap<PathBuf, Vec<u8>>,
    mounts: BTreeSet<String>,
    binary: Entry,
}

impl Sentinel {
    /// Looks at the host, and makes a tree outside of every root for the hostile to lead to.
    pub(crate) fn new() -> Self {
        let outside = tempfile::Builder::new()
            .prefix("bulkhead-outside-")
            .tempdir()
            .unwrap();
        fill(outside.path());
        Self {
            tree: tree(outside.path()),
            watched: watched(),
            top: names("/"),
            parameters: parameters(),
            mounts: mounts(),
            binary: entry(Path::new(env!("CARGO_BIN_EXE_bulkhead"))),
            outside,
        }
    }

    /// The tree outside: a file `secret`, a file `ptmx`, a node `null`, a pipe, and a directory with a file in it.
    pub(crate) fn outside(&self) -> &Path {
        self.outside.path()
    }

    /// Fails the test when anything is not as it was.
    #[track_caller]
    pub(crate) fn untouched(&self) {
        assert_eq!(tree(self.outside()), self.tree, "the tree outside");
        assert_eq!(watched(), self.watched, "files of the host");
        assert_eq!(names("/"), self.top, "the top of the host's tree");
        let binary = entry(Path::new(env!("CARGO_BIN_EXE_bulkhead")));
        assert_eq!(binary, self.binary, "the runtime's own file");
        assert_eq!(parameters(), self.parameters, "parameters of the kernel");
        // Mounts of other tests come and go.
        eventually("the end of a mount that came to the host", || {
            mounts().is_subset(&self.mounts)
        });
        let host = |mount: &&String| !mount.contains("bulkhead") && !mount.contains("netns");
        let gone: Vec<String> = self.mounts.difference(&mounts()).cloned().collect();
        assert_eq!(gone.iter().filter(host).count(), 0, "gone: {gone:?}");
    }
}

/// Whether the file is as it was, byte for byte: a number that another content has with no chance that counts.
pub(crate) fn digest(path: &Path) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(&std::fs::read(path).unwrap());
    hasher.finish()
}

fn fill(outside: &Path) {
    std::fs::write(outside.join("secret"), "of the host\n").unwrap();
    std::fs::write(outside.join("ptmx"), "marker\n").unwrap();
    std::fs::create_dir(outside.join("sub")).unwrap();
    std::fs::write(outside.join("sub/secret"), "of the host\n").unwrap();
    std::fs::set_permissions(outside.join("sub"), PermissionsExt::from_mode(0o751)).unwrap();
    for (name, kind, device) in [
        (
            "null",
            rustix::fs::FileType::CharacterDevice,
            rustix::fs::makedev(1, 3),
        ),
        ("pipe", rustix::fs::FileType::Fifo, 0),
    ] {
        let mode = rustix::fs::Mode::from_raw_mode(0o640);
        let made = rustix::fs::mknodat(rustix::fs::CWD, outside.join(name), kind, mode, device);
        made.unwrap();
    }
}

/// What is there of a file; all zeros when it is not there.
fn entry(path: &Path) -> Entry {
    let Ok(found) = path.symlink_metadata() else {
        return (0, 0, 0, 0, (0, 0));
    };
    let kind = found.file_type();
    // The kernel's own files have no size, and nodes are written to.
    let own = kind.is_file() && !path.starts_with("/proc");
    let changed = match own || kind.is_dir() {
        true => (found.mtime(), found.mtime_nsec()),
        false => (0, 0),
    };
    let size = match kind.is_char_device() || kind.is_block_device() {
        true => found.rdev(),
        false => found.len(),
    };
    (found.mode(), found.uid(), found.gid(), size, changed)
}

fn watched() -> BTreeMap<PathBuf, Entry> {
    let all = WATCHED.iter().map(PathBuf::from);
    all.map(|path| {
        let seen = entry(&path);
        (path, seen)
    })
    .collect()
}

fn names(directory: &str) -> BTreeSet<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// Everything below a directory, with what is in its files.
fn tree(top: &Path) -> BTreeMap<PathBuf, (Entry, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut open = vec![top.to_owned()];
    while let Some(path) = open.pop() {
        let kind = path.symlink_metadata().unwrap().file_type();
        if kind.is_dir() {
            open.extend(names(path.to_str().unwrap()));
        }
        let content = match kind.is_file() {
            true => std::fs::read(&path).unwrap(),
            false => Vec::new(),
        };
        let seen = entry(&path);
        found.insert(path, (seen, content));
    }
    found
}

fn parameters() -> BTreeMap<PathBuf, Vec<u8>> {
    let top = Path::new("/proc/sys");
    let mut found = BTreeMap::new();
    let mut open: Vec<PathBuf> = PARAMETERS.iter().map(|name| top.join(name)).collect();
    while let Some(path) = open.pop() {
        let inside = path.strip_prefix(top).unwrap().to_str().unwrap();
        if RESTLESS.iter().any(|name| inside.starts_with(name)) {
            continue;
        }
        match std::fs::read_dir(&path) {
            Ok(entries) => open.extend(entries.flatten().map(|entry| entry.path())),
            Err(_) => drop(found.insert(path.clone(), std::fs::read(&path).unwrap_or_default())),
        }
    }
    found
}

/// The mounts of this mount namespace, without their numbers, but for those below the directory for temporary files.
pub(crate) fn mounts() -> BTreeSet<String> {
    let text = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let temporary = std::env::temp_dir().display().to_string();
    let lines = text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(' ').skip(2).collect();
        let ours = fields[2].starts_with(&temporary);
        (!ours).then(|| fields.join(" "))
    });
    lines.collect()
}
