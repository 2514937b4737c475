//! Keeps paths out of sight, or out of reach of writes.

use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::FileType;
use rustix::fs::OFlags;

use super::Doing;
use super::report::Reason;
use super::report::Trouble;
use crate::defence::Defence;
use crate::sys::Errno;
use crate::sys::mount;
use crate::sys::mount::Change;
use crate::sys::mount::Configuration;
use crate::sys::path;

type Done = std::result::Result<(), Trouble>;

impl Doing {
    /// Puts an empty directory over a directory and `/dev/null` over anything else; nothing over nothing.
    pub(super) fn mask(&mut self, masked: &Path) -> Done {
        if Defence::Masked.is_out() {
            return Ok(());
        }
        let place = match path::open_in(self.root()?, masked, OFlags::PATH) {
            Err(Errno::NOENT) => return Ok(()),
            other => other?,
        };
        if path::is_kind(place.as_fd(), FileType::Directory)? {
            return self.hide_directory(&place);
        }
        let cover = mount::copy_tree(self.null()?, false)?;
        Ok(mount::attach(&cover, &place)?)
    }

    /// All hidden directories show the same empty one: a file system each would cost the kernel a
    /// super block each, and their teardown.
    fn hide_directory(&mut self, place: &OwnedFd) -> Done {
        if let Some(empty) = &self.empty {
            let cover = mount::copy_tree(empty, false)?;
            return Ok(mount::attach(&cover, place)?);
        }
        let new = Configuration::begin("tmpfs")?;
        new.option("nr_blocks", Some("1"))?;
        new.option("nr_inodes", Some("1"))?;
        let cover = new.finish(
            mount::ATTR_RDONLY | mount::ATTR_NOSUID | mount::ATTR_NODEV | mount::ATTR_NOEXEC,
        )?;
        mount::attach(&cover, place)?;
        self.empty = Some(cover);
        Ok(())
    }

    /// The root's `/dev/null`, once it has been seen to be the null device and nothing else.
    fn null(&mut self) -> std::result::Result<&OwnedFd, Trouble> {
        if self.null.is_none() {
            let flags = match Defence::NullDevice.is_out() {
                true => OFlags::PATH,
                false => OFlags::PATH | OFlags::NOFOLLOW,
            };
            let null = path::open_in(self.root()?, Path::new("/dev/null"), flags)?;
            if !path::is_device(null.as_fd(), 1, 3)? && !Defence::NullDevice.is_out() {
                return Err(Trouble::because(Reason::WrongDevice, Errno::INVAL));
            }
            self.null = Some(null);
        }
        self.null
            .as_ref()
            .ok_or(Trouble::because(Reason::Order, Errno::INVAL))
    }

    /// Mounts a path over itself, read-only.
    pub(super) fn make_read_only(&mut self, path: &Path) -> Done {
        if Defence::Readonly.is_out() {
            return Ok(());
        }
        let place = match path::open_in(self.root()?, path, OFlags::PATH) {
            Err(Errno::NOENT) => return Ok(()),
            other => other?,
        };
        let tree = mount::copy_tree(&place, true)?;
        let change = Change {
            set: mount::ATTR_RDONLY,
            ..Change::default()
        };
        mount::set_attributes(tree.as_fd(), &change, false)?;
        Ok(mount::attach(&tree, &place)?)
    }
}
