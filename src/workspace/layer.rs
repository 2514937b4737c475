//! The writable layer of a workspace whose root filesystem is shared: made before the workspace, among its files.
//!
//! ```text
//! DATA/workspaces/ID/upper   takes what is written; has owner and mode of the shared root
//! DATA/workspaces/ID/work    the kernel's own
//! ```

use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::AtFlags;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::Statx;
use rustix::fs::StatxFlags;

use crate::spec::asked::Layer;
use crate::spec::id::ContainerId;
use crate::sys::Errno;
use crate::sys::path;
use crate::workspace::estate;
use crate::workspace::root::StateRoot;

/// The directory that takes what is written.
const UPPER: &str = "upper";
/// The directory for the kernel's own use.
const WORK: &str = "work";

/// What overlayfs leaves below that of a layer that it does not take again (`Documentation/filesystems/overlayfs.rst`,
/// "Volatile mount").
const INCOMPATIBLE: &str = "work/incompat";

/// What names the one in a bundle.
const UPPER_KEY: &str = "annotations.dev.bulkhead.rootfs.upper";
/// What names the other.
const WORK_KEY: &str = "annotations.dev.bulkhead.rootfs.work";

/// Why a writable layer cannot be made, used or removed.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// There is one already.
    #[error(
        "there is a writable layer of that name already: {path:?}; bring its workspace down, or collect what is left with gc"
    )]
    Taken {
        /// Where.
        path: PathBuf,
    },
    /// A directory that a bundle names cannot be used.
    #[error("{key}: cannot use {path:?} as a directory")]
    Unusable {
        /// What names it.
        key: &'static str,
        /// Where it is.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A directory belongs to somebody else, who could change what the workspace sees as its own.
    #[error("{key}: {path:?} belongs to user {owner}; it must belong to the user who calls")]
    Foreign {
        /// What names it.
        key: &'static str,
        /// Where it is.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// The kernel cannot move files from one directory to the other.
    #[error("{WORK_KEY}: {work:?} must be on the same file system and mount as {upper:?}")]
    Apart {
        /// The one.
        upper: PathBuf,
        /// The other.
        work: PathBuf,
    },
    /// The kernel does not take it again, since it may never have been written out.
    #[error(
        "{WORK_KEY}: the layer was volatile when it was used before; remove {mark:?}, if the host has not crashed since"
    )]
    Used {
        /// What says so.
        mark: PathBuf,
    },
    /// One directory holds another.
    #[error("{key}: {path:?} must not lie in {other:?}, nor hold it")]
    Nested {
        /// What names it.
        key: &'static str,
        /// Where it is.
        path: PathBuf,
        /// The other.
        other: PathBuf,
    },
    /// Something could not be done to a directory of it.
    #[error("{what} {path:?}")]
    Failed {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        source: Errno,
    },
}

/// Checks that the layer of a bundle, if it has one, can be laid over `lower`; gives it without links in its paths, and
/// who owns that directory.
///
/// # Errors
///
/// [`LayerError`] names the annotation at fault.
pub(super) fn check(
    layer: Option<&Layer>,
    lower: &Path,
) -> Result<(Option<Layer>, u32), LayerError> {
    let Some(layer) = layer else {
        return Ok((None, 0));
    };
    let root = Part::find("root.path", lower)?;
    let upper = Part::find(UPPER_KEY, Path::new(&layer.upper))?;
    let work = Part::find(WORK_KEY, Path::new(&layer.work))?;
    let own = rustix::process::geteuid().as_raw();
    for part in [&upper, &work] {
        let owner = part.stat.stx_uid;
        if owner != own && !(own == 0 && owner == root.stat.stx_uid) {
            return Err(LayerError::Foreign {
                key: part.key,
                path: part.path.clone(),
                owner,
            });
        }
    }
    let place = |part: &Part| {
        let stat = &part.stat;
        (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_mnt_id)
    };
    if place(&upper) != place(&work) {
        return Err(LayerError::Apart {
            upper: upper.path,
            work: work.path,
        });
    }
    for (part, other) in [(&work, &upper), (&upper, &root), (&work, &root)] {
        if part.path.starts_with(&other.path) || other.path.starts_with(&part.path) {
            return Err(LayerError::Nested {
                key: part.key,
                path: part.path.clone(),
                other: other.path.clone(),
            });
        }
    }
    let mark = work.path.join(INCOMPATIBLE);
    if mark.exists() {
        return Err(LayerError::Used { mark });
    }
    let text = |path: PathBuf, given: &str| {
        let text = path.into_os_string().into_string();
        text.unwrap_or_else(|_| given.to_owned())
    };
    let found = Layer {
        upper: text(upper.path, &layer.upper),
        work: text(work.path, &layer.work),
        volatile: layer.volatile,
    };
    Ok((Some(found), root.stat.stx_uid))
}

/// A directory that a bundle names for its root.
struct Part {
    key: &'static str,
    /// Without links.
    path: PathBuf,
    stat: Statx,
}

impl Part {
    fn find(key: &'static str, path: &Path) -> Result<Self, LayerError> {
        let unusable = |source: std::io::Error| LayerError::Unusable {
            key,
            path: path.to_owned(),
            source,
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(path, flags, Mode::empty());
        let opened = opened.map_err(|errno| unusable(errno.into()))?;
        let wanted = StatxFlags::UID | StatxFlags::MNT_ID;
        let stat = rustix::fs::statx(&opened, "", AtFlags::EMPTY_PATH, wanted)
            .map_err(|errno| unusable(errno.into()))?;
        let name = path::name_of(&opened).map_err(|errno| unusable(errno.into()))?;
        Ok(Self {
            key,
            path: name,
            stat,
        })
    }
}

/// The layer that workspace `id` will have. It means nothing after a crash of the host where it is `passing`: it goes with
/// the workspace, and nobody has kept one of that name to be used again.
#[must_use]
pub fn of(places: &StateRoot, id: &ContainerId, passing: bool) -> Layer {
    let home = estate::place(places, id);
    Layer {
        upper: home.join(UPPER).display().to_string(),
        work: home.join(WORK).display().to_string(),
        volatile: passing && !estate::is_kept(places, id),
    }
}

/// Makes the layer of workspace `id` over the directory `lower`; gives the directories for `dev.bulkhead.rootfs.upper`
/// and `.work`. One that was kept is used again. What is made goes with the rest of the workspace's files.
///
/// # Errors
///
/// [`LayerError::Taken`] when there is one that nobody kept.
pub fn make(
    places: &StateRoot,
    id: &ContainerId,
    lower: &Path,
) -> Result<(PathBuf, PathBuf), LayerError> {
    let home = estate::place(places, id);
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(&home).map_err(|error| LayerError::Failed {
        what: "cannot make",
        path: home.clone(),
        source: Errno::from_io_error(&error).unwrap_or(Errno::IO),
    })?;
    let opened = open(&home)?;
    let upper = home.join(UPPER);
    match rustix::fs::mkdirat(&opened, UPPER, Mode::RWXU) {
        Err(Errno::EXIST) if estate::is_kept(places, id) => {}
        Err(Errno::EXIST) => return Err(LayerError::Taken { path: upper }),
        answer => answer.map_err(failed("cannot make", &upper))?,
    }
    furnish(&opened, &home, lower)?;
    Ok((upper, home.join(WORK)))
}

/// Makes what belongs beside the upper directory, and gives both the owner of the lower one.
fn furnish(opened: &OwnedFd, home: &Path, lower: &Path) -> Result<(), LayerError> {
    let below = open(lower)?;
    let stat = rustix::fs::fstat(&below).map_err(failed("cannot look at", lower))?;
    match rustix::fs::mkdirat(opened, WORK, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(source) => return Err(failed("cannot make", &home.join(WORK))(source)),
    }
    let owner = (
        rustix::fs::Uid::from_raw(stat.st_uid),
        rustix::fs::Gid::from_raw(stat.st_gid),
    );
    let privileged = rustix::process::geteuid().is_root();
    for name in [UPPER, WORK] {
        let path = home.join(name);
        if privileged {
            rustix::fs::chownat(
                opened,
                name,
                Some(owner.0),
                Some(owner.1),
                AtFlags::SYMLINK_NOFOLLOW,
            )
            .map_err(failed("cannot change the owner of", &path))?;
        }
    }
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    rustix::fs::chmodat(opened, UPPER, mode, AtFlags::empty())
        .map_err(failed("cannot change the mode of", &home.join(UPPER)))
}

fn open(path: &Path) -> Result<OwnedFd, LayerError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(failed("cannot open", path))
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(Errno) -> LayerError {
    let path = path.to_owned();
    move |source| LayerError::Failed { what, path, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn places() -> (tempfile::TempDir, StateRoot, ContainerId) {
        let temporary = tempfile::tempdir().unwrap();
        let root = StateRoot::choose(Some(&temporary.path().join("root")), None).unwrap();
        (temporary, root, "a".parse().unwrap())
    }

    #[test]
    fn a_layer_has_the_mode_of_what_it_lies_over() {
        let (temporary, places, id) = places();
        let lower = temporary.path().join("lower");
        std::fs::create_dir(&lower).unwrap();
        std::fs::set_permissions(&lower, std::fs::Permissions::from_mode(0o1751)).unwrap();
        let (upper, _) = make(&places, &id, &lower).unwrap();
        let mode = std::fs::metadata(&upper).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o1751);
    }

    #[test]
    fn a_layer_is_not_made_over_one_that_is_there() {
        let (temporary, places, id) = places();
        let (upper, _) = make(&places, &id, temporary.path()).unwrap();
        std::fs::write(upper.join("file"), "x").unwrap();
        let again = make(&places, &id, temporary.path());
        assert!(matches!(again, Err(LayerError::Taken { .. })), "{again:?}");
        assert!(upper.join("file").exists());
        estate::keep(&places, &id, true).unwrap();
        make(&places, &id, temporary.path()).unwrap();
        assert!(upper.join("file").exists());
    }

    #[test]
    fn a_layer_over_nothing_is_not_made() {
        let (temporary, places, id) = places();
        make(&places, &id, &temporary.path().join("nothing")).unwrap_err();
    }
}
