//! What an entry of an archive says about itself, from its header and the records before it.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::FileType;
use rustix::fs::Gid;
use rustix::fs::Timespec;
use rustix::fs::Timestamps;
use rustix::fs::Uid;
use tar::EntryType;

use super::content::Sparse;
use crate::image::error::Fault;
use crate::image::extended;
use crate::image::extended::Record;
use crate::image::place;
use crate::image::place::refused;

/// What stands before the name of an attribute.
const ATTRIBUTE: &[u8] = b"SCHILY.xattr.";

/// What an entry is like.
#[derive(Debug)]
pub(super) struct About {
    /// Its path, clean.
    pub(super) path: PathBuf,
    /// What it is; a hard link is a regular file.
    pub(super) kind: FileType,
    /// The file that it is another name of, clean.
    pub(super) hard_link: Option<PathBuf>,
    /// The text of a symbolic link.
    pub(super) target: PathBuf,
    /// How long the file is, in bytes, with its holes.
    pub(super) size: u64,
    /// Where its data lie, when that stands in its content.
    pub(super) sparse: Option<Sparse>,
    pub(super) mode: u32,
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    /// Seconds since 1970, and nanoseconds.
    pub(super) mtime: i64,
    nanoseconds: i64,
    pub(super) device: (u32, u32),
    records: Vec<Record>,
}

impl About {
    /// Reads header and records of an entry.
    pub(super) fn of<R: Read>(
        entry: &tar::Entry<'_, R>,
        records: Vec<Record>,
    ) -> Result<Self, Fault> {
        let header = entry.header();
        let sparse = Sparse::of(&records);
        let older = |(key, _): &Record| key.starts_with(b"GNU.sparse.");
        if sparse.is_none() && records.iter().any(older) {
            let why =
                "a sparse file of a format before 1.0; write the layer anew, without --sparse";
            return Err(refused(
                Path::new(OsStr::from_bytes(&entry.path_bytes())),
                why,
            ));
        }
        let named = match &sparse {
            Some(_) => records_of(&records, "GNU.sparse.name"),
            None => None,
        };
        let text = named
            .or_else(|| records_of(&records, "path"))
            .unwrap_or_else(|| entry.path_bytes().into_owned());
        let path = place::clean(&text)?;
        let kind = kind_of(header.entry_type(), &path, &text)?;
        let stated =
            extended::number(&records, "size").filter(|_| !header.entry_type().is_gnu_sparse());
        if stated.is_some_and(|size| size != entry.size()) {
            return Err(refused(&path, "its header states two sizes"));
        }
        let target = records_of(&records, "linkpath")
            .or_else(|| entry.link_name_bytes().map(std::borrow::Cow::into_owned))
            .unwrap_or_default();
        let holds = kind == FileType::RegularFile && !header.entry_type().is_hard_link();
        let (mtime, nanoseconds) = mtime(&records, header.mtime()?);
        Ok(Self {
            hard_link: match header.entry_type().is_hard_link() {
                true => Some(link_target(&target, &path)?),
                false => None,
            },
            size: if holds {
                sparse.as_ref().map_or(entry.size(), |sparse| sparse.size)
            } else {
                0
            },
            target: Path::new(OsStr::from_bytes(&target)).to_owned(),
            sparse,
            mode: header.mode()? & 0o7777,
            uid: Uid::from_raw(id(&records, "uid", header.uid()?, &path)?),
            gid: Gid::from_raw(id(&records, "gid", header.gid()?, &path)?),
            mtime,
            nanoseconds,
            device: device(header, kind)?,
            path,
            kind,
            records,
        })
    }

    /// Both times of a file.
    pub(super) fn times(&self) -> Timestamps {
        times(self.mtime, self.nanoseconds)
    }

    /// Its extended attributes.
    pub(super) fn attributes(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.records
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(ATTRIBUTE)?, value.as_slice())))
    }
}

fn records_of(records: &[Record], key: &str) -> Option<Vec<u8>> {
    extended::value(records, key).map(<[u8]>::to_vec)
}

fn kind_of(kind: EntryType, path: &Path, text: &[u8]) -> Result<FileType, Fault> {
    if kind.is_dir() {
        return Ok(FileType::Directory);
    }
    if kind.is_symlink() {
        return Ok(FileType::Symlink);
    }
    if kind.is_fifo() {
        return Ok(FileType::Fifo);
    }
    if kind.is_character_special() {
        return Ok(FileType::CharacterDevice);
    }
    if kind.is_block_special() {
        return Ok(FileType::BlockDevice);
    }
    if kind.is_hard_link() || kind.is_contiguous() || kind.is_gnu_sparse() {
        return Ok(FileType::RegularFile);
    }
    if kind.is_file() {
        // Archives older than POSIX know a directory by the slash at its end.
        let directory = text.ends_with(b"/");
        return Ok(if directory {
            FileType::Directory
        } else {
            FileType::RegularFile
        });
    }
    let why = format!("an entry of type {:#04x} is not known", kind.as_byte());
    Err(refused(path, why))
}

/// The numbers of a device; in other entries of some tools there are none.
fn device(header: &tar::Header, kind: FileType) -> Result<(u32, u32), Fault> {
    match kind {
        FileType::CharacterDevice | FileType::BlockDevice => Ok((
            header.device_major()?.unwrap_or_default(),
            header.device_minor()?.unwrap_or_default(),
        )),
        FileType::RegularFile
        | FileType::Directory
        | FileType::Symlink
        | FileType::Fifo
        | FileType::Socket
        | FileType::Unknown => Ok((0, 0)),
    }
}

fn link_target(target: &[u8], path: &Path) -> Result<PathBuf, Fault> {
    let clean = place::clean(target)?;
    if clean.as_os_str().is_empty() {
        return Err(refused(path, "it is a hard link to nothing"));
    }
    Ok(clean)
}

/// A user or group: the record, which has room for all numbers, before the header.
fn id(records: &[Record], key: &str, header: u64, path: &Path) -> Result<u32, Fault> {
    let number = extended::number(records, key).unwrap_or(header);
    u32::try_from(number)
        .ok()
        .filter(|number| *number != u32::MAX)
        .ok_or_else(|| refused(path, format!("no {key} can be {number}")))
}

/// The time of the last change, from the record with fractions of a second, or the header.
fn mtime(records: &[Record], header: u64) -> (i64, i64) {
    let whole = (i64::try_from(header).unwrap_or_default(), 0);
    let Some(text) =
        extended::value(records, "mtime").and_then(|text| std::str::from_utf8(text).ok())
    else {
        return whole;
    };
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = format!("{fraction:0<9}");
    let nanoseconds = digits.get(..9).and_then(|digits| digits.parse().ok());
    let before = text.starts_with('-');
    match (seconds.parse::<i64>(), nanoseconds) {
        // What is before 1970 counts its fraction backwards.
        (Ok(seconds), Some(nanoseconds)) if !before || nanoseconds == 0 => (seconds, nanoseconds),
        (Ok(seconds), Some(nanoseconds)) => {
            (seconds.saturating_sub(1), 1_000_000_000 - nanoseconds)
        }
        _ => whole,
    }
}

/// Times as the kernel takes them: of access and of change, both the same.
pub(super) fn times(seconds: i64, nanoseconds: i64) -> Timestamps {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Attributes that belong to the files. What the kernel keeps in others, such as its notes on the layers of an overlay,
/// no image may set.
pub(super) fn may_be_set(name: &[u8]) -> bool {
    let overlay = name.starts_with(b"user.overlay.");
    name == b"security.capability"
        || (name.starts_with(b"user.") && !overlay)
        || name.starts_with(b"system.posix_acl_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_fractions_and_may_be_before_1970() {
        let of = |text: &str| mtime(&[(b"mtime".to_vec(), text.as_bytes().to_vec())], 7);
        assert_eq!(of("12.5"), (12, 500_000_000));
        assert_eq!(of("-1.25"), (-2, 750_000_000));
        assert_eq!(of("x"), (7, 0));
    }

    #[test]
    fn notes_of_the_kernel_are_no_attributes_of_files() {
        assert!(may_be_set(b"user.note"));
        assert!(may_be_set(b"security.capability"));
        assert!(!may_be_set(b"trusted.overlay.redirect"));
        assert!(!may_be_set(b"user.overlay.opaque"));
        assert!(!may_be_set(b"security.selinux"));
    }
}
