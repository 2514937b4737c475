//! A guest with a kernel of a distribution mounts what is served and finds in it what this kernel finds.
//!
//! The guest is a common one, in a common emulator: what is looked at is the file server. Its first process is this
//! binary, which comes from a share as everything else does.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use rustix::fs::FileType;
use rustix::fs::Mode;

use super::DIRECTORY;
use super::exercise;
use super::place::Place;
use super::place::tree;
use crate::need;

/// What is different in a guest, and why; `runtime-spec/files.md` says the same.
pub(crate) const DIFFERENT: [(&str, &str); 2] = [
    // The file server has no right to set attributes that only a host's root may see.
    (
        "trusted attributes",
        "Err(Os { code: 1, kind: PermissionDenied, message: \"Operation not permitted\" })",
    ),
    // The library that answers has no such request.
    ("without a name", "Operation not supported (os error 95)"),
];

/// What can be seen of a file from outside.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    mode: u32,
    owner: (u32, u32),
    links: u64,
    content: Vec<u8>,
}

fn everything(below: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut open = vec![below.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let content = match metadata.file_type() {
                kind if kind.is_dir() => {
                    open.push(path.clone());
                    Vec::new()
                }
                kind if kind.is_symlink() => path
                    .read_link()
                    .unwrap()
                    .into_os_string()
                    .into_encoded_bytes(),
                _ => std::fs::read(&path).unwrap(),
            };
            let one = Seen {
                mode: metadata.mode(),
                owner: (metadata.uid(), metadata.gid()),
                links: metadata.nlink(),
                content,
            };
            seen.insert(path.strip_prefix(below).unwrap().to_owned(), one);
        }
    }
    seen
}

/// The devices that a kernel and a program look for at first.
fn devices(place: &Place) -> PathBuf {
    let directory = place.beside("dev");
    std::fs::create_dir(&directory).unwrap();
    for (name, major, minor) in [("null", 1, 3), ("console", 5, 1)] {
        let device = rustix::fs::makedev(major, minor);
        let mode = Mode::from(0o666);
        let path = directory.join(name);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path,
            FileType::CharacterDevice,
            mode,
            device,
        )
        .unwrap();
    }
    directory
}

/// Boots a guest whose root is what is served; gives what it said when it has ended.
fn boot(connection: &impl AsRawFd) -> String {
    let memory = "memory-backend-memfd,id=memory,size=512M,share=on";
    let shared = format!("socket,id=files,fd={}", connection.as_raw_fd());
    let words = format!(
        "console=ttyS0 quiet panic=-1 rootfstype=virtiofs root=share rw \
         init=/root/suite {DIRECTORY}=/root/guest -- files::the_exerciser_agrees_with_this_kernel --exact --test-threads=1"
    );
    let said = Command::new("timeout")
        .args([
            "150",
            "qemu-system-x86_64",
            "-M",
            "q35",
            "-accel",
            "kvm",
            "-cpu",
            "host",
        ])
        .args([
            "-m",
            "512",
            "-object",
            memory,
            "-numa",
            "node,memdev=memory",
        ])
        .args([
            "-nodefaults",
            "-no-user-config",
            "-nographic",
            "-no-reboot",
            "-serial",
            "stdio",
        ])
        .args([
            "-kernel",
            "/boot/vmlinuz",
            "-append",
            &words,
            "-chardev",
            &shared,
        ])
        .args(["-device", "vhost-user-fs-pci,chardev=files,tag=share"])
        .output()
        .unwrap();
    format!(
        "{}{}",
        String::from_utf8_lossy(&said.stdout),
        String::from_utf8_lossy(&said.stderr)
    )
}

#[test]
fn a_guest_finds_what_this_kernel_finds_and_leaves_the_same_files() {
    need!(root, machine);
    Command::new("modprobe").arg("kvm_amd").status().unwrap();
    let place = Place::new();
    std::fs::copy(std::env::current_exe().unwrap(), place.shared("suite")).unwrap();
    for name in ["guest", "native"] {
        std::fs::create_dir(place.shared(name)).unwrap();
    }
    let mut expected = exercise::facts(&place.shared("native"));
    exercise::at_random(&place.shared("native"), 7);
    for (name, answer) in DIFFERENT {
        expected.insert(name, answer.to_owned());
    }
    let server = place.launch(&[place.share(), tree("dev", &devices(&place))]);
    rustix::io::fcntl_setfd(&server.socket, rustix::io::FdFlags::empty()).unwrap();
    let said = boot(&server.socket);
    let text = std::fs::read(place.shared("guest.found")).expect(&said);
    let found: BTreeMap<&str, String> = serde_json::from_slice(&text).unwrap();
    assert_eq!(found, expected, "{said}");
    assert_eq!(
        everything(&place.shared("guest")),
        everything(&place.shared("native"))
    );
}
