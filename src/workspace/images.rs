//! The directories of a saved workspace, and what else its saving and its return have in common.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;

use crate::backend::container::criu::Choices;
use crate::backend::container::criu::CriuError;
use crate::sys::Errno;
use crate::sys::path;

/// The annotation that names a file of CRIU options.
const CONFIG_ANNOTATION: &str = "org.criu.config";
/// The file of CRIU options when the annotation is not there, as with runc.
const CONFIG_USUAL: &str = "/etc/criu/runc.conf";

/// Where a workspace is saved, and how.
#[derive(Debug, Clone)]
pub struct Images {
    /// The directory of the images.
    pub path: PathBuf,
    /// The directory of CRIU's log and statistics; by default that of the images.
    pub work: Option<PathBuf>,
    /// As the caller wishes.
    pub choices: Choices,
}

/// A saved workspace is not as it must be.
#[derive(Debug, thiserror::Error)]
pub enum ImagesError {
    /// CRIU.
    #[error(transparent)]
    Criu(#[from] CriuError),
    /// A directory.
    #[error("{option}: cannot {what} {path:?}")]
    Directory {
        /// The option that names it.
        option: &'static str,
        /// What was tried.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The file that lists the standard streams.
    #[error("cannot {what} {path:?}")]
    Streams {
        /// What was tried.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The parent images are not where they are said to be.
    #[error("--parent-path: {path:?} must be relative to the image path and lead to a directory")]
    Parent {
        /// As it was given.
        path: PathBuf,
    },
    /// A file of options that somebody else could have written.
    #[error("annotations[{CONFIG_ANNOTATION}]: {path:?} is refused: {why}")]
    Config {
        /// As it was given.
        path: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// It shares the host's mounts.
    #[error("linux.namespaces: only a workspace with a mount namespace of its own can be saved")]
    NoMountNamespace,
    /// Its root is an overlay.
    #[error(
        "annotations.dev.bulkhead.rootfs.upper: a workspace with a writable layer of its own cannot be saved or restored yet; give it a root filesystem of its own"
    )]
    Layered,
    /// The host's end of its link is not among the images.
    #[error(
        "annotations.dev.bulkhead.network: a workspace on a bridge cannot be saved or restored yet; use none, host or a namespace of yours"
    )]
    Bridged,
    /// It joins a namespace that cannot be joined again.
    #[error("linux.namespaces: CRIU cannot restore into a given {kind} namespace")]
    Joined {
        /// Of which kind.
        kind: String,
    },
    /// A mount that must be read-only is not, inside.
    #[error("mounts: what {destination:?} shows must be read-only and is mounted writable inside")]
    Writable {
        /// Where it should be.
        destination: PathBuf,
    },
}

/// The directories, open.
#[derive(Debug)]
pub(super) struct Directories {
    pub(super) images: OwnedFd,
    pub(super) work: OwnedFd,
    /// Where the log is, for those who read of it.
    pub(super) log: PathBuf,
}

impl Images {
    /// Opens the directories, and makes those that are missing: all, or all but that of the images.
    pub(super) fn open(&self, make: bool) -> Result<Directories, ImagesError> {
        let images = directory("--image-path", &self.path, make)?;
        let work = match &self.work {
            Some(work) => directory("--work-path", work, true)?,
            None => directory("--image-path", &self.path, false)?,
        };
        let log = self.work.as_ref().unwrap_or(&self.path);
        Ok(Directories {
            images,
            work,
            log: std::path::absolute(log).unwrap_or_else(|_| log.clone()),
        })
    }

    /// Makes sure that the parent images are there; CRIU would say that only in its log, and save all of the memory.
    pub(super) fn check_parent(&self) -> Result<(), ImagesError> {
        let Some(parent) = &self.choices.parent else {
            return Ok(());
        };
        if parent.is_absolute() || !self.path.join(parent).is_dir() {
            return Err(ImagesError::Parent {
                path: parent.clone(),
            });
        }
        Ok(())
    }
}

fn directory(option: &'static str, path: &Path, make: bool) -> Result<OwnedFd, ImagesError> {
    let failed = |what, source: std::io::Error| ImagesError::Directory {
        option,
        what,
        path: path.to_owned(),
        source,
    };
    if make {
        let mut builder = std::fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|source| failed("make", source))?;
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| failed("open", errno.into()))
}

/// The file of CRIU options that the annotations ask for, held open so that what was checked is what is read.
///
/// Such a file can name a program that CRIU runs as root. So it must be one that only the administrator can have
/// written, and not come out of the image.
pub(super) fn options_file(
    annotations: &BTreeMap<String, String>,
    rootfs: &Path,
) -> Result<Option<OwnedFd>, ImagesError> {
    let asked = annotations.get(CONFIG_ANNOTATION).map(String::as_str);
    let path = match asked {
        Some("") => return Ok(None),
        Some(path) => Path::new(path),
        None => Path::new(CONFIG_USUAL),
    };
    let refused = |why| ImagesError::Config {
        path: path.to_owned(),
        why,
    };
    if !path.is_absolute() {
        return Err(refused("it must be absolute"));
    }
    if path.starts_with(rootfs) {
        return Err(refused("it lies in the root filesystem"));
    }
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|_| refused("it cannot be opened"))?;
    for above in path.ancestors().skip(1) {
        let place = path::open_plain_in(&root, above, OFlags::PATH);
        match place.map(|place| only_the_administrators(&place, true)) {
            Err(Errno::NOENT) if asked.is_none() => return Ok(None),
            Ok(true) => {}
            Ok(false) => return Err(refused("others can write to a directory above it")),
            Err(_) => return Err(refused("a directory above it is a link or missing")),
        }
    }
    match path::open_plain_in(&root, path, OFlags::RDONLY | OFlags::NONBLOCK) {
        // CRIU too does without a file that is not there.
        Err(Errno::NOENT) => Ok(None),
        Err(_) => Err(refused("it is a link or cannot be opened")),
        Ok(file) if only_the_administrators(&file, false) => Ok(Some(file)),
        Ok(_) => Err(refused("it must be a file that only root can write to")),
    }
}

/// Whether nobody but root (or the caller) can change it; a sticky directory keeps others from replacing files.
fn only_the_administrators(place: &OwnedFd, directory: bool) -> bool {
    let own = rustix::process::geteuid().as_raw();
    rustix::fs::fstat(place).is_ok_and(|stat| {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let sticky = directory && stat.st_mode & 0o1000 != 0;
        (directory || kind == FileType::RegularFile)
            && (stat.st_uid == 0 || stat.st_uid == own)
            && (stat.st_mode & 0o022 == 0 || sticky)
    })
}

/// A path of this process's descriptor for CRIU, which looks from outside.
pub(super) fn path_of(file: &OwnedFd) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(path: &Path) -> Result<Option<OwnedFd>, ImagesError> {
        let name = (CONFIG_ANNOTATION.to_owned(), path.display().to_string());
        options_file(&BTreeMap::from([name]), Path::new("/no/rootfs"))
    }

    fn file(mode: u32) -> (tempfile::TempDir, PathBuf) {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().canonicalize().unwrap().join("criu.conf");
        std::fs::write(&path, "log-level 4\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&path, mode).unwrap();
        (home, path)
    }

    #[test]
    fn a_file_that_only_the_caller_can_write_is_taken() {
        let (_home, path) = file(0o644);
        assert!(asked(&path).unwrap().is_some());
    }

    #[test]
    fn a_file_that_others_can_write_is_refused() {
        let (_home, path) = file(0o666);
        let refusal = asked(&path).unwrap_err().to_string();
        assert!(refusal.contains("only root can write"), "{refusal}");
    }

    #[test]
    fn a_link_to_a_file_is_refused() {
        let (home, path) = file(0o644);
        let link = home.path().canonicalize().unwrap().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(asked(&link).is_err());
    }

    #[test]
    fn a_file_of_the_image_is_refused() {
        let (_home, path) = file(0o644);
        let name = (CONFIG_ANNOTATION.to_owned(), path.display().to_string());
        let refusal = options_file(&BTreeMap::from([name]), path.parent().unwrap());
        assert!(refusal.unwrap_err().to_string().contains("root filesystem"));
    }

    #[test]
    fn an_empty_annotation_means_no_file() {
        let none = BTreeMap::from([(CONFIG_ANNOTATION.to_owned(), String::new())]);
        assert!(options_file(&none, Path::new("/r")).unwrap().is_none());
    }
}
