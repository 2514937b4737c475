//! The writable layer of a workspace whose root filesystem is shared: made before the workspace, removed after it.
//!
//! ```text
//! DATA/workspaces/ID/upper   takes what is written; has owner and mode of the shared root
//! DATA/workspaces/ID/work    the kernel's own
//! ```

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::AtFlags;
use rustix::fs::Mode;
use rustix::fs::OFlags;

use crate::spec::id::ContainerId;
use crate::sys::Errno;
use crate::sys::tree;
use crate::sys::tree::Left;
use crate::workspace::root::StateRoot;

/// The directory that takes what is written.
const UPPER: &str = "upper";
/// The directory for the kernel's own use.
const WORK: &str = "work";

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
    /// A part of it cannot be removed.
    #[error("the writable layer below {home:?} cannot be removed")]
    Left {
        /// Its directory.
        home: PathBuf,
        /// Which part, and why.
        source: Left,
    },
}

/// The directory of a workspace that outlives the host's uptime, with its writable layer in it.
#[must_use]
pub fn home(places: &StateRoot, id: &ContainerId) -> PathBuf {
    places.data.join("workspaces").join(id)
}

/// Makes the layer of workspace `id` over the directory `lower`; gives the directories for `dev.bulkhead.rootfs.upper`
/// and `.work`.
///
/// # Errors
///
/// [`LayerError::Taken`] when there is one; nothing new is left after any error.
pub fn make(
    places: &StateRoot,
    id: &ContainerId,
    lower: &Path,
) -> Result<(PathBuf, PathBuf), LayerError> {
    let home = home(places, id);
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
        Err(Errno::EXIST) => return Err(LayerError::Taken { path: upper }),
        answer => answer.map_err(failed("cannot make", &upper))?,
    }
    match furnish(&opened, &home, lower) {
        Ok(()) => Ok((upper, home.join(WORK))),
        Err(error) => {
            remove(places, id)?;
            Err(error)
        }
    }
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

/// Removes the layer of workspace `id` with all that was written; that there is none is no failure.
///
/// # Errors
///
/// [`LayerError`] names the part that stays.
pub fn remove(places: &StateRoot, id: &ContainerId) -> Result<(), LayerError> {
    let home = home(places, id);
    let opened = match open(&home) {
        Err(LayerError::Failed {
            source: Errno::NOENT,
            ..
        }) => return Ok(()),
        answer => answer?,
    };
    for name in [WORK, UPPER] {
        tree::remove(&opened, OsStr::new(name)).map_err(|source| LayerError::Left {
            home: home.clone(),
            source,
        })?;
    }
    match rustix::fs::rmdir(&home) {
        // What else is kept of the workspace is not this part's.
        Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
        Err(source) => Err(failed("cannot remove", &home)(source)),
    }
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
    fn a_layer_has_the_mode_of_what_it_lies_over_and_goes_with_what_is_in_it() {
        let (temporary, places, id) = places();
        let lower = temporary.path().join("lower");
        std::fs::create_dir(&lower).unwrap();
        std::fs::set_permissions(&lower, std::fs::Permissions::from_mode(0o1751)).unwrap();
        let (upper, work) = make(&places, &id, &lower).unwrap();
        let mode = std::fs::metadata(&upper).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o1751);
        std::fs::create_dir_all(upper.join("a/b")).unwrap();
        std::fs::create_dir(work.join("work")).unwrap();
        std::fs::set_permissions(work.join("work"), std::fs::Permissions::from_mode(0)).unwrap();
        remove(&places, &id).unwrap();
        assert!(!home(&places, &id).exists());
        remove(&places, &id).unwrap();
    }

    #[test]
    fn a_layer_is_not_made_over_one_that_is_there() {
        let (temporary, places, id) = places();
        let (upper, _) = make(&places, &id, temporary.path()).unwrap();
        std::fs::write(upper.join("file"), "x").unwrap();
        let again = make(&places, &id, temporary.path());
        assert!(matches!(again, Err(LayerError::Taken { .. })), "{again:?}");
        assert!(upper.join("file").exists());
    }

    #[test]
    fn a_layer_over_nothing_is_not_made() {
        let (temporary, places, id) = places();
        make(&places, &id, &temporary.path().join("nothing")).unwrap_err();
        assert!(!home(&places, &id).exists());
    }
}
