//! The system calls that the threads of a machine may make, and no others.
//!
//! The test `vmm::jail` holds both lists against copies of its own, and against the shortest that are known: 27 for a
//! processor, 50 for the devices.

/// What an argument must be: its number, a mask, and the value under that mask.
pub type Argument = (u8, u64, u64);
/// A system call, and what one of its arguments must be if not anything.
pub type Call = (i64, Option<Argument>);

/// `KVM_RUN`.
const RUN: u64 = 0xae80;
/// `F_GETFD`.
const GET_FLAGS: u64 = 1;
/// Requests to vhost: `_IO*(0xaf, ...)`.
const VHOST: Argument = (1, 0xff00, 0xaf00);
/// Requests to a tap, its offloads and the length of its headers: `_IO*('T', ...)`.
const TAP: Argument = (1, 0xff00, 0x5400);
/// Requests to a block device, to forget or clear a part: `_IO(0x12, ...)`.
const BLOCK: Argument = (1, 0xff00, 0x1200);
/// All bits of an argument of 32 bits.
const ALL: u64 = 0xffff_ffff;
/// No memory becomes a program.
const NOT_EXECUTABLE: Option<Argument> = Some((2, PROT_EXEC, 0));
const PROT_EXEC: u64 = 4;

/// A processor: it runs its guest, answers its exits, rings the bells of the devices.
pub const VCPU: &[Call] = &[
    (libc::SYS_ioctl, Some((1, ALL, RUN))),
    // The serial port's log with its last line, and bells.
    (libc::SYS_write, None),
    (libc::SYS_pwrite64, None),
    (libc::SYS_futex, None),
    // Memory of its own.
    (libc::SYS_mmap, NOT_EXECUTABLE),
    (libc::SYS_mprotect, NOT_EXECUTABLE),
    (libc::SYS_munmap, None),
    (libc::SYS_mremap, None),
    (libc::SYS_madvise, None),
    (libc::SYS_brk, None),
    // To be called out of its guest, and to end; the standard library looks at a descriptor before it closes it.
    (libc::SYS_close, None),
    (libc::SYS_fcntl, Some((1, ALL, GET_FLAGS))),
    (libc::SYS_rt_sigreturn, None),
    (libc::SYS_rt_sigprocmask, None),
    (libc::SYS_rt_sigaction, None),
    (libc::SYS_sigaltstack, None),
    (libc::SYS_restart_syscall, None),
    (libc::SYS_sched_yield, None),
    (libc::SYS_clock_gettime, None),
    (libc::SYS_getrandom, None),
    (libc::SYS_gettid, None),
    (libc::SYS_getpid, None),
    (libc::SYS_tgkill, None),
    (libc::SYS_tkill, None),
    (libc::SYS_exit, None),
    (libc::SYS_exit_group, None),
];

/// The devices, and whatever else the process does while its machine runs.
pub const VMM: &[Call] = &[
    // Events.
    (libc::SYS_epoll_wait, None),
    (libc::SYS_epoll_pwait, None),
    (libc::SYS_epoll_ctl, None),
    (libc::SYS_poll, None),
    (libc::SYS_ppoll, None),
    (libc::SYS_timerfd_settime, None),
    (libc::SYS_eventfd2, None),
    (libc::SYS_io_uring_enter, None),
    // Disks, taps, pipes, terminals.
    (libc::SYS_read, None),
    (libc::SYS_write, None),
    (libc::SYS_readv, None),
    (libc::SYS_writev, None),
    (libc::SYS_preadv, None),
    (libc::SYS_pwritev, None),
    (libc::SYS_pread64, None),
    (libc::SYS_pwrite64, None),
    (libc::SYS_fsync, None),
    (libc::SYS_fdatasync, None),
    (libc::SYS_fallocate, None),
    (libc::SYS_ioctl, Some(VHOST)),
    (libc::SYS_ioctl, Some(TAP)),
    (libc::SYS_ioctl, Some(BLOCK)),
    // Sockets that are there; none is made.
    (libc::SYS_accept4, None),
    (libc::SYS_recvmsg, None),
    (libc::SYS_sendmsg, None),
    (libc::SYS_recvfrom, None),
    (libc::SYS_sendto, None),
    (libc::SYS_shutdown, None),
    (libc::SYS_fcntl, None),
    (libc::SYS_close, None),
    // Memory of its own and the guest's.
    (libc::SYS_futex, None),
    (libc::SYS_mmap, NOT_EXECUTABLE),
    (libc::SYS_mprotect, NOT_EXECUTABLE),
    (libc::SYS_munmap, None),
    (libc::SYS_mremap, None),
    (libc::SYS_madvise, None),
    (libc::SYS_brk, None),
    // To call processors out of their guests, and to end.
    (libc::SYS_tgkill, None),
    (libc::SYS_tkill, None),
    (libc::SYS_getpid, None),
    (libc::SYS_gettid, None),
    (libc::SYS_rt_sigreturn, None),
    (libc::SYS_rt_sigprocmask, None),
    (libc::SYS_rt_sigaction, None),
    (libc::SYS_sigaltstack, None),
    (libc::SYS_restart_syscall, None),
    (libc::SYS_sched_yield, None),
    (libc::SYS_clock_gettime, None),
    (libc::SYS_getrandom, None),
    (libc::SYS_exit, None),
    (libc::SYS_exit_group, None),
];
