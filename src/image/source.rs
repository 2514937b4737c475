//! Where the parts of an image are read from: a directory, or the members of an archive as they lie in it.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::OFlags;

use super::error::ImageError;
use crate::sys::path;

/// The file that says that a directory or an archive is an image.
const LAYOUT: &str = "oci-layout";
/// The list of the images in it.
const INDEX: &str = "index.json";
/// The longest document that is read whole, in bytes.
const LONGEST_DOCUMENT: u64 = 8 << 20;
/// How many members an archive may have.
const MOST_MEMBERS: usize = 100_000;

/// An image as it lies on a disk.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    parts: Parts,
}

#[derive(Debug)]
enum Parts {
    /// A layout: a directory of files.
    Directory(OwnedFd),
    /// An archive of one: where each member begins, and how long it is.
    Archive {
        file: File,
        members: HashMap<PathBuf, (u64, u64)>,
    },
}

/// A part of a file, read from its beginning to its end.
#[derive(Debug)]
pub(super) struct Section {
    file: File,
    at: u64,
    left: u64,
}

impl Read for Section {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let most = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(into.len());
        let read = self
            .file
            .read_at(into.get_mut(..most).unwrap_or_default(), self.at)?;
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

impl Source {
    /// Whether a directory is an OCI layout.
    #[must_use]
    pub fn is_layout(directory: &Path) -> bool {
        directory.join(LAYOUT).is_file()
    }

    /// Opens the layout or archive at `path`.
    ///
    /// # Errors
    ///
    /// [`ImageError`] when it cannot be read, or is neither.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        let unreadable = |source| ImageError::Unreadable {
            file: path.to_owned(),
            part: "it".to_owned(),
            source,
        };
        let file = File::open(path).map_err(unreadable)?;
        let parts = if file.metadata().map_err(unreadable)?.is_dir() {
            Parts::Directory(file.into())
        } else {
            let members = members(&file).map_err(|why| ImageError::Malformed {
                file: path.to_owned(),
                part: "it".to_owned(),
                why: format!("as a tar archive it cannot be read: {why}"),
            })?;
            Parts::Archive { file, members }
        };
        let source = Self {
            path: path.to_owned(),
            parts,
        };
        source.document(LAYOUT)?;
        Ok(source)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The list of the images in it.
    pub(super) fn index(&self) -> Result<Vec<u8>, ImageError> {
        self.document(INDEX)
    }

    /// The part with a digest, not verified.
    pub(super) fn blob(&self, digest: &str) -> Result<Section, ImageError> {
        let (algorithm, value) = digest.split_once(':').unwrap_or(("", digest));
        self.section(&format!("blobs/{algorithm}/{value}"))
    }

    fn document(&self, name: &str) -> Result<Vec<u8>, ImageError> {
        let mut bytes = Vec::new();
        self.section(name)?
            .take(LONGEST_DOCUMENT + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| self.unreadable(name, source))?;
        if bytes.len() as u64 > LONGEST_DOCUMENT {
            return Err(self.unreadable(name, std::io::ErrorKind::FileTooLarge.into()));
        }
        Ok(bytes)
    }

    fn section(&self, name: &str) -> Result<Section, ImageError> {
        let found = match &self.parts {
            Parts::Directory(directory) => whole(directory, name),
            Parts::Archive { file, members } => match members.get(Path::new(name)) {
                Some((at, left)) => file.try_clone().map(|file| Section {
                    file,
                    at: *at,
                    left: *left,
                }),
                None => Err(std::io::ErrorKind::NotFound.into()),
            },
        };
        found.map_err(|source| self.unreadable(name, source))
    }

    fn unreadable(&self, name: &str, source: std::io::Error) -> ImageError {
        ImageError::Unreadable {
            file: self.path.clone(),
            part: name.to_owned(),
            source,
        }
    }
}

/// A file of a layout, found inside it and nowhere else.
fn whole(directory: &OwnedFd, name: &str) -> std::io::Result<Section> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(path::open_in(directory, Path::new(name), flags)?);
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    Ok(Section {
        file,
        at: 0,
        left: about.len(),
    })
}

/// Where the members of an archive lie; nothing is unpacked.
fn members(file: &File) -> std::io::Result<HashMap<PathBuf, (u64, u64)>> {
    let mut archive = tar::Archive::new(file);
    let mut found = HashMap::new();
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        if found.len() >= MOST_MEMBERS {
            return Err(std::io::Error::other(format!(
                "more than {MOST_MEMBERS} members"
            )));
        }
        let name: PathBuf = entry.path()?.components().collect();
        let name = name.strip_prefix(".").map(Path::to_owned).unwrap_or(name);
        found.insert(name, (entry.raw_file_position(), entry.size()));
    }
    Ok(found)
}
