//! Workspace documents on disk: reads one, and finds what its meaning depends on.
//!
//! Nothing is made here. What is found is true at that moment only; whoever makes the workspace meets the rest.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use crate::spec::asked::Isolation;
use crate::spec::asked::Layer;
use crate::spec::image::ImageDefaults;
use crate::spec::workspace::Document;
use crate::spec::workspace::DocumentError;
use crate::spec::workspace::Format;
use crate::spec::workspace::Surroundings;
use crate::workspace::image_user;
use crate::workspace::report::Report;
use crate::workspace::root::StateRoot;
use crate::workspace::rootfs;
use crate::workspace::rootfs::RootfsError;

/// The largest document that is read: far more than any has, and little to hold.
const LARGEST: u64 = 1 << 20;

/// The name that stands for standard input.
const STANDARD_INPUT: &str = "-";

/// A document that has been read, and the directory that it is relative to.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// What it says.
    pub document: Document,
    /// The directory of its file, absolute; the present one for standard input.
    pub base: PathBuf,
    /// The wall that the command line names; it wins over the document.
    pub isolation: Option<Isolation>,
}

/// Why a document cannot be used. The text starts with the file.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("{file}: cannot be read")]
    Read {
        /// As it was named.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file is so large that it can be no document.
    #[error("{file}: is larger than {LARGEST} bytes, which no workspace document is")]
    TooLarge {
        /// As it was named.
        file: String,
    },
    /// Its root filesystem is not there, or is none.
    #[error("{place}")]
    Rootfs {
        /// The file and the line.
        place: String,
        /// Why.
        source: Box<RootfsError>,
    },
    /// What it says is wrong.
    #[error(transparent)]
    Document(#[from] DocumentError),
}

/// Reads a document; `-` is standard input. JSON is known by its first brace.
///
/// # Errors
///
/// [`LoadError`] when the file cannot be read or does not say what a document may say.
pub fn load(path: &Path, isolation: Option<Isolation>) -> Result<Loaded, LoadError> {
    let standard = path == Path::new(STANDARD_INPUT);
    let file = match standard {
        true => "standard input".to_owned(),
        false => path.display().to_string(),
    };
    let failed = |source| LoadError::Read {
        file: file.clone(),
        source,
    };
    let bytes = match standard {
        true => bounded(std::io::stdin().lock()),
        false => File::open(path).and_then(bounded),
    };
    let text = bytes.map_err(failed)?;
    if text.len() as u64 > LARGEST {
        return Err(LoadError::TooLarge { file });
    }
    let document = Document::read(&text, Format::of(&text), &file)?;
    let beside = match standard {
        true => Path::new(""),
        false => path.parent().unwrap_or(Path::new("")),
    };
    let base = match beside.as_os_str().is_empty() {
        true => std::env::current_dir(),
        false => std::path::absolute(beside),
    };
    Ok(Loaded {
        document,
        base: base.map_err(failed)?,
        isolation,
    })
}

/// The text of a document and at most one byte more than it can have.
fn bounded(from: impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    from.take(LARGEST + 1).read_to_string(&mut text)?;
    Ok(text)
}

impl Loaded {
    /// What the document's meaning depends on: its root filesystem, and the block device that this is on.
    ///
    /// `layer` is the writable layer above the root, where there will be one; what is written goes to its device.
    ///
    /// # Errors
    ///
    /// [`LoadError`] when the root filesystem or the source of a mount is not there.
    pub fn surroundings(
        &self,
        root: &StateRoot,
        layer: Option<Layer>,
        report: &dyn Report,
    ) -> Result<Surroundings, LoadError> {
        self.sources()?;
        let found = rootfs::resolve(&self.document.rootfs, &self.base, root, report)
            .map_err(|source| self.no_root(source))?;
        let image = found
            .image
            .map(|image| image_user::in_numbers(image, &found.directory));
        let written = layer.as_ref().map(|layer| Path::new(&layer.upper));
        Ok(Surroundings {
            device: device_of(written.unwrap_or(&found.directory)),
            base: self.base.clone(),
            rootfs: found.directory,
            image,
            layer,
            isolation: self.isolation,
        })
    }

    /// Whether the document means something here: all that making its workspace would refuse before anything is made,
    /// short of unpacking an image.
    ///
    /// # Errors
    ///
    /// As [`Loaded::surroundings`] and [`Document::compile`].
    pub fn check(&self, root: &StateRoot) -> Result<(), LoadError> {
        self.sources()?;
        let looked = rootfs::look(&self.document.rootfs, &self.base);
        let (rootfs, image) = looked.map_err(|source| self.no_root(source))?;
        let written = match self.document.readonly {
            true => &rootfs,
            false => &root.data,
        };
        self.document.compile(&Surroundings {
            device: device_of(written),
            base: self.base.clone(),
            // Its user may be a name that only the unpacked files know.
            image: image.map(|image| ImageDefaults {
                user: None,
                ..image
            }),
            rootfs,
            layer: None,
            isolation: self.isolation,
        })?;
        Ok(())
    }

    fn no_root(&self, source: RootfsError) -> LoadError {
        LoadError::Rootfs {
            place: self.document.place("rootfs"),
            source: Box::new(source),
        }
    }

    fn sources(&self) -> Result<(), LoadError> {
        for (index, mount) in self.document.mount.iter().enumerate() {
            let path = self.base.join(&mount.source);
            path.metadata().map_err(|error| {
                let said = format!("cannot use {}: {error}", path.display());
                self.document
                    .refusal(&format!("mount[{index}].source"), said)
            })?;
        }
        Ok(())
    }
}

/// The disk that a directory, or the nearest directory above it that is there, is on; none where that is no disk.
fn device_of(path: &Path) -> Option<(i64, i64)> {
    let here = path.ancestors().find_map(|above| above.metadata().ok())?;
    let (major, minor) = (rustix::fs::major(here.dev()), rustix::fs::minor(here.dev()));
    disk((major.into(), minor.into()))
}

/// The whole disk of a block device: rates are not kept for partitions (`io.max`).
fn disk((major, minor): (i64, i64)) -> Option<(i64, i64)> {
    let known = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    if !known.join("partition").exists() {
        return known.exists().then_some((major, minor));
    }
    let text = std::fs::read_to_string(known.join("../dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_memory_is_on_no_disk() {
        assert_eq!(device_of(Path::new("/proc")), None);
        assert_eq!(device_of(Path::new("/dev/shm/not/there/yet")), None);
    }

    #[test]
    fn a_disk_is_named_whole_and_never_by_a_partition() {
        for entry in std::fs::read_dir("/sys/class/block").into_iter().flatten() {
            let path = entry.unwrap().path();
            let number = std::fs::read_to_string(path.join("dev")).unwrap();
            let (major, minor) = number.trim().split_once(':').unwrap();
            let found = disk((major.parse().unwrap(), minor.parse().unwrap())).unwrap();
            let named = PathBuf::from(format!("/sys/dev/block/{}:{}", found.0, found.1));
            assert!(named.exists() && !named.join("partition").exists());
        }
    }
}
