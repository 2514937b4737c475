//! What the `rootfs` of a workspace document means: a directory as it is, or an image that is unpacked once for all.

use std::path::Path;
use std::path::PathBuf;

use crate::image;
use crate::image::Chosen;
use crate::image::Defaults;
use crate::image::Entry;
use crate::image::ImageError;
use crate::image::Limits;
use crate::image::Source;
use crate::spec::image::ImageDefaults;
use crate::workspace::found;
use crate::workspace::report::Report;
use crate::workspace::root::StateRoot;
use crate::workspace::store::Store;

/// A root filesystem that is there, to be used as the read-only lower layer of any number of workspaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Its directory, absolute.
    pub directory: PathBuf,
    /// What its image says about the program; none for a plain directory.
    pub image: Option<ImageDefaults>,
    /// The digest of the image's manifest; none for a plain directory.
    pub digest: Option<String>,
}

/// Why there is no root filesystem.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// There is nothing that can be looked at.
    #[error("rootfs: cannot use {path:?}")]
    Unusable {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Its image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// An image was asked for, and it is a plain directory.
    #[error("rootfs: {path:?} is no OCI layout: there is no file oci-layout in it")]
    NoLayout {
        /// Where.
        path: PathBuf,
    },
    /// The workspaces cannot be listed.
    #[error("cannot find out who uses an image: {why}")]
    Listing {
        /// Why.
        why: String,
    },
    /// It has a form that is not read.
    #[error(
        "rootfs: {text:?} is not read; turn it into an OCI archive: skopeo copy {text} oci-archive:FILE"
    )]
    Docker {
        /// As it was given.
        text: String,
    },
    /// It is something that no root filesystem can be.
    #[error(
        "rootfs: {path:?} is neither a directory nor an image that skopeo or podman wrote (OCI layout or archive)"
    )]
    NoRootfs {
        /// Where.
        path: PathBuf,
    },
}

/// Finds what `text`, the `rootfs` of a document in the directory `base`, stands for: a directory; or an OCI layout or
/// archive, with `:NAME` or `@DIGEST` behind it when it holds several images, and with `oci:` or `oci-archive:` before it
/// if one likes. An image is unpacked unless it was before.
///
/// # Errors
///
/// [`RootfsError`] names the path, and what of an image is wrong.
pub fn resolve(
    text: &str,
    base: &Path,
    places: &StateRoot,
    report: &dyn Report,
) -> Result<Resolved, RootfsError> {
    let (path, image) = find(text, base)?;
    match image {
        None => Ok(Resolved {
            directory: path,
            image: None,
            digest: None,
        }),
        Some((source, chosen)) => unpacked(&path, &source, chosen, places, report),
    }
}

/// Looks at what [`resolve`] would find, and unpacks nothing: its path, and what its image says about the program, if it
/// is one.
///
/// # Errors
///
/// As [`resolve`], as far as the documents of an image tell.
pub fn look(text: &str, base: &Path) -> Result<(PathBuf, Option<ImageDefaults>), RootfsError> {
    let (path, image) = find(text, base)?;
    Ok((path, image.map(|(_, chosen)| defaults(chosen.defaults))))
}

/// The directory, or the image and where it is.
fn find(text: &str, base: &Path) -> Result<(PathBuf, Option<(Source, Chosen)>), RootfsError> {
    let named = Named::of(text, base)?;
    let unusable = |source| RootfsError::Unusable {
        path: named.path.clone(),
        source,
    };
    let path = std::fs::canonicalize(&named.path).map_err(unusable)?;
    let kind = std::fs::metadata(&path).map_err(unusable)?;
    let plain = kind.is_dir() && !Source::is_layout(&path);
    match plain {
        true if named.image => Err(RootfsError::NoLayout { path }),
        true => Ok((path, None)),
        false if !kind.is_dir() && !kind.is_file() => Err(RootfsError::NoRootfs { path }),
        false => {
            let source = Source::open(&path)?;
            let chosen = image::choose(&source, named.reference.as_deref())?;
            Ok((path, Some((source, chosen))))
        }
    }
}

fn unpacked(
    path: &Path,
    source: &Source,
    chosen: Chosen,
    places: &StateRoot,
    report: &dyn Report,
) -> Result<Resolved, RootfsError> {
    let mut remark = |text: String| report.warning(&format!("image {}: {text}", path.display()));
    let directory = images(places).provide(source, &chosen, Limits::default(), &mut remark)?;
    Ok(Resolved {
        directory,
        image: Some(defaults(chosen.defaults)),
        digest: Some(chosen.manifest),
    })
}

fn defaults(said: Defaults) -> ImageDefaults {
    ImageDefaults {
        env: said.env,
        command: said.command,
        cwd: said.cwd,
        user: said.user,
    }
}

/// The images that were unpacked for the workspaces of a state root.
#[must_use]
pub fn images(places: &StateRoot) -> image::Store {
    image::Store::new(places.data.join("images"))
}

/// The names of the workspaces that use an image. One whose record cannot be read may use any.
///
/// # Errors
///
/// Fails when the workspaces cannot be listed.
pub fn users(store: &Store, image: &Entry) -> Result<Vec<String>, RootfsError> {
    let ids = store.ids().map_err(|error| RootfsError::Listing {
        why: error.to_string(),
    })?;
    let tree = std::fs::canonicalize(&image.rootfs).unwrap_or_else(|_| image.rootfs.clone());
    let uses = |id: &_| match store.open(id) {
        Ok(home) => found::read_record(&home, id).map_or(true, |record| {
            std::fs::canonicalize(&record.rootfs).is_ok_and(|path| path == tree)
        }),
        Err(_) => false,
    };
    let using = ids.into_iter().filter(uses);
    Ok(using.map(|id| id.to_string()).collect())
}

/// A text taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Named {
    path: PathBuf,
    /// Which of the images in it.
    reference: Option<String>,
    /// Whether it must be an image.
    image: bool,
}

impl Named {
    /// The longest part that names something that is there is the path; what follows says which image in it.
    fn of(text: &str, base: &Path) -> Result<Self, RootfsError> {
        if text.starts_with("docker-archive:") {
            return Err(RootfsError::Docker {
                text: text.to_owned(),
            });
        }
        let scheme = ["oci:", "oci-archive:"];
        let rest = scheme.iter().find_map(|scheme| text.strip_prefix(scheme));
        let words = rest.unwrap_or(text);
        let whole = base.join(words);
        let exists = |path: &Path| path.symlink_metadata().is_ok();
        let splits = words.rmatch_indices([':', '@']);
        let mut tried = splits.map(|(at, _)| (base.join(&words[..at]), &words[at + 1..]));
        let split = match exists(&whole) {
            true => None,
            false => tried.find(|(path, reference)| exists(path) && !reference.is_empty()),
        };
        Ok(match split {
            Some((path, reference)) => Self {
                path,
                reference: Some(reference.to_owned()),
                image: true,
            },
            None => Self {
                path: whole,
                reference: None,
                image: rest.is_some(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str, base: &Path) -> (String, Option<String>, bool) {
        let named = Named::of(text, base).unwrap();
        let path = named.path.strip_prefix(base).unwrap().display().to_string();
        (path, named.reference, named.image)
    }

    #[test]
    fn a_text_names_a_path_and_an_image_in_it() {
        let base = tempfile::tempdir().unwrap();
        let here = base.path();
        std::fs::create_dir(here.join("layout")).unwrap();
        std::fs::create_dir(here.join("odd:name")).unwrap();
        let some = |word: &str| Some(word.to_owned());
        for (text, path, reference, image) in [
            ("layout", "layout", None, false),
            ("oci:layout", "layout", None, true),
            ("layout:1.0", "layout", some("1.0"), true),
            ("oci:layout:a/b:1.0", "layout", some("a/b:1.0"), true),
            ("layout@sha256:ab", "layout", some("sha256:ab"), true),
            ("odd:name", "odd:name", None, false),
            ("odd:name:x", "odd:name", some("x"), true),
            ("nothing:x", "nothing:x", None, false),
        ] {
            let expected = (path.to_owned(), reference, image);
            assert_eq!(named(text, here), expected, "{text}");
        }
    }
}
