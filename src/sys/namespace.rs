//! Namespaces: enter those of others, leave for new ones.

use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::process::PidfdFlags;

use crate::sys::Result;
use crate::sys::checked;
use crate::sys::opened;

/// `CLONE_NEWNET`.
pub const NETWORK: u64 = 0x4000_0000;

/// Enters namespaces: those named by `kinds` of the process behind a pidfd (Linux 5.8), or the one
/// behind a namespace descriptor, which must then be of that kind.
///
/// # Errors
///
/// Fails as `setns(2)` does; `EINVAL` when the descriptor is a namespace of another kind.
pub fn enter(target: BorrowedFd<'_>, kinds: u64) -> Result<()> {
    let kinds = libc::c_int::try_from(kinds & 0x7fff_ffff).unwrap_or(0);
    // SAFETY: plain numbers; the descriptor is alive for the call.
    let done = unsafe { libc::setns(target.as_raw_fd(), kinds) };
    checked(done.into()).map(drop)
}

/// Leaves the namespaces of these kinds for new ones.
///
/// # Errors
///
/// Fails as `unshare(2)` does.
pub fn leave(kinds: u64) -> Result<()> {
    let kinds = libc::c_int::try_from(kinds & 0x7fff_ffff).unwrap_or(0);
    // SAFETY: plain numbers; what other threads are in stays as it is.
    let done = unsafe { libc::unshare(kinds) };
    checked(done.into()).map(drop)
}

/// Opens the network namespace that this thread is in.
///
/// # Errors
///
/// Fails as `open(2)` does.
pub fn network() -> Result<OwnedFd> {
    network_by_handle().or_else(|_| {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        // host path: this thread, in the host's proc.
        rustix::fs::open("/proc/thread-self/ns/net", flags, Mode::empty())
    })
}

/// The same by a handle to this thread, in a third of the time (`PIDFD_GET_NET_NAMESPACE` of `linux/pidfd.h`, Linux 6.11).
fn network_by_handle() -> Result<OwnedFd> {
    /// `_IO(0xff, 4)`.
    const GET_NETWORK: libc::Ioctl = 0xff04;
    /// `PIDFD_THREAD` (Linux 6.9).
    const THREAD: PidfdFlags = PidfdFlags::from_bits_retain(libc::O_EXCL.unsigned_abs());
    let own = rustix::process::pidfd_open(rustix::thread::gettid(), THREAD)?;
    // SAFETY: the request takes no argument and opens the namespace, to be closed by `execve(2)`.
    opened(unsafe { libc::ioctl(own.as_raw_fd(), GET_NETWORK, 0) }.into())
}

/// Opens the network namespace that a process is in.
///
/// # Errors
///
/// Fails as `open(2)` does; `ENOENT` when there is no such process.
pub fn network_of(pid: i32) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    // host path: namespaces in the host's proc.
    rustix::fs::open(format!("/proc/{pid}/ns/net"), flags, Mode::empty())
}

/// Makes a network namespace that nobody is in.
///
/// # Errors
///
/// Fails as [`in_other_network`] does.
pub fn make_network() -> Result<OwnedFd> {
    make_network_with(|| ()).map(|(network, ())| network)
}

/// Makes a network namespace that nobody is in, and does something there.
///
/// # Errors
///
/// As [`make_network`]; what `work` gives is inside.
pub fn make_network_with<T>(work: impl FnOnce() -> T) -> Result<(OwnedFd, T)> {
    in_other_network(|| leave(NETWORK), || Ok((network()?, work())))?
}

/// Does something in another network namespace, which `leave_for` takes this thread into.
///
/// This thread goes there and comes back, which takes a hundredth of the time of making another. Whoever may not come back
/// is told so before it leaves; a kernel that has no memory left for the way ends this process as if it had been killed,
/// which all that it makes is prepared for, while to look for that in the wrong network nothing is.
///
/// # Errors
///
/// Fails as `setns(2)` and `leave_for` do; what `work` gives is inside.
pub fn in_other_network<T>(
    leave_for: impl FnOnce() -> Result<()>,
    work: impl FnOnce() -> T,
) -> Result<T> {
    let own = network()?;
    enter(own.as_fd(), NETWORK)?;
    leave_for()?;
    let done = work();
    if enter(own.as_fd(), NETWORK).is_err() {
        std::process::abort();
    }
    Ok(done)
}

/// The `CLONE_NEW*` bit of the namespace behind a descriptor (`ioctl_ns(2)`, Linux 4.11).
///
/// # Errors
///
/// `ENOTTY` when it is no namespace.
pub fn kind(namespace: BorrowedFd<'_>) -> Result<u64> {
    /// `NS_GET_NSTYPE` of `linux/nsfs.h`: `_IO(0xb7, 3)`.
    const GET_TYPE: libc::Ioctl = 0xb703;
    // SAFETY: the request takes no argument; the descriptor is alive for the call.
    let kind = unsafe { libc::ioctl(namespace.as_raw_fd(), GET_TYPE) };
    checked(kind.into()).map(i64::cast_unsigned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_of_a_thread_is_its_own() {
        let identity = |file: &OwnedFd| rustix::fs::fstat(file).unwrap().st_ino;
        let of = move |path: &str| {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            identity(&rustix::fs::open(path, flags, Mode::empty()).unwrap())
        };
        let others = of("/proc/self/ns/net");
        assert_eq!(identity(&network().unwrap()), others);
        let own = std::thread::spawn(move || {
            leave(NETWORK).ok()?;
            Some((
                identity(&network().unwrap()),
                of("/proc/thread-self/ns/net"),
            ))
        });
        // Without the right to another network there is nothing to compare.
        if let Some((found, told)) = own.join().unwrap() {
            assert_eq!(found, told);
            assert_ne!(found, others);
        }
    }
}
