//! Where unpacked images are kept: one directory for each stack of layers, made as a whole or not at all.
//!
//! ```text
//! DATA/images/sha256-CHAIN/rootfs      the tree, never written again
//! DATA/images/sha256-CHAIN/image.json  which images it was unpacked from
//! DATA/images/.new-...                 one that is being made, or was when its maker was killed
//! DATA/images/.old-...                 one that is being removed, or was
//! ```
//!
//! Who makes or removes one holds a lock on `DATA/images`. Who only uses one needs none: it is there under its name only
//! after all of it was verified, and is on the disk.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::SystemTime;

use serde::Deserialize;
use serde::Serialize;

use super::Limits;
use super::choose::Chosen;
use super::error::ImageError;
use super::source::Source;
use crate::sys::tree;

/// What says that a tree is whole.
const MARK: &str = "image.json";
/// The tree.
const ROOTFS: &str = "rootfs";
/// How many origins of a tree are remembered.
const MOST_ORIGINS: usize = 16;
/// How long a tree is kept that somebody has asked for and nobody uses yet.
const FRESH: Duration = Duration::from_secs(600);

/// The unpacked images of one state root.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// An image that a tree was unpacked from, or would have been.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The digest of its manifest.
    pub manifest: String,
    /// The file or directory that it was read from.
    pub source: String,
}

/// What is written beside a tree.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Mark {
    chain: String,
    content_bytes: u64,
    origins: Vec<Origin>,
}

/// An unpacked image.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The name of its layers together.
    pub chain: String,
    /// Its tree.
    pub rootfs: PathBuf,
    /// What its files hold, in bytes.
    pub content_bytes: u64,
    /// What it was unpacked from, the first one first.
    pub origins: Vec<Origin>,
    home: PathBuf,
}

impl Entry {
    /// Whether a digest, or the beginning of one, means this image.
    #[must_use]
    pub fn is_meant_by(&self, digest: &str) -> bool {
        let wanted = digest.strip_prefix("sha256:").unwrap_or(digest);
        let names = self.origins.iter().map(|origin| &origin.manifest);
        let mut names = names.chain([&self.chain]);
        wanted.len() >= 6
            && names.any(|name| {
                let value = name
                    .split_once(':')
                    .map_or(name.as_str(), |(_, value)| value);
                value.starts_with(wanted)
            })
    }
}

impl Store {
    /// The store in a directory, which need not be there yet.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The tree of an image, unpacked now unless it was before.
    ///
    /// # Errors
    ///
    /// [`ImageError`]; nothing of it is to be seen then.
    pub fn provide(
        &self,
        source: &Source,
        chosen: &Chosen,
        limits: Limits,
        remark: &mut dyn FnMut(String),
    ) -> Result<PathBuf, ImageError> {
        let name = name_of(&chosen.chain);
        let home = self.root.join(&name);
        let origin = Origin {
            manifest: chosen.manifest.clone(),
            source: source.path().display().to_string(),
        };
        if let Some(mark) = read(&home)
            && mark.origins.contains(&origin)
        {
            touch(&home);
            return Ok(home.join(ROOTFS));
        }
        let lock = self.lock()?;
        if let Some(mut mark) = read(&home) {
            if !mark.origins.contains(&origin) {
                mark.origins.truncate(MOST_ORIGINS - 1);
                mark.origins.push(origin);
                write(&home, &mark)?;
            }
            touch(&home);
            return Ok(home.join(ROOTFS));
        }
        self.sweep(&lock)?;
        let fresh = self.root.join(format!(".new-{name}"));
        let made = make(&fresh, source, chosen, limits, remark).and_then(|content_bytes| {
            let mark = Mark {
                chain: chosen.chain.clone(),
                content_bytes,
                origins: vec![origin],
            };
            write(&fresh, &mark)?;
            rustix::fs::syncfs(&lock).map_err(|errno| failed("sync", &fresh)(errno.into()))?;
            std::fs::rename(&fresh, &home).map_err(failed("rename", &fresh))?;
            lock.sync_all().map_err(failed("sync", &self.root))
        });
        if let Err(error) = made {
            self.sweep(&lock)?;
            return Err(error);
        }
        Ok(home.join(ROOTFS))
    }

    /// All of them, by the names of their layers.
    ///
    /// # Errors
    ///
    /// Fails when the directory is there and cannot be read.
    pub fn entries(&self) -> Result<Vec<Entry>, ImageError> {
        let read_directory = match std::fs::read_dir(&self.root) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            answer => answer.map_err(failed("read", &self.root))?,
        };
        let homes = read_directory.flatten().map(|entry| entry.path());
        let visible = homes.filter(|home| !hidden(home));
        let mut found: Vec<Entry> = visible
            .filter_map(|home| {
                let mark = read(&home)?;
                Some(Entry {
                    chain: mark.chain,
                    rootfs: home.join(ROOTFS),
                    content_bytes: mark.content_bytes,
                    origins: mark.origins,
                    home,
                })
            })
            .collect();
        found.sort_by(|one, other| one.chain.cmp(&other.chain));
        Ok(found)
    }

    /// Removes those that `unwanted` says, which is asked while nobody else can add or remove any; gives them.
    ///
    /// # Errors
    ///
    /// [`ImageError::Left`] names what cannot be removed.
    pub fn remove(&self, unwanted: &dyn Fn(&Entry) -> bool) -> Result<Vec<Entry>, ImageError> {
        if !self.root.exists() {
            return Ok(Vec::new());
        }
        let lock = self.lock()?;
        let mut removed = Vec::new();
        for entry in self.entries()? {
            if !unwanted(&entry) {
                continue;
            }
            let name = entry.home.file_name().unwrap_or_default();
            let old = self.root.join(format!(".old-{}", name.display()));
            std::fs::rename(&entry.home, old).map_err(failed("rename", &entry.home))?;
            removed.push(entry);
        }
        self.sweep(&lock)?;
        Ok(removed)
    }

    /// Whether somebody has asked for it within the last minutes, and may be about to use it.
    #[must_use]
    pub fn is_fresh(entry: &Entry) -> bool {
        let touched = std::fs::metadata(&entry.home).and_then(|about| about.modified());
        touched.is_ok_and(|time| {
            SystemTime::now()
                .duration_since(time)
                .is_ok_and(|age| age < FRESH)
        })
    }

    /// Makes the directory when it is missing, and waits until nobody else changes it.
    fn lock(&self) -> Result<File, ImageError> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder
            .create(&self.root)
            .map_err(failed("make", &self.root))?;
        let opened = File::open(&self.root).map_err(failed("open", &self.root))?;
        opened.lock().map_err(failed("lock", &self.root))?;
        Ok(opened)
    }

    /// Removes what others have left half made or half removed: whoever works at one holds the lock.
    fn sweep(&self, lock: &File) -> Result<(), ImageError> {
        let entries = std::fs::read_dir(&self.root).map_err(failed("read", &self.root))?;
        for entry in entries.flatten().filter(|entry| hidden(&entry.path())) {
            tree::remove(lock.as_fd(), &entry.file_name()).map_err(|source| ImageError::Left {
                path: entry.path(),
                source,
            })?;
        }
        Ok(())
    }
}

/// Makes a tree in a directory of its own; gives how much is in it.
fn make(
    fresh: &Path,
    source: &Source,
    chosen: &Chosen,
    limits: Limits,
    remark: &mut dyn FnMut(String),
) -> Result<u64, ImageError> {
    let rootfs = fresh.join(ROOTFS);
    for (path, mode) in [(fresh, 0o700), (rootfs.as_path(), 0o755)] {
        let mut builder = std::fs::DirBuilder::new();
        builder
            .mode(mode)
            .create(path)
            .map_err(failed("make", path))?;
    }
    // Whatever mask the caller has: an image that says nothing of its root has one that all may enter.
    rustix::fs::chmod(&rootfs, rustix::fs::Mode::from_raw_mode(0o755))
        .map_err(|errno| failed("change the mode of", &rootfs)(errno.into()))?;
    super::unpack(source, chosen, &rootfs, limits, remark)
}

fn read(home: &Path) -> Option<Mark> {
    serde_json::from_slice(&std::fs::read(home.join(MARK)).ok()?).ok()
}

/// Puts the mark in place as a whole.
fn write(home: &Path, mark: &Mark) -> Result<(), ImageError> {
    let path = home.join(MARK);
    let new = home.join(format!(".{MARK}"));
    let text =
        serde_json::to_vec_pretty(mark).map_err(|error| failed("write", &path)(error.into()))?;
    let mut file = File::create(&new).map_err(failed("make", &new))?;
    file.write_all(&text)
        .and_then(|()| file.sync_all())
        .map_err(failed("write", &new))?;
    std::fs::rename(&new, &path).map_err(failed("rename", &new))
}

/// Notes that it was asked for; one who may not note it may still use it.
fn touch(home: &Path) {
    let now = std::fs::FileTimes::new().set_modified(SystemTime::now());
    let noted = File::open(home).and_then(|opened| opened.set_times(now));
    noted.unwrap_or_default();
}

fn name_of(chain: &str) -> String {
    chain.replace(':', "-")
}

fn hidden(path: &Path) -> bool {
    let name = path.file_name().unwrap_or(OsStr::new("."));
    name.as_encoded_bytes().starts_with(b".")
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> ImageError {
    let path = path.to_owned();
    move |source| ImageError::Store { what, path, source }
}
