//! How a process is run: limits, scheduling, memory placement, personality.

use std::os::fd::OwnedFd;

use crate::sys::Errno;
use crate::sys::Result;
use crate::sys::checked;

/// The scheduling policy of a thread; the layout of the kernel's `struct sched_attr`, version 0.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scheduling {
    /// The size of this structure, in bytes.
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// -20 to 19, for `SCHED_OTHER` and `SCHED_BATCH`.
    pub nice: i32,
    /// 1 to 99, for `SCHED_FIFO` and `SCHED_RR`.
    pub priority: u32,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    pub runtime: u64,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    pub deadline: u64,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    pub period: u64,
}

/// Sets the scheduling policy of this thread (`sched_setattr(2)`).
///
/// # Errors
///
/// `EINVAL` for values out of range, `EPERM` without `CAP_SYS_NICE`.
pub fn schedule(mut scheduling: Scheduling) -> Result<()> {
    scheduling.size = u32::try_from(size_of::<Scheduling>()).unwrap_or(0);
    // SAFETY: the structure carries its own size and outlives the call.
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const scheduling, 0) };
    checked(done).map(drop)
}

/// Sets the I/O priority of this process: class 1 to 3, level 0 to 7 (`ioprio_set(2)`).
///
/// # Errors
///
/// `EINVAL` for values out of range, `EPERM` for the real-time class without `CAP_SYS_ADMIN`.
pub fn io_priority(class: u32, level: u32) -> Result<()> {
    const WHO_PROCESS: libc::c_int = 1;
    // SAFETY: plain numbers.
    let done =
        unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, (class << 13) | level) };
    checked(done).map(drop)
}

/// Sets the memory policy of this thread: `MPOL_*` with flags, and the nodes (`set_mempolicy(2)`).
///
/// # Errors
///
/// `EINVAL` for a mode that this kernel does not know or nodes that are not there.
pub fn memory_policy(mode: u32, nodes: &[u32]) -> Result<()> {
    let highest = nodes.iter().max().copied();
    let words = highest.map_or(0, |node| node as usize / 64 + 1);
    let mut mask = vec![0u64; words];
    for node in nodes {
        if let Some(word) = mask.get_mut(*node as usize / 64) {
            *word |= 1 << (node % 64);
        }
    }
    let bits = if words == 0 { 0 } else { words * 64 + 1 };
    let pointer = if words == 0 {
        std::ptr::null()
    } else {
        mask.as_ptr()
    };
    // SAFETY: the mask holds at least `bits - 1` bits, which is what the kernel reads.
    let done = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) };
    checked(done).map(drop)
}

/// Sets the execution domain (`personality(2)`).
///
/// # Errors
///
/// `EINVAL` when the kernel refuses it.
pub fn personality(domain: u64) -> Result<()> {
    // SAFETY: a plain number.
    let done = unsafe { libc::personality(domain) };
    checked(done.into()).map(drop)
}

/// Sets a resource limit of a process, 0 for this one (`prlimit(2)`); `u64::MAX` means no limit.
///
/// # Errors
///
/// `EPERM` for a hard limit above the present one without `CAP_SYS_RESOURCE`, `EINVAL` when soft is above hard.
pub fn limit(pid: i32, resource: u32, soft: u64, hard: u64) -> Result<()> {
    let wanted = libc::rlimit64 {
        rlim_cur: soft,
        rlim_max: hard,
    };
    // SAFETY: the structure outlives the call; the old limits are not asked for.
    let done = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            pid,
            resource,
            &raw const wanted,
            std::ptr::null_mut::<libc::rlimit64>(),
        )
    };
    checked(done).map(drop)
}

/// Runs this thread on these CPUs only (`sched_setaffinity(2)`); numbers of any size.
///
/// # Errors
///
/// `EINVAL` when none of them is there or allowed.
pub fn run_on(cpus: &[u32]) -> Result<()> {
    let highest = cpus.iter().max().copied().ok_or(Errno::INVAL)?;
    let mut mask = vec![0u64; highest as usize / 64 + 1];
    for cpu in cpus {
        if let Some(word) = mask.get_mut(*cpu as usize / 64) {
            *word |= 1 << (cpu % 64);
        }
    }
    let bytes = mask.len() * size_of::<u64>();
    // SAFETY: the mask is readable for the length passed.
    let done = unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, bytes, mask.as_ptr()) };
    checked(done).map(drop)
}

/// Brings the loopback interface of this network namespace up.
///
/// # Errors
///
/// As [`loopback_up_by`].
pub fn loopback_up() -> Result<()> {
    loopback_up_by(&interfaces()?)
}

/// A socket by which the interfaces of this network namespace are changed, also from another one.
///
/// # Errors
///
/// Fails as `socket(2)` does.
pub fn interfaces() -> Result<OwnedFd> {
    rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
}

/// Brings the loopback interface of the socket's network namespace up (`netdevice(7)`, `SIOCSIFFLAGS`).
///
/// # Errors
///
/// `EPERM` without `CAP_NET_ADMIN` over the namespace.
pub fn loopback_up_by(socket: &OwnedFd) -> Result<()> {
    use std::os::fd::AsRawFd;
    /// `SIOCSIFFLAGS` of `linux/sockios.h`.
    const SET_FLAGS: libc::Ioctl = 0x8914;
    // SAFETY: `ifreq` is plain numbers, for which all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes_with_nul()) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    let up = libc::IFF_UP | libc::IFF_RUNNING;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(up).unwrap_or(0);
    // SAFETY: the request is a whole `ifreq` with a name that ends in NUL.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), SET_FLAGS, &raw const request) };
    checked(done.into()).map(drop)
}
