//! The standard streams of a first process: under which names an image knows those that are the host's, so that a
//! restored process is given new ones in their place.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;

use crate::sys::mountinfo;

/// The file that lists them beside the images, as runc does.
pub(super) const FILE: &str = "descriptors.json";

/// A standard stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stream {
    /// Its name in an image, or where it leads when it is of no concern.
    pub(super) key: String,
    /// Whether it is a file of the host's, which CRIU must be told.
    pub(super) external: bool,
}

/// The standard streams of process `pid`; one that is closed has no name.
pub(super) fn of(pid: i32) -> io::Result<Vec<Stream>> {
    let inside: BTreeSet<u32> = mountinfo::of_process(pid)?
        .iter()
        .map(|mounted| mounted.id)
        .collect();
    Ok((0..3).map(|fd| one(pid, fd, &inside)).collect())
}

fn one(pid: i32, fd: u32, inside: &BTreeSet<u32>) -> Stream {
    let link = format!("/proc/{pid}/fd/{fd}");
    let target = std::fs::read_link(&link)
        .map(|target| target.to_string_lossy().into_owned())
        .unwrap_or_default();
    let plain = Stream {
        key: target,
        external: false,
    };
    if !plain.key.starts_with('/') {
        return plain;
    }
    let (Ok(file), Some(mount)) = (std::fs::metadata(&link), mount_of(pid, fd)) else {
        return plain;
    };
    if inside.contains(&mount) {
        return plain;
    }
    let key = match file.file_type().is_char_device() && is_terminal(file.rdev()) {
        true => format!("tty[{:x}:{:x}]", file.rdev(), file.dev()),
        false => format!("file[{mount:x}:{:x}]", file.ino()),
    };
    Stream {
        key,
        external: true,
    }
}

/// The number of the mount that a descriptor was opened on.
fn mount_of(pid: i32, fd: u32) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("mnt_id:"))?;
    line.trim().parse().ok()
}

/// Whether a device number is that of a terminal: virtual consoles, serial lines and pseudo terminals.
fn is_terminal(device: u64) -> bool {
    matches!(rustix::fs::major(device), 4 | 5 | 136..=143)
}

/// Which descriptors of ours take the place of the streams in `list`, the contents of [`FILE`].
pub(super) fn inherited(list: &[u8]) -> Result<Vec<(String, i32)>, serde_json::Error> {
    let keys: Vec<String> = serde_json::from_slice(list)?;
    let host = |key: &String| {
        ["pipe:", "socket:", "file[", "tty["]
            .iter()
            .any(|kind| key.starts_with(kind))
    };
    let mut taken: Vec<(String, i32)> = Vec::new();
    for (key, fd) in keys.into_iter().zip(0..3) {
        if host(&key) && taken.iter().all(|(other, _)| *other != key) {
            taken.push((key, fd));
        }
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_is_two_is_inherited_once() {
        let list = br#"["/dev/null","pipe:[7]","pipe:[7]"]"#;
        assert_eq!(inherited(list).unwrap(), [("pipe:[7]".to_owned(), 1)]);
    }

    #[test]
    fn only_streams_of_the_host_are_inherited() {
        let list = br#"["/etc/passwd","file[1f:a]","socket:[9]"]"#;
        let keys: Vec<String> = inherited(list)
            .unwrap()
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        assert_eq!(keys, ["file[1f:a]", "socket:[9]"]);
        assert!(inherited(b"{}").is_err());
    }
}
