//! A user namespace of its own for a process of a machine: who is root in there is nobody on the host.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;

use crate::backend::BackendError;
use crate::backend::mapping;
use crate::plan::namespaces::Mapping;
use crate::sys::Errno;
use crate::sys::Result;
use crate::sys::clone::Spawned;
use crate::sys::identity;
use crate::sys::socket;

/// The first of the numbers that systemd's list of users leaves to nobody (`UIDS-GIDS.md`: 1879048192 to 2147352575).
const FIRST: u32 = 0x7000_0000;

/// Gives the users of a namespace their numbers, and lets its process go on, which waits on the other end of `channel`.
pub(super) fn admit(
    born: &Spawned,
    users: &Mapping,
    channel: BorrowedFd<'_>,
) -> std::result::Result<(), BackendError> {
    mapping::write(born.pid, users)?;
    release(channel)
}

/// The same with the one number that no account, no container and no other machine on this host has: it follows from
/// the number of the process. Who may not give it, a user without power or one who is mapped, gives their own.
pub(super) fn admit_nobody(
    born: &Spawned,
    channel: BorrowedFd<'_>,
) -> std::result::Result<(), BackendError> {
    let number = FIRST | born.pid.unsigned_abs();
    let (user, group) = identity::effective();
    mapping::write(born.pid, &only(number, number))
        .or_else(|_| mapping::write(born.pid, &only(user, group)))?;
    release(channel)
}

/// Root inside and nobody else, with these numbers outside.
fn only(user: u32, group: u32) -> Mapping {
    Mapping {
        users: format!("0 {user} 1\n"),
        groups: format!("0 {group} 1\n"),
        ..Mapping::default()
    }
}

fn release(channel: BorrowedFd<'_>) -> std::result::Result<(), BackendError> {
    socket::send(channel.as_fd(), b"g").map_err(BackendError::kernel("admit a process"))
}

/// In the new process: waits for the numbers of its user namespace and becomes root there.
pub(super) fn enter(channel: BorrowedFd<'_>) -> Result<()> {
    let mut word = [0u8; 1];
    if socket::receive(channel, &mut word)? == 0 {
        return Err(Errno::PIPE);
    }
    identity::become_group(0)?;
    identity::become_user(0)
}
