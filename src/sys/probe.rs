//! Asks the kernel what it has, without changing anything: every call here is made so that it must fail or only looks.

use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;

use rustix::net::AddressFamily;
use rustix::net::RecvFlags;
use rustix::net::SendFlags;
use rustix::net::SocketFlags;
use rustix::net::SocketType;
use rustix::net::netlink;

use crate::sys::Errno;
use crate::sys::Result;
use crate::sys::checked;

/// System calls that are younger than the oldest kernel in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// `clone3(2)`.
    Clone3,
    /// `openat2(2)`.
    Openat2,
    /// `fsopen(2)`, and with it the rest of the new mount interface.
    Fsopen,
    /// `mount_setattr(2)`.
    MountSetattr,
    /// `pidfd_open(2)`.
    PidfdOpen,
    /// `pidfd_getfd(2)`.
    PidfdGetfd,
    /// `close_range(2)`.
    CloseRange,
    /// `io_uring_setup(2)`.
    IoUring,
    /// `statmount(2)`.
    Statmount,
}

impl Call {
    /// Its number, and arguments that it refuses.
    fn refused(self) -> (libc::c_long, [libc::c_long; 5]) {
        match self {
            Self::Clone3 => (libc::SYS_clone3, [0; 5]),
            Self::Openat2 => (libc::SYS_openat2, [-1, 0, 0, 0, 0]),
            Self::Fsopen => (libc::SYS_fsopen, [0, -1, 0, 0, 0]),
            Self::MountSetattr => (libc::SYS_mount_setattr, [-1, 0, -1, 0, 0]),
            Self::PidfdOpen => (libc::SYS_pidfd_open, [-1, -1, 0, 0, 0]),
            Self::PidfdGetfd => (libc::SYS_pidfd_getfd, [-1, -1, -1, 0, 0]),
            Self::CloseRange => (libc::SYS_close_range, [1, 0, -1, 0, 0]),
            Self::IoUring => (libc::SYS_io_uring_setup, [0, 0, 0, 0, 0]),
            Self::Statmount => (STATMOUNT, [0, 0, 0, -1, 0]),
        }
    }
}

/// `statmount(2)` (Linux 6.8), the same on every architecture.
const STATMOUNT: libc::c_long = 457;

/// Whether the kernel has a system call and lets this process use it.
///
/// # Errors
///
/// `ENOSYS` if there is none, `EPERM` if a filter or a setting keeps it away.
pub fn call(call: Call) -> Result<()> {
    let (number, [a, b, c, d, e]) = call.refused();
    // SAFETY: every argument is one that the call refuses before it does anything: no descriptor, no flag and no
    // size of these kinds exists, and null is no address.
    match checked(unsafe { libc::syscall(number, a, b, c, d, e) }) {
        Err(errno @ (Errno::NOSYS | Errno::PERM)) => Err(errno),
        _ => Ok(()),
    }
}

/// The version of Landlock's interface.
///
/// # Errors
///
/// `ENOSYS` or `EOPNOTSUPP` if there is none, or it is switched off.
pub fn landlock() -> Result<u32> {
    const ONLY_THE_VERSION: libc::c_long = 1;
    // SAFETY: with this flag the call takes no attributes and gives a number.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, ONLY_THE_VERSION) };
    Ok(u32::try_from(checked(version)?).unwrap_or_default())
}

/// The version of KVM's interface, which has been 12 since Linux 2.6.22.
///
/// # Errors
///
/// `ENOTTY` if the descriptor is not of `/dev/kvm`.
pub fn kvm_version(device: BorrowedFd<'_>) -> Result<u32> {
    const GET_API_VERSION: libc::Ioctl = 0xae00;
    // SAFETY: this request takes no argument and gives a number.
    let version = unsafe { libc::ioctl(device.as_raw_fd(), GET_API_VERSION, 0) };
    Ok(u32::try_from(checked(libc::c_long::from(version))?).unwrap_or_default())
}

/// Whether nftables answers: it is asked for the number of its rules' generation.
///
/// # Errors
///
/// `EPROTONOSUPPORT` or `EINVAL` if the kernel has none, `EPERM` without `CAP_NET_ADMIN`.
pub fn nftables() -> Result<()> {
    /// Length 20, `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN`, `NLM_F_REQUEST`, number 1; then `struct nfgenmsg`.
    const GET_GENERATION: [u8; 20] = [
        20, 0, 0, 0, 16, 10, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    /// `NLMSG_ERROR`.
    const ERROR: u16 = 2;

    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        flags,
        Some(netlink::NETFILTER),
    )?;
    rustix::net::send(&socket, &GET_GENERATION, SendFlags::empty())?;
    let mut answer = [0_u8; 256];
    let (length, _) = rustix::net::recv(&socket, &mut answer, RecvFlags::empty())?;
    let answer = answer.get(..length).ok_or(Errno::BADMSG)?;
    let kind = answer
        .get(4..6)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u16::from_le_bytes);
    let error = answer
        .get(16..20)
        .and_then(|bytes| bytes.try_into().ok())
        .map(i32::from_le_bytes);
    match (kind, error) {
        (Some(ERROR), Some(error)) if error != 0 => {
            Err(Errno::from_raw_os_error(error.saturating_neg()))
        }
        (Some(_), _) => Ok(()),
        (None, _) => Err(Errno::BADMSG),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_this_program_cannot_do_without_are_there() {
        for needed in [
            Call::Clone3,
            Call::Openat2,
            Call::Fsopen,
            Call::MountSetattr,
            Call::PidfdOpen,
        ] {
            assert_eq!(call(needed), Ok(()), "{needed:?}");
        }
    }
}
