//! Puts the entries of a layer into the tree: files, links, whiteouts, with owners, modes, times and attributes.
//!
//! Modes and times of directories are given at the very end, when nothing is put into them any more.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::BufReader;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::AtFlags;
use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;

use super::Limits;
use super::error::Fault;
use super::extended::Tap;
use super::place;
use super::place::Place;
use super::place::Tree;
use super::place::Written;
use super::place::failed;
use super::place::refused;
use crate::sys::Errno;

mod about;
mod content;

use about::About;

/// What the name of a whiteout begins with.
const WHITEOUT: &[u8] = b".wh.";
/// The whiteout of all that lower layers have in a directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What other names of a file system that is no more begin with; they mean nothing.
const AUFS: &[u8] = b".wh..wh.";
/// How much is read from a layer at once.
const CHUNK: usize = 128 << 10;

/// Puts one layer after the other into a tree.
pub(super) struct Unpacker<'r> {
    tree: Tree,
    limits: Limits,
    bytes: u64,
    entries: u64,
    privileged: bool,
    /// The modes and times of directories.
    directories: BTreeMap<PathBuf, (u32, i64)>,
    /// What was told already.
    told: BTreeSet<String>,
    remark: &'r mut dyn FnMut(String),
}

impl<'r> Unpacker<'r> {
    /// For the directory `root`, which is empty.
    pub(super) fn new(root: OwnedFd, limits: Limits, remark: &'r mut dyn FnMut(String)) -> Self {
        Self {
            tree: Tree::new(root),
            limits,
            bytes: 0,
            entries: 0,
            privileged: rustix::process::geteuid().is_root(),
            directories: BTreeMap::new(),
            told: BTreeSet::new(),
            remark,
        }
    }

    /// Unpacks one layer, up to the end of its archive.
    pub(super) fn apply(&mut self, layer: &mut dyn Read) -> Result<(), Fault> {
        let left = self.limits.bytes.saturating_sub(self.bytes);
        let (tap, between) = Tap::new(BufReader::with_capacity(CHUNK, layer), left);
        let mut archive = tar::Archive::new(tap);
        let mut entries = archive.entries()?;
        let mut written = Written::default();
        let mut implied = BTreeSet::new();
        loop {
            let padding = between.borrow_mut().begin();
            let next = entries.next();
            let records = between.borrow_mut().end(padding);
            let Some(entry) = next else { break };
            let mut entry = entry.map_err(|error| self.too_long(error))?;
            if entry.header().entry_type().is_pax_global_extensions() {
                self.drain(&mut entry)?;
                continue;
            }
            let path = PathBuf::from(OsStr::from_bytes(&entry.path_bytes()));
            let records = records.ok_or_else(|| refused(&path, "its extended header is broken"))?;
            let about = About::of(&entry, records)?;
            self.count(&about)?;
            self.imply(&about.path, &mut written, &mut implied)?;
            self.entry(&about, &mut entry, &mut written)?;
            self.drain(&mut entry)?;
        }
        // The padding behind the archive counts for the digests.
        let mut rest = archive.into_inner();
        std::io::copy(&mut rest, &mut std::io::sink()).map_err(|error| self.too_long(error))?;
        Ok(())
    }

    /// Gives directories their modes and times, those inside others first; gives how many bytes there are.
    pub(super) fn finish(mut self) -> Result<u64, Fault> {
        for (path, (mode, mtime)) in std::mem::take(&mut self.directories).into_iter().rev() {
            let opened = self.open_directory(&path).map_err(failed("open", &path))?;
            let Some(opened) = opened else { continue };
            rustix::fs::fchmod(&opened, Mode::from_raw_mode(mode))
                .map_err(failed("change the mode of", &path))?;
            rustix::fs::futimens(&opened, &about::times(mtime, 0))
                .map_err(failed("set the time of", &path))?;
        }
        Ok(self.bytes)
    }

    /// A directory of the tree, unless something else has come in its place.
    fn open_directory(&self, path: &Path) -> Result<Option<OwnedFd>, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let inside = crate::sys::path::relative(path);
        match crate::sys::path::open_in(self.tree.root(), inside, flags) {
            Ok(opened) => Ok(Some(opened)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// What is not read of an entry must not be taken for what stands before the next.
    fn drain(&self, entry: &mut impl Read) -> Result<(), Fault> {
        std::io::copy(entry, &mut std::io::sink())
            .map(drop)
            .map_err(|error| self.too_long(error))
    }

    fn too_long(&self, error: std::io::Error) -> Fault {
        if error.kind() == std::io::ErrorKind::FileTooLarge {
            return too_much(Path::new("/"), self.limits.bytes, "bytes");
        }
        Fault::Stream(error)
    }

    fn count(&mut self, about: &About) -> Result<(), Fault> {
        self.entries += 1;
        self.bytes = self.bytes.saturating_add(about.size);
        if self.entries > self.limits.entries {
            return Err(too_much(&about.path, self.limits.entries, "entries"));
        }
        if self.bytes > self.limits.bytes {
            return Err(too_much(&about.path, self.limits.bytes, "bytes"));
        }
        Ok(())
    }

    /// The directories that lead to an entry are the layer's too.
    fn imply(
        &mut self,
        path: &Path,
        written: &mut Written,
        implied: &mut BTreeSet<PathBuf>,
    ) -> Result<(), Fault> {
        for above in path.ancestors().skip(1) {
            if above.as_os_str().is_empty() || implied.contains(above) {
                return Ok(());
            }
            implied.insert(above.to_owned());
            let place = self.tree.place(above.to_owned())?;
            written.add(&place);
        }
        Ok(())
    }

    fn entry(
        &mut self,
        about: &About,
        content: &mut dyn Read,
        written: &mut Written,
    ) -> Result<(), Fault> {
        if about.path.as_os_str().is_empty() {
            return self.root(about);
        }
        let place = self.tree.place(about.path.clone())?;
        let name = place.name.as_bytes();
        if name == OPAQUE {
            return self.tree.opaque(&place, written);
        }
        if name.starts_with(AUFS) {
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            if matches!(hidden, b"" | b"." | b"..") {
                return Err(refused(
                    &about.path,
                    "it hides no name that a file can have",
                ));
            }
            let hidden = place.beside(OsStr::from_bytes(hidden));
            return self.tree.whiteout(&hidden, written);
        }
        if self.make(about, &place, content)? {
            written.add(&place);
        }
        Ok(())
    }

    /// The root of the archive: only what it is like.
    fn root(&mut self, about: &About) -> Result<(), Fault> {
        if about.kind != FileType::Directory {
            return Err(refused(Path::new("/"), "the root must be a directory"));
        }
        let root = self.tree.root().try_clone();
        let root = root.map_err(|_| failed("open", Path::new("/"))(Errno::MFILE))?;
        self.describe(about, &root)?;
        self.directories
            .insert(PathBuf::new(), (about.mode, about.mtime));
        Ok(())
    }

    /// Puts an entry in its place; `false` when it cannot be made here.
    fn make(
        &mut self,
        about: &About,
        place: &Place,
        content: &mut dyn Read,
    ) -> Result<bool, Fault> {
        if let Some(target) = &about.hard_link {
            return self.hard_link(target, place).map(|()| true);
        }
        let there = place::kind_at(place).map_err(failed("look at", &place.path))?;
        let stays = there == Some(FileType::Directory) && about.kind == FileType::Directory;
        if there.is_some() && !stays {
            self.tree.clear(place)?;
        }
        match about.kind {
            FileType::Directory => self.directory(about, place, stays),
            FileType::RegularFile => self.file(about, place, content),
            FileType::Symlink => self.symlink(about, place),
            FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => return self.node(about, place),
        }
        .map(|()| true)
    }

    fn directory(&mut self, about: &About, place: &Place, stays: bool) -> Result<(), Fault> {
        let at = |what| failed(what, &place.path);
        if !stays {
            rustix::fs::mkdirat(&place.parent, &place.name, Mode::RWXU)
                .map_err(at("make the directory"))?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&place.parent, &place.name, flags, Mode::empty())
            .map_err(at("open"))?;
        self.describe(about, &opened)?;
        self.directories
            .insert(place.path.clone(), (about.mode, about.mtime));
        Ok(())
    }

    fn file(&mut self, about: &About, place: &Place, content: &mut dyn Read) -> Result<(), Fault> {
        let at = |what| failed(what, &place.path);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&place.parent, &place.name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(at("make"))?;
        let mut made = std::fs::File::from(made);
        let copied = match &about.sparse {
            Some(sparse) => content::copy_sparse(content, &mut made, sparse),
            None => content::copy(content, &mut made),
        };
        let length = copied.map_err(|error| self.too_long(error))?;
        if length != about.size {
            return Err(refused(&place.path, "it ends before its size"));
        }
        let made = OwnedFd::from(made);
        if self.privileged {
            rustix::fs::fchown(&made, Some(about.uid), Some(about.gid))
                .map_err(at("change the owner of"))?;
        }
        // A change of the owner takes set-user-id away, and capabilities.
        rustix::fs::fchmod(&made, Mode::from_raw_mode(about.mode))
            .map_err(at("change the mode of"))?;
        self.attributes(about, &made)?;
        rustix::fs::futimens(&made, &about.times()).map_err(at("set the time of"))
    }

    fn symlink(&mut self, about: &About, place: &Place) -> Result<(), Fault> {
        rustix::fs::symlinkat(about.target.as_path(), &place.parent, &place.name)
            .map_err(failed("make the link", &place.path))?;
        self.describe_by_name(about, place)
    }

    /// A device node or a pipe; without the right to make it there is none.
    fn node(&mut self, about: &About, place: &Place) -> Result<bool, Fault> {
        let mode = Mode::from_raw_mode(about.mode);
        let made = rustix::fs::mknodat(
            &place.parent,
            &place.name,
            about.kind,
            mode,
            rustix::fs::makedev(about.device.0, about.device.1),
        );
        match made {
            Err(Errno::PERM) => {
                self.tell(format!(
                    "device nodes such as {} are left out, they may not be made here",
                    place.path.display()
                ));
                return Ok(false);
            }
            answer => answer.map_err(failed("make the node", &place.path))?,
        }
        rustix::fs::chmodat(&place.parent, &place.name, mode, AtFlags::empty())
            .map_err(failed("change the mode of", &place.path))?;
        self.describe_by_name(about, place)?;
        Ok(true)
    }

    fn hard_link(&mut self, target: &Path, place: &Place) -> Result<(), Fault> {
        let at = |what| failed(what, &place.path);
        let original = self.tree.place(target.to_owned())?;
        let stat = |place: &Place| {
            rustix::fs::statat(&place.parent, &place.name, AtFlags::SYMLINK_NOFOLLOW)
        };
        let from = stat(&original).map_err(failed("link to", target))?;
        if FileType::from_raw_mode(from.st_mode) == FileType::Directory {
            return Err(refused(&place.path, "it is a hard link to a directory"));
        }
        match stat(place) {
            Ok(to) if to.st_ino == from.st_ino => return Ok(()),
            Ok(_) => self.tree.clear(place)?,
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(at("look at")(errno)),
        }
        rustix::fs::linkat(
            &original.parent,
            &original.name,
            &place.parent,
            &place.name,
            AtFlags::empty(),
        )
        .map_err(at("make the hard link"))
    }

    /// The owner and the attributes of what is open.
    fn describe(&mut self, about: &About, opened: &OwnedFd) -> Result<(), Fault> {
        if self.privileged {
            rustix::fs::fchown(opened, Some(about.uid), Some(about.gid))
                .map_err(failed("change the owner of", &about.path))?;
        }
        self.attributes(about, opened)
    }

    /// The owner and the time of what cannot be opened.
    fn describe_by_name(&mut self, about: &About, place: &Place) -> Result<(), Fault> {
        let (parent, name) = (&place.parent, &place.name);
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        if self.privileged {
            rustix::fs::chownat(parent, name, Some(about.uid), Some(about.gid), flags)
                .map_err(failed("change the owner of", &place.path))?;
            if about.kind != FileType::Symlink {
                let mode = Mode::from_raw_mode(about.mode);
                rustix::fs::chmodat(parent, name, mode, AtFlags::empty())
                    .map_err(failed("change the mode of", &place.path))?;
            }
        }
        rustix::fs::utimensat(parent, name, &about.times(), flags)
            .map_err(failed("set the time of", &place.path))
    }

    fn attributes(&mut self, about: &About, opened: &OwnedFd) -> Result<(), Fault> {
        for (key, value) in about.attributes() {
            let name = OsStr::from_bytes(key);
            if !about::may_be_set(key) {
                self.tell(format!(
                    "attributes such as {} are left out",
                    name.display()
                ));
                continue;
            }
            let set = rustix::fs::fsetxattr(opened, name, value, rustix::fs::XattrFlags::empty());
            match set {
                Ok(()) => {}
                Err(Errno::PERM | Errno::NOTSUP | Errno::ACCESS) => self.tell(format!(
                    "attributes such as {} are left out, they may not be set here",
                    name.display()
                )),
                Err(errno) => return Err(failed("set an attribute of", &about.path)(errno)),
            }
        }
        Ok(())
    }

    /// Says something once.
    fn tell(&mut self, text: String) {
        let words: String = text.split('/').next().unwrap_or_default().to_owned();
        if self.told.insert(words) {
            (self.remark)(text);
        }
    }
}

fn too_much(path: &Path, most: u64, what: &'static str) -> Fault {
    Fault::TooMuch {
        path: path.to_owned(),
        most,
        what,
    }
}
