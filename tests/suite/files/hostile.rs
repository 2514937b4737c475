//! A guest whose kernel has been taken over: names, numbers and rings that no kernel sends.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use super::client::Ask;
use super::client::Client;
use super::client::ROOT;
use super::client::Words;
use super::driver::Part;
use super::place::Place;
use super::place::read_only;
use crate::need;

/// Names that are not one component of a path.
const NAMES: [&[u8]; 8] = [
    b"",
    b".",
    b"..",
    b"/",
    b"a/b",
    b"../secret",
    b"/etc/passwd",
    b"down/../../secret",
];

/// The mode, the number, the time and the content of a file.
type Seen = (u32, u64, i64, Option<Vec<u8>>);

/// Every path below a directory, with what can be seen of it.
fn everything(below: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut found = BTreeMap::new();
    let mut open = vec![below.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let content = metadata.is_file().then(|| std::fs::read(&path).unwrap());
            if metadata.is_dir() {
                open.push(path.clone());
            }
            let seen = (
                metadata.mode(),
                metadata.ino(),
                metadata.mtime_nsec(),
                content,
            );
            found.insert(path, seen);
        }
    }
    found
}

/// A directory with something to reach for, and links that lead out.
fn furnished() -> Place {
    let place = Place::new();
    std::fs::create_dir(place.shared("down")).unwrap();
    std::fs::write(place.shared("down/file"), "inside").unwrap();
    for (name, target) in [
        ("absolute", place.beside("secret")),
        ("relative", "../secret".into()),
        ("far", "../../../../../../../../etc/passwd".into()),
        ("own", "/proc/self/root".into()),
    ] {
        std::os::unix::fs::symlink(target, place.shared(name)).unwrap();
    }
    place
}

/// One request of each kind that takes a name.
fn with_name(client: &mut Client, directory: u64, file: u64, name: &[u8]) -> Vec<(Ask, i32)> {
    let mode = |rest: &[u32]| {
        rest.iter()
            .fold(Words::default(), |words, one| words.u32(*one))
    };
    let zero = Words::default();
    let asks = [
        (Ask::Lookup, directory, zero.clone().name(name)),
        (Ask::Mkdir, directory, mode(&[0o755, 0]).name(name)),
        (
            Ask::Mknod,
            directory,
            mode(&[0o100_644, 0, 0, 0]).name(name),
        ),
        (
            Ask::Create,
            directory,
            mode(&[0o102, 0o644, 0, 0]).name(name),
        ),
        (Ask::Unlink, directory, zero.clone().name(name)),
        (Ask::Rmdir, directory, zero.clone().name(name)),
        (
            Ask::Symlink,
            directory,
            zero.clone().name(name).name(b"target"),
        ),
        (Ask::Link, directory, zero.clone().u64(file).name(name)),
        (
            Ask::Rename,
            directory,
            zero.clone().u64(directory).name(b"file").name(name),
        ),
        (
            Ask::Rename,
            directory,
            zero.clone().u64(directory).name(name).name(b"new"),
        ),
        (
            Ask::Rename2,
            directory,
            zero.u64(directory).u64(0).name(b"file").name(name),
        ),
    ];
    asks.into_iter()
        .map(|(ask, node, body)| (ask, client.ask(ask, node, body).err().unwrap_or(0)))
        .collect()
}

#[test]
fn names_that_are_paths_are_refused_in_every_request() {
    need!(root);
    let place = furnished();
    let mut served = place.serve_root();
    let client = &mut served.client;
    let directory = client.walk("root/down").unwrap().id;
    let file = client.walk("root/down/file").unwrap().id;
    let before = everything(&place.beside(""));
    for name in NAMES {
        for (ask, error) in with_name(client, directory, file, name) {
            assert_eq!(
                error,
                libc::EINVAL,
                "{ask:?} of {:?}",
                name.escape_ascii().to_string()
            );
        }
    }
    // What follows the end of a name is no name.
    assert_eq!(client.lookup(directory, b"file\0b"), Err(libc::EINVAL));
    for (ask, error) in with_name(client, directory, file, &[b'n'; 4096]) {
        assert_eq!(error, libc::ENAMETOOLONG, "{ask:?}");
    }
    assert_eq!(everything(&place.beside("")), before);
}

#[test]
fn nothing_leads_out_of_a_share() {
    need!(root);
    let place = furnished();
    let mut served = place.serve_root();
    let client = &mut served.client;
    let root = client.lookup(ROOT, b"root").unwrap().id;
    for parent in [ROOT, root] {
        assert_eq!(client.lookup(parent, b"..").unwrap_err(), libc::EINVAL);
    }
    for name in [&b"absolute"[..], b"relative", b"far", b"own"] {
        let link = client.lookup(root, name).unwrap();
        assert_eq!(link.mode & libc::S_IFMT, libc::S_IFLNK);
        // A link is a link: the server follows none, whatever it is asked to do with it.
        assert_eq!(client.open(link.id, libc::O_RDWR), Err(libc::EBADF));
        assert_eq!(client.opendir(link.id), Err(libc::EBADF));
        let through = client.lookup(link.id, b"secret").unwrap_err();
        assert_eq!(through, libc::ENOTDIR);
        assert_eq!(client.setattr(link.id, 8, 0), Err(libc::EBADF));
        let (file, _) = client.create(root, b"swap", 0o600).unwrap();
        assert_eq!(client.lookup(file.id, b"x").unwrap_err(), libc::ENOTDIR);
        client.unlink(root, b"swap").unwrap();
    }
    assert_eq!(std::fs::read(place.beside("secret")).unwrap(), b"outside");
}

#[test]
fn a_directory_that_is_exchanged_for_a_link_is_not_followed() {
    need!(root);
    let place = furnished();
    let mut served = place.serve_root();
    let client = &mut served.client;
    let root = client.lookup(ROOT, b"root").unwrap().id;
    let down = client.lookup(root, b"down").unwrap().id;
    std::fs::rename(place.shared("down"), place.shared("moved")).unwrap();
    std::os::unix::fs::symlink(place.beside(""), place.shared("down")).unwrap();
    client.mkdir(down, b"made").unwrap();
    assert!(place.shared("moved/made").is_dir());
    assert!(!place.beside("made").exists());
    let exchanged = client.lookup(root, b"down").unwrap().id;
    assert_eq!(client.mkdir(exchanged, b"made").unwrap_err(), libc::ENOTDIR);
}

#[test]
fn a_share_that_may_only_be_read_refuses_every_change() {
    need!(root);
    let place = furnished();
    let mut served = place.serve(&[read_only("root", &place.shared(""))]);
    let client = &mut served.client;
    let before = everything(&place.beside(""));
    let down = client.walk("root/down").unwrap().id;
    let file = client.walk("root/down/file").unwrap().id;
    let handle = client.open(file, libc::O_RDONLY).unwrap();
    assert_eq!(client.read(file, handle, 0, 16).unwrap(), b"inside");
    let refused = [
        client.open(file, libc::O_RDWR).map(drop),
        client.open(file, libc::O_WRONLY | libc::O_TRUNC).map(drop),
        client.create(down, b"new", 0o644).map(drop),
        client.mkdir(down, b"new").map(drop),
        client
            .mknod(down, b"new", libc::S_IFIFO | 0o600, 0)
            .map(drop),
        client.symlink(down, b"new", b"target").map(drop),
        client.link(file, down, b"new").map(drop),
        client.unlink(down, b"file"),
        client.rmdir(down, b"file"),
        client.rename((down, b"file"), (down, b"new")),
        client.setattr(file, 1, 0o777).map(drop),
        client.setattr(file, 2, 7).map(drop),
        client.setattr(file, 8, 1).map(drop),
        client.setxattr(file, b"user.colour", b"blue"),
        client
            .ask(
                Ask::Removexattr,
                file,
                Words::default().name(b"user.colour"),
            )
            .map(drop),
    ];
    for (index, one) in refused.iter().enumerate() {
        assert_eq!(*one, Err(libc::EROFS), "change {index}");
    }
    // A handle for reading does not write.
    assert_eq!(client.write((file, handle), 0, b"x", 0), Err(libc::EBADF));
    let hole = Words::default().u64(handle).u64(0).u64(4096).u32(0).u32(0);
    assert_eq!(client.ask(Ask::Fallocate, file, hole), Err(libc::EBADF));
    assert_eq!(everything(&place.beside("")), before);
}

#[test]
fn requests_whose_length_is_wrong_are_refused() {
    need!(root);
    let place = furnished();
    let mut served = place.serve_root();
    let client = &mut served.client;
    let down = client.walk("root/down").unwrap().id;
    let before = everything(&place.beside(""));
    let whole = client.request(
        Ask::Mkdir as u32,
        down,
        &Words::default().u32(0o755).u32(0).name(b"new").0,
    );
    for claimed in [0u32, 1, 39, 40, 47, 48, 4096, u32::MAX] {
        let mut request = whole.clone();
        request[..4].copy_from_slice(&claimed.to_le_bytes());
        let answer = client.driver.ask(1, &request, 256);
        let error = i32::from_le_bytes(answer[4..8].try_into().unwrap());
        assert!(
            [-libc::EINVAL, -libc::ENOMEM].contains(&error),
            "{claimed}: {error}"
        );
    }
    for cut in [1, 16, 39] {
        assert_eq!(client.driver.ask(1, &whole[..cut], 256), Vec::<u8>::new());
    }
    // No room for an answer.
    for room in [0, 1, 15] {
        let request = client.request(Ask::Read as u32, down, &[0; 40]);
        assert_eq!(client.driver.ask(1, &request, room), Vec::<u8>::new());
    }
    assert_eq!(everything(&place.beside("")), before);
    assert!(client.walk("root/down/file").is_ok());
}

#[test]
fn numbers_and_words_that_nobody_gave_out_are_refused() {
    need!(root);
    let place = furnished();
    let mut served = place.serve_root();
    let client = &mut served.client;
    for node in [0, 2, 77, u64::MAX] {
        assert_eq!(client.getattr(node).unwrap_err(), libc::EBADF, "{node}");
        assert_eq!(client.read(ROOT, node, 0, 64).unwrap_err(), libc::EBADF);
    }
    for opcode in [0, 7, 19, 52, 1000, u32::MAX] {
        let request = client.request(opcode, ROOT, &[0; 64]);
        let answer = client.driver.ask(1, &request, 256);
        assert_eq!(client.understand(&answer), Err(libc::ENOSYS), "{opcode}");
    }
}

/// A row of numbers that is the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[test]
fn whatever_a_guest_sends_nothing_outside_changes() {
    need!(root);
    let place = furnished();
    let mut served = place.serve_root();
    let outside = std::fs::read(place.beside("secret")).unwrap();
    let words: [&[u8]; 6] = [b"down", b"file", b"..", b"new", b"../secret", b"a/b"];
    let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
    for _ in 0..5000 {
        let mut body = Vec::new();
        for _ in 0..numbers.below(8) {
            let small = numbers.below(4);
            let number = if small == 0 {
                numbers.next()
            } else {
                numbers.below(64)
            };
            body.extend(number.to_le_bytes());
        }
        let word = words[usize::try_from(numbers.below(6)).unwrap()];
        body.extend(word);
        body.push(0);
        let opcode = u32::try_from(numbers.below(53)).unwrap();
        // Not to be forgotten: the first word, and the last.
        if opcode == Ask::Init as u32 || opcode == 38 {
            continue;
        }
        let node = numbers.below(12);
        let request = served.client.request(opcode, node, &body);
        served
            .client
            .driver
            .ask(usize::from(opcode == 2), &request, 8192);
    }
    assert_eq!(std::fs::read(place.beside("secret")).unwrap(), outside);
    let beside: Vec<_> = std::fs::read_dir(place.beside("")).unwrap().collect();
    assert_eq!(beside.len(), 2, "{beside:?}");
    // It may have forgotten even the root.
    served.client.mount();
    assert!(served.client.walk("root").is_ok());
}

#[test]
fn a_request_outside_the_guests_memory_is_left_unanswered() {
    need!(root);
    let place = furnished();
    let mut served = place.serve_root();
    let part = |address, length, writable| Part {
        address,
        length,
        writable,
    };
    let bad = [
        vec![part(u64::MAX - 8, 64, false)],
        vec![part(8 << 20, 64, false), part(0x40_0000, 64, true)],
        vec![part((8 << 20) - 8, 64, false), part(0x40_0000, 64, true)],
        vec![part(0x10_0000, 0, false), part(0x40_0000, 64, true)],
        vec![part(0x10_0000, u32::MAX, false), part(0x40_0000, 64, true)],
        vec![part(0x40_0000, 64, true)],
    ];
    for chain in bad {
        assert_eq!(
            served.client.driver.ask_parts(1, &chain),
            Some(0),
            "{chain:?}"
        );
    }
    assert!(served.client.walk("root/down/file").is_ok());
}

#[test]
fn a_ring_that_makes_no_sense_ends_the_service() {
    need!(root);
    let place = furnished();
    let mut served = place.serve_root();
    served.client.driver.publish(1, 1000);
    assert!(served.client.driver.is_lost());
    assert_eq!(std::fs::read(place.beside("secret")).unwrap(), b"outside");
}
