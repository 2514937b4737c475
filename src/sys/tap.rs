//! Taps: network interfaces whose frames a process reads and writes (`linux/if_tun.h`).

use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;

use rustix::fs::Mode;
use rustix::fs::OFlags;

use crate::sys::Errno;
use crate::sys::Result;
use crate::sys::checked;

/// The length of the head before each frame (`struct virtio_net_hdr_v1`), in bytes.
pub const HEAD: usize = 12;

/// What a reader of frames does by himself, so that the kernel need not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Checksums.
    pub checksum: bool,
    /// Segments of TCP over IPv4 that are larger than a packet.
    pub tso4: bool,
    /// The same over IPv6.
    pub tso6: bool,
    /// Such segments with congestion marks.
    pub ecn: bool,
}

/// Makes a tap in the network namespace of this thread: one queue, heads before its frames, down. It goes with its
/// descriptor.
///
/// # Errors
///
/// `EBUSY` when the name is taken, `EPERM` without `CAP_NET_ADMIN`, `ENOENT` or `ENODEV` where there are no taps.
pub fn open(name: &str) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let tap = rustix::fs::open("/dev/net/tun", flags, Mode::empty())?;
    let mut request = Request::named(name)?;
    let kind = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.flags = u16::try_from(kind).unwrap_or_default();
    // SAFETY: the request is as long as `struct ifreq`, its name ends with a zero, and it outlives the call.
    let done = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    checked(done.into())?;
    set_head(&tap)?;
    Ok(tap)
}

/// Sets how long the heads of frames are: [`HEAD`].
///
/// # Errors
///
/// `EBADFD` when the descriptor is that of no tap.
pub fn set_head(tap: impl AsFd) -> Result<()> {
    let length = libc::c_int::try_from(HEAD).unwrap_or_default();
    let fd = tap.as_fd().as_raw_fd();
    // SAFETY: the call reads one number, which outlives it.
    let done = unsafe { libc::ioctl(fd, libc::TUNSETVNETHDRSZ, &raw const length) };
    checked(done.into()).map(drop)
}

/// Says what the reader of frames does by himself; what does not go without another is left out with it.
///
/// # Errors
///
/// `EINVAL` when the kernel does not know one of them.
pub fn set_offloads(tap: impl AsFd, offloads: Offloads) -> Result<()> {
    let large = offloads.checksum && (offloads.tso4 || offloads.tso6);
    let flags = [
        (offloads.checksum, libc::TUN_F_CSUM),
        (large && offloads.tso4, libc::TUN_F_TSO4),
        (large && offloads.tso6, libc::TUN_F_TSO6),
        (large && offloads.ecn, libc::TUN_F_TSO_ECN),
    ];
    let set = flags.into_iter().filter(|(on, _)| *on);
    let set = set.fold(0, |all, (_, flag)| all | flag);
    let fd = tap.as_fd().as_raw_fd();
    // SAFETY: the call takes one number.
    let done = unsafe { libc::ioctl(fd, libc::TUNSETOFFLOAD, libc::c_ulong::from(set)) };
    checked(done.into()).map(drop)
}

/// `struct ifreq`.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    flags: u16,
    _rest: [u8; 22],
}

impl Request {
    fn named(name: &str) -> Result<Self> {
        let mut request = Self {
            name: [0; libc::IFNAMSIZ],
            flags: 0,
            _rest: [0; 22],
        };
        if name.len() >= libc::IFNAMSIZ {
            return Err(Errno::NAMETOOLONG);
        }
        for (to, from) in request.name.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        Ok(request)
    }
}
