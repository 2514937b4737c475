//! Gives up what a process that stands for a program in a guest has no use for: it talks, and makes nothing.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;

use rustix::fs::Mode;
use rustix::fs::OFlags;

use crate::backend::BackendError;
use crate::init;
use crate::plan::namespaces;
use crate::plan::share;
use crate::sys::Result;
use crate::sys::clone;
use crate::sys::clone::Birth;
use crate::sys::identity;
use crate::sys::identity::Sets;
use crate::sys::mount;
use crate::sys::mount::Change;
use crate::sys::namespace;
use crate::sys::process;
use crate::sys::process::Exit;

/// Gives up every capability, for good. This process has one thread.
pub(super) fn lower() -> std::result::Result<(), BackendError> {
    lowered().map_err(BackendError::kernel("give up the rights of root"))
}

fn lowered() -> Result<()> {
    identity::no_new_privileges()?;
    identity::ambient(0)?;
    identity::bound(0)?;
    identity::set_capabilities(Sets::default())
}

/// Makes the root of a guest read-only where its file server sees it, so that a guest whose kernel has been taken over
/// cannot write to it either. This process has one thread.
pub(super) fn seal_root(server: BorrowedFd<'_>) -> std::result::Result<(), BackendError> {
    let failed = || BackendError::kernel("make the root read-only on the host");
    let child = clone::spawn(Birth::default(), || match sealed(server) {
        Ok(()) => 0,
        Err(_) => init::FAILED,
    })
    .map_err(failed())?;
    let Exit::Status(0) = process::wait(child.pidfd.as_fd()).map_err(failed())? else {
        return Err(failed()(crate::sys::Errno::PERM));
    };
    Ok(())
}

/// In a process of its own, which does not come back from there.
fn sealed(server: BorrowedFd<'_>) -> Result<()> {
    namespace::enter(server, namespaces::MOUNT)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = rustix::fs::open(format!("/{}", share::ROOT), flags, Mode::empty())?;
    let change = Change {
        set: mount::ATTR_RDONLY,
        ..Change::default()
    };
    mount::set_attributes(root.as_fd(), &change, false)
}
