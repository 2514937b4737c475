//! Makes a kernel that has just booted into a place where a workspace can live, and ends it.

use std::ffi::CStr;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::mount::MountFlags;
use rustix::mount::UnmountFlags;
use rustix::system::RebootCommand;

use crate::agent::group::Group;
use crate::agent::modules;
use crate::agent::workspace;
use crate::sys::Errno;
use crate::sys::tuning;

/// Where the host's files are, and the name of the device that leads to them.
const SHARE: &str = "/run/share";
const TAG: &str = "share";
/// How many files a process may have open: what a container gets from its caller on a usual host.
const FILES: (u64, u64) = (1024, 1 << 20);
/// `RLIMIT_NOFILE`.
const NOFILE: u32 = 7;
/// How long processes that were killed may take to go.
const LAST_MOMENT: Duration = Duration::from_secs(5);

/// A file system, where it is mounted, and how.
struct Usual(&'static str, &'static str, MountFlags, &'static CStr);

const QUIET: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);
const PLAIN: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

const USUAL: [Usual; 9] = [
    Usual("proc", "/proc", QUIET, c""),
    Usual("sysfs", "/sys", QUIET, c""),
    Usual("devtmpfs", "/dev", MountFlags::NOSUID, c"mode=755"),
    Usual(
        "devpts",
        "/dev/pts",
        MountFlags::NOSUID.union(MountFlags::NOEXEC),
        c"gid=5,mode=620,ptmxmode=666",
    ),
    Usual("tmpfs", "/dev/shm", PLAIN, c"mode=1777"),
    Usual("mqueue", "/dev/mqueue", QUIET, c""),
    Usual("tmpfs", "/run", PLAIN, c"mode=755"),
    Usual("tmpfs", "/tmp", PLAIN, c"mode=1777"),
    Usual(
        "cgroup2",
        "/sys/fs/cgroup",
        QUIET,
        c"nsdelegate,memory_recursiveprot",
    ),
];

/// Sets the machine up.
pub(super) fn set_up() -> anyhow::Result<Group> {
    leave_the_first_root().context("take a root that can be left")?;
    for Usual(kind, at, flags, options) in USUAL {
        mount(kind, kind, at, flags, options)?;
    }
    modules::load_first()?;
    share()?;
    tuning::loopback_up().context("bring loopback up")?;
    tuning::limit(0, NOFILE, FILES.0, FILES.1).context("set the number of open files")?;
    let made = Group::make(&workspace::cgroups());
    made.map_err(|failure| anyhow::anyhow!("{failure:?}"))
}

/// The root that the kernel unpacks its first files into cannot be left by `pivot_root(2)`; a second mount of it that
/// covers it can.
#[expect(
    clippy::disallowed_methods,
    reason = "in a guest that is starting nobody else can change a path"
)]
fn leave_the_first_root() -> Result<(), Errno> {
    let cover = "/sysroot";
    std::fs::create_dir_all(cover).map_err(|_| Errno::IO)?;
    rustix::mount::mount_bind("/", cover)?;
    rustix::process::chdir(cover)?;
    rustix::mount::mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    rustix::process::chdir("/")
}

#[expect(
    clippy::disallowed_methods,
    reason = "in a guest that is starting nobody else can change a path"
)]
fn mount(
    kind: &str,
    source: &str,
    at: &str,
    flags: MountFlags,
    options: &CStr,
) -> anyhow::Result<()> {
    std::fs::create_dir_all(at).with_context(|| format!("make {at}"))?;
    rustix::mount::mount(source, at, kind, flags, options)
        .with_context(|| format!("mount {kind} on {at}"))
}

/// Mounts what the host shares; a machine may have nothing of it.
#[expect(
    clippy::disallowed_methods,
    reason = "in a guest that is starting nobody else can change a path"
)]
fn share() -> anyhow::Result<()> {
    std::fs::create_dir_all(SHARE).context("make the place of the share")?;
    match rustix::mount::mount(TAG, SHARE, "virtiofs", MountFlags::empty(), c"") {
        Ok(()) | Err(Errno::INVAL | Errno::NODEV) => Ok(()),
        Err(errno) => Err(errno).context("mount the share"),
    }
}

/// Ends what is left, writes what is not yet on a disk, and switches the machine off; it returns when that fails.
pub(super) fn switch_off(group: &Group) -> Errno {
    wait_for_the_last(group);
    rustix::fs::sync();
    // What is still in use has been written.
    rustix::mount::unmount(SHARE, UnmountFlags::DETACH).unwrap_or_default();
    rustix::fs::sync();
    // A kernel without ACPI knows of no switch; the machine takes a reset for the end as well.
    let command = match Path::new("/sys/firmware/acpi").exists() {
        true => RebootCommand::PowerOff,
        false => RebootCommand::Restart,
    };
    match rustix::system::reboot(command) {
        Ok(()) => Errno::IO,
        Err(errno) => errno,
    }
}

/// Waits until nobody is in the workspace's cgroup any more; who hangs in the kernel is not waited for for ever.
fn wait_for_the_last(group: &Group) {
    let path = group.path().join("cgroup.events");
    let Ok(events) = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
    else {
        return;
    };
    let deadline = std::time::Instant::now() + LAST_MOMENT;
    loop {
        let mut text = [0; 256];
        let length = rustix::io::pread(events.as_fd(), &mut text, 0).unwrap_or_default();
        if !String::from_utf8_lossy(&text[..length]).contains("populated 1") {
            return;
        }
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let left = rustix::time::Timespec::try_from(left).unwrap_or_default();
        let mut watched = [PollFd::new(&events, PollFlags::PRI)];
        match rustix::event::poll(&mut watched, Some(&left)) {
            Ok(0) => return,
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}
