//! Paths below a root that others may be changing: resolved by the kernel, held as descriptors.
//!
//! A symbolic link in an image must never lead out of it, not even for the time between a check and
//! a use. So nothing below a root is ever named twice: it is opened once, inside the root
//! (`openat2(2)`, `RESOLVE_IN_ROOT`), and the descriptor is used from then on.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::ffi::OsStringExt;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::ResolveFlags;

use crate::defence::Defence;
use crate::sys::Errno;
use crate::sys::Result;

/// How long a resolution is tried again while others rename directories below the root.
const RENAME_PATIENCE: Duration = Duration::from_millis(50);
/// How often at least: on a busy machine the time may pass while this process does not run.
const RENAME_TRIES: u32 = 256;

/// Opens `path` inside `root`, as if `root` were `/`.
///
/// Magic links (`/proc/PID/fd/N`) are refused with `ELOOP`. The kernel answers `EAGAIN` when a rename
/// raced with `..`; that is tried again for a bounded time.
///
/// # Errors
///
/// Fails as `openat2(2)` does.
pub fn open_in(root: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd> {
    open_with(
        root,
        path,
        flags,
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
}

/// As [`open_in`], and `ELOOP` when any part of the path is a symbolic link.
///
/// # Errors
///
/// Fails as `openat2(2)` does.
pub fn open_plain_in(root: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    open_with(root, path, flags, resolve)
}

/// As [`open_plain_in`], and `EXDEV` when the path crosses a mount point: for a private `proc`.
///
/// # Errors
///
/// Fails as `openat2(2)` does.
pub fn open_on_one_mount(root: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd> {
    let resolve = match Defence::OneMount.is_out() {
        true => ResolveFlags::BENEATH,
        false => ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS,
    };
    open_with(root, path, flags, resolve)
}

/// Opens a path from the working directory on, through no magic link.
///
/// # Errors
///
/// Fails as `openat2(2)` does.
pub fn open_from_here(path: &Path, flags: OFlags) -> Result<OwnedFd> {
    let resolve = match Defence::MagicLinks.is_out() {
        true => ResolveFlags::empty(),
        false => ResolveFlags::NO_MAGICLINKS,
    };
    // host path: where the caller is; what is found is only looked at.
    open_with(rustix::fs::CWD, path, flags, resolve)
}

fn open_with(
    root: impl AsFd,
    path: &Path,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd> {
    if Defence::RootResolution.is_out() && resolve.contains(ResolveFlags::IN_ROOT) {
        return open_anywhere(root, path, flags);
    }
    let mut deadline = None;
    for tried in 1_u32.. {
        let opened =
            rustix::fs::openat2(&root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve);
        match opened {
            Err(Errno::AGAIN | Errno::INTR) => {
                let end = *deadline.get_or_insert_with(|| Instant::now() + RENAME_PATIENCE);
                if tried > RENAME_TRIES && Instant::now() > end {
                    break;
                }
            }
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// What every resolution here keeps from happening: links lead wherever they lead. For builds that take defences out.
pub(crate) fn open_anywhere(root: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    rustix::fs::openat(root, relative(path), flags, Mode::empty())
}

/// Opens a directory inside `root`, making what is missing of it with `mode`.
///
/// Each part is made in the directory that was opened before it; a link met on the way is followed
/// inside the root only, and a dangling one is refused with `ENOENT`.
///
/// # Errors
///
/// `ENOTDIR` when a part is something else; otherwise as `openat2(2)` and `mkdirat(2)`.
pub fn make_directories(root: impl AsFd, path: &Path, mode: Mode) -> Result<OwnedFd> {
    let directory = OFlags::PATH | OFlags::DIRECTORY;
    match open_in(&root, path, directory) {
        Err(Errno::NOENT) => make_missing_directories(root, path, mode),
        other => other,
    }
}

/// As [`make_directories`], for who has just found that something is missing.
///
/// # Errors
///
/// As [`make_directories`].
pub fn make_missing_directories(root: impl AsFd, path: &Path, mode: Mode) -> Result<OwnedFd> {
    let directory = OFlags::PATH | OFlags::DIRECTORY;
    if Defence::DirectoriesByDescriptor.is_out() {
        return make_by_name(root, path, mode);
    }
    let parts: Vec<&OsStr> = normal_parts(path)?;
    let (mut here, made) = deepest(&root, &parts)?;
    for part in parts.iter().skip(made) {
        match rustix::fs::mkdirat(&here, *part, mode) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        here = rustix::fs::openat(
            &here,
            *part,
            directory | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
    }
    Ok(here)
}

/// What [`make_directories`] keeps from happening. For builds that take defences out.
fn make_by_name(root: impl AsFd, path: &Path, mode: Mode) -> Result<OwnedFd> {
    let mut here = std::path::PathBuf::new();
    for part in relative(path) {
        here.push(part);
        match rustix::fs::mkdirat(&root, &here, mode) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    open_anywhere(root, path, OFlags::PATH | OFlags::DIRECTORY)
}

/// The deepest directory of `parts` that is there already, and how many parts lead to it.
fn deepest(root: &impl AsFd, parts: &[&OsStr]) -> Result<(OwnedFd, usize)> {
    for made in (0..parts.len()).rev() {
        let mut ahead = std::path::PathBuf::from("/");
        ahead.extend(&parts[..made]);
        match open_in(root, &ahead, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT) => {}
            Ok(found) => return Ok((found, made)),
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::NOENT)
}

/// The parts of a path; `..` is refused here, because what it means below something that is not
/// there yet is decided by whoever makes it.
fn normal_parts(path: &Path) -> Result<Vec<&OsStr>> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            Component::ParentDir => return Err(Errno::NOENT),
        }
    }
    Ok(parts)
}

/// The path of an open file as the kernel knows it, without links.
///
/// # Errors
///
/// Fails as `readlink(2)` does.
pub fn name_of(file: impl AsFd) -> Result<PathBuf> {
    let link = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    // host path: this process, in the host's proc.
    let name = rustix::fs::readlink(link, Vec::new())?;
    Ok(OsString::from_vec(name.into_bytes()).into())
}

/// The directory that holds the last part of `path`, made when missing, and that last part.
///
/// # Errors
///
/// `EINVAL` for a path without a last part; otherwise as [`make_directories`].
fn make_parent(root: impl AsFd, path: &Path, mode: Mode) -> Result<(OwnedFd, &OsStr)> {
    let name = path.file_name().ok_or(Errno::INVAL)?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    Ok((make_directories(root, parent, mode)?, name))
}

/// Opens the file at `path` inside `root`, making an empty one (mode 0644) and its parents when missing.
///
/// # Errors
///
/// As [`open_in`] and `openat(2)` with `O_CREAT|O_EXCL|O_NOFOLLOW`.
pub fn make_file(root: impl AsFd, path: &Path) -> Result<OwnedFd> {
    match open_in(&root, path, OFlags::PATH) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let (parent, name) = make_parent(&root, path, Mode::from_raw_mode(0o755))?;
    let flags = match Defence::ExclusiveFile.is_out() {
        true => OFlags::CREATE | OFlags::CLOEXEC,
        false => OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC,
    };
    match rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644)) {
        Ok(_) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    rustix::fs::openat(
        &parent,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Reads a small file inside `root` whole, without waiting on a pipe; links are followed inside.
///
/// It is looked at before it is opened: opening a device of the image's can have effects of its own (a watchdog begins to
/// count). Who puts a device there in between gains what opening it does for a moment, and no content.
///
/// # Errors
///
/// `EFBIG` when it is longer than `limit` bytes, `EINVAL` when it is no regular file.
pub fn read_small(root: impl AsFd, path: &Path, limit: usize) -> Result<Vec<u8>> {
    let regular = |file: &OwnedFd| is_kind(file.as_fd(), rustix::fs::FileType::RegularFile);
    let careless = Defence::LookBeforeOpen.is_out();
    if !careless && !regular(&open_in(&root, path, OFlags::PATH)?)? {
        return Err(Errno::INVAL);
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = open_in(root, path, flags)?;
    if !careless && !regular(&file)? {
        return Err(Errno::INVAL);
    }
    let mut content = Vec::new();
    let mut chunk = [0u8; 4096];
    loop {
        let read = rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut chunk))?;
        if read == 0 {
            return Ok(content);
        }
        content.extend_from_slice(chunk.get(..read).unwrap_or_default());
        if content.len() > limit && !Defence::SmallFile.is_out() {
            return Err(Errno::FBIG);
        }
    }
}

/// Whether what the descriptor stands for is of this type.
///
/// # Errors
///
/// Fails as `fstat(2)` does.
pub fn is_kind(fd: BorrowedFd<'_>, kind: rustix::fs::FileType) -> Result<bool> {
    let stat = rustix::fs::fstat(fd)?;
    Ok(rustix::fs::FileType::from_raw_mode(stat.st_mode) == kind)
}

/// Whether the descriptor is the character device with these numbers.
///
/// # Errors
///
/// Fails as `fstat(2)` does.
pub fn is_device(fd: BorrowedFd<'_>, major: u32, minor: u32) -> Result<bool> {
    let stat = rustix::fs::fstat(fd)?;
    let character =
        rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::CharacterDevice;
    Ok(character && stat.st_rdev == rustix::fs::makedev(major, minor))
}

/// Whether this process, with its effective rights, may execute the file (`faccessat2(2)`, Linux 5.8).
///
/// # Errors
///
/// `EACCES` when it may not.
pub fn may_execute(file: BorrowedFd<'_>) -> Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: the path is a NUL-terminated literal.
    let allowed = unsafe {
        libc::syscall(
            libc::SYS_faccessat2,
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::X_OK,
            libc::AT_EACCESS | libc::AT_EMPTY_PATH,
        )
    };
    crate::sys::checked(allowed).map(drop)
}

/// A path below a root, without the leading `/`: what `openat(2)` wants.
#[must_use]
pub fn relative(path: &Path) -> &Path {
    let bytes = path.as_os_str().as_bytes();
    let start = bytes
        .iter()
        .position(|byte| *byte != b'/')
        .unwrap_or(bytes.len());
    let rest = bytes.get(start..).unwrap_or_default();
    if rest.is_empty() {
        Path::new(".")
    } else {
        Path::new(OsStr::from_bytes(rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> (tempfile::TempDir, OwnedFd) {
        let temporary = tempfile::tempdir().unwrap();
        let opened = rustix::fs::open(
            temporary.path(),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        );
        (temporary, opened.unwrap())
    }

    #[test]
    fn a_link_to_the_outside_is_followed_inside() {
        let (temporary, root) = root();
        std::os::unix::fs::symlink("/etc", temporary.path().join("link")).unwrap();
        make_directories(&root, Path::new("/etc"), Mode::from_raw_mode(0o755)).unwrap();
        make_file(&root, Path::new("/link/inside")).unwrap();
        assert!(temporary.path().join("etc/inside").exists());
    }

    #[test]
    fn a_dangling_link_is_refused_and_makes_nothing() {
        let (temporary, root) = root();
        std::os::unix::fs::symlink("/nowhere", temporary.path().join("link")).unwrap();
        let made = make_directories(&root, Path::new("/link/a"), Mode::from_raw_mode(0o755));
        assert!(made.is_err());
        assert!(!temporary.path().join("nowhere").exists());
    }

    #[test]
    fn parents_are_made_one_below_the_other() {
        let (temporary, root) = root();
        make_directories(&root, Path::new("a/b/c"), Mode::from_raw_mode(0o755)).unwrap();
        assert!(temporary.path().join("a/b/c").is_dir());
    }

    #[test]
    fn dot_dot_below_something_missing_is_refused() {
        let (_temporary, root) = root();
        let made = make_directories(&root, Path::new("a/../../b"), Mode::from_raw_mode(0o755));
        assert_eq!(made.map(drop), Err(Errno::NOENT));
    }

    #[test]
    fn a_pipe_in_place_of_a_small_file_does_not_make_us_wait() {
        let (temporary, root) = root();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            temporary.path().join("passwd"),
            rustix::fs::FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        assert_eq!(
            read_small(&root, Path::new("passwd"), 100),
            Err(Errno::INVAL)
        );
    }

    #[test]
    fn a_pipe_in_place_of_a_small_file_is_not_even_opened() {
        use std::sync::atomic::AtomicBool;
        use std::sync::atomic::Ordering;
        let (temporary, root) = root();
        let pipe = temporary.path().join("passwd");
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let opened = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // Who opens a pipe to write waits for somebody who opens it to read.
            scope.spawn(|| {
                let end = rustix::fs::open(&pipe, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
                opened.store(end.is_ok(), Ordering::Relaxed);
            });
            for _ in 0..2000 {
                assert!(read_small(&root, Path::new("passwd"), 100).is_err());
                std::thread::yield_now();
            }
            let before = opened.load(Ordering::Relaxed);
            let reader = rustix::fs::open(&pipe, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
            assert!(reader.is_ok());
            assert!(!before, "it was opened");
        });
    }

    #[test]
    fn a_file_that_is_not_small_is_refused() {
        let (temporary, root) = root();
        std::fs::write(temporary.path().join("file"), [b'x'; 10_000]).unwrap();
        let small = read_small(&root, Path::new("file"), 10_000);
        assert_eq!(small.map(|content| content.len()), Ok(10_000));
        let refused = read_small(&root, Path::new("file"), 9_999);
        assert_eq!(refused, Err(Errno::FBIG));
    }

    #[test]
    fn a_path_on_one_mount_meets_no_other() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let thread = std::thread::spawn(move || {
            crate::sys::namespace::leave(0x2_0000).unwrap();
            crate::sys::mount::propagate_all(1 << 18).unwrap();
            // Opened in here: a mount of another namespace is not copied.
            let (temporary, root) = root();
            std::fs::create_dir(temporary.path().join("attr")).unwrap();
            std::fs::write(temporary.path().join("attr/exec"), "").unwrap();
            let label = Path::new("attr/exec");
            let before = open_on_one_mount(&root, label, OFlags::WRONLY).map(drop);
            let cover = crate::sys::mount::copy_tree(&root, false).unwrap();
            let place = open_in(&root, Path::new("attr"), OFlags::PATH).unwrap();
            crate::sys::mount::attach(&cover, &place).unwrap();
            let after = open_on_one_mount(&root, Path::new("attr/attr"), OFlags::PATH).map(drop);
            drop(temporary);
            (before, after)
        });
        assert_eq!(thread.join().unwrap(), (Ok(()), Err(Errno::XDEV)));
    }
}
