//! Makes the process that stays where a first one had to go ahead, so that it is known before it says anything.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use rustix::pipe::PipeFlags;

use crate::init;
use crate::init::report::Message;
use crate::sys::Result;
use crate::sys::clone;
use crate::sys::clone::Birth;

/// Makes the second process as a sibling of this one and announces it on `channel`.
///
/// Both share the channel: what the second says first would be taken for words of this one. So it waits until it has
/// been announced, and ends when that does not happen.
///
/// # Errors
///
/// Fails as `clone3(2)` and `write(2)` do.
pub(super) fn announce(
    namespaces: u64,
    cgroup: Option<BorrowedFd<'_>>,
    channel: &OwnedFd,
    life: impl FnOnce() -> i32,
) -> Result<()> {
    let (waits, goes) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let birth = Birth {
        namespaces,
        cgroup,
        sibling: true,
        leave: &[goes.as_fd()],
        ..Birth::default()
    };
    let second = clone::spawn(birth, || {
        if announced(&waits) {
            life()
        } else {
            init::FAILED
        }
    })?;
    Message::Born(second.pid).send(channel)?;
    rustix::io::retry_on_intr(|| rustix::io::write(&goes, &[1])).map(drop)
}

fn announced(waits: &OwnedFd) -> bool {
    let mut byte = [0u8; 1];
    rustix::io::retry_on_intr(|| rustix::io::read(waits, &mut byte)) == Ok(1)
}
