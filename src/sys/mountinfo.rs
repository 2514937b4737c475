//! Reads which mounts a process sees (`proc_pid_mountinfo(5)`).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::path::PathBuf;

/// One mount of a mount namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// Its number.
    pub id: u32,
    /// The number of the mount that it stands on.
    pub parent: u32,
    /// The device of its file system, `major:minor`.
    pub device: String,
    /// What of that file system is seen.
    pub root: PathBuf,
    /// Where it is, from the process's root on.
    pub at: PathBuf,
    /// Whether nobody can write through it.
    pub read_only: bool,
}

impl Mounted {
    /// Whether both show the same part of the same file system.
    #[must_use]
    pub fn shows_same(&self, other: &Self) -> bool {
        self.device == other.device && self.root == other.root
    }
}

/// The mounts that process `pid` sees, in the order in which they were made.
///
/// # Errors
///
/// Fails as reading `/proc/PID/mountinfo` does; `EINVAL` for a process that has ended.
pub fn of_process(pid: i32) -> std::io::Result<Vec<Mounted>> {
    let text = std::fs::read(format!("/proc/{pid}/mountinfo"))?;
    Ok(text.split(|byte| *byte == b'\n').filter_map(line).collect())
}

/// The mount that is seen at `path`: the last that was put there.
#[must_use]
pub fn at<'a>(mounts: &'a [Mounted], path: &Path) -> Option<&'a Mounted> {
    mounts.iter().rev().find(|mounted| mounted.at == path)
}

fn line(line: &[u8]) -> Option<Mounted> {
    let mut fields = line.split(|byte| *byte == b' ');
    let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse().ok();
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let device = String::from_utf8(fields.next()?.to_vec()).ok()?;
    let root = path(fields.next()?);
    let at = path(fields.next()?);
    let read_only = fields
        .next()?
        .split(|byte| *byte == b',')
        .any(|option| option == b"ro");
    Some(Mounted {
        id,
        parent,
        device,
        root,
        at,
        read_only,
    })
}

/// Spaces, tabs, newlines and backslashes are written as three octal digits.
fn path(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| *first == b'\\');
        let octal = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(octal.unwrap_or(*first));
        rest = after
            .get(if octal.is_some() { 3 } else { 0 }..)
            .unwrap_or_default();
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_with_its_escapes() {
        let text = b"36 35 98:0 /mnt1 /a\\040b\\134 ro,noatime master:1 - ext3 /dev/root rw";
        assert_eq!(
            line(text),
            Some(Mounted {
                id: 36,
                parent: 35,
                device: "98:0".to_owned(),
                root: "/mnt1".into(),
                at: "/a b\\".into(),
                read_only: true,
            })
        );
    }

    #[test]
    fn this_process_sees_a_root() {
        let own = i32::try_from(std::process::id()).unwrap();
        let mounts = of_process(own).unwrap();
        assert!(at(&mounts, Path::new("/")).is_some());
    }
}
