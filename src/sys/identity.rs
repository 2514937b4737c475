//! Who a process is: user, groups, capabilities, and the promise never to gain more.

use rustix::thread::Gid;
use rustix::thread::Uid;

use crate::sys::Errno;
use crate::sys::Result;
use crate::sys::checked;

/// The highest number a capability may have: the sets are 64 bits wide.
const WIDTH: u32 = 64;

/// Capability sets as bit masks, bit n for capability n (`capabilities(7)`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sets {
    /// What the kernel checks.
    pub effective: u64,
    /// What may be made effective.
    pub permitted: u64,
    /// What survives `execve(2)` of files that inherit it.
    pub inheritable: u64,
}

/// Removes from the bounding set every capability that is not in `keep` and that this kernel knows.
///
/// # Errors
///
/// `EPERM` without `CAP_SETPCAP`.
pub fn bound(keep: u64) -> Result<()> {
    for capability in (0..WIDTH).filter(|bit| keep & (1 << bit) == 0) {
        // SAFETY: plain numbers.
        let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        match checked(dropped.into()) {
            Ok(_) => {}
            // The kernel knows no more of them.
            Err(Errno::INVAL) => return Ok(()),
            // What is not there need not be dropped.
            Err(Errno::PERM) if !is_in_bounding_set(capability) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn is_in_bounding_set(capability: u32) -> bool {
    // SAFETY: plain numbers.
    let held = unsafe { libc::prctl(libc::PR_CAPBSET_READ, capability, 0, 0, 0) };
    held == 1
}

/// Raises the ambient capabilities in `raise` and lowers all others (`prctl(2)`, `PR_CAP_AMBIENT`).
///
/// # Errors
///
/// `EPERM` for one that is not both permitted and inheritable.
pub fn ambient(raise: u64) -> Result<()> {
    // SAFETY: plain numbers.
    let cleared = unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_CLEAR_ALL,
            0,
            0,
            0,
        )
    };
    checked(cleared.into())?;
    for capability in (0..WIDTH).filter(|bit| raise & (1 << bit) != 0) {
        // SAFETY: plain numbers.
        let raised = unsafe {
            libc::prctl(
                libc::PR_CAP_AMBIENT,
                libc::PR_CAP_AMBIENT_RAISE,
                capability,
                0,
                0,
            )
        };
        checked(raised.into())?;
    }
    Ok(())
}

/// The header and data of `capset(2)`, version 3.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `_LINUX_CAPABILITY_VERSION_3`.
const VERSION: u32 = 0x2008_0522;

/// Sets the three classic sets of this thread.
///
/// # Errors
///
/// `EPERM` when a set would gain what the permitted set does not hold.
pub fn set_capabilities(sets: Sets) -> Result<()> {
    let header = Header {
        version: VERSION,
        pid: 0,
    };
    let low = |mask: u64| u32::try_from(mask & 0xffff_ffff).unwrap_or_default();
    let high = |mask: u64| u32::try_from(mask >> 32).unwrap_or_default();
    let data = [
        low(sets.effective),
        low(sets.permitted),
        low(sets.inheritable),
        high(sets.effective),
        high(sets.permitted),
        high(sets.inheritable),
    ];
    // SAFETY: header and data have the layout of version 3, and both outlive the call.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    checked(done).map(drop)
}

/// The three classic sets of this thread.
///
/// # Errors
///
/// None is known; the kernel's answer is passed on.
pub fn capabilities() -> Result<Sets> {
    let header = Header {
        version: VERSION,
        pid: 0,
    };
    let mut data = [0u32; 6];
    // SAFETY: header and data have the layout of version 3, and both outlive the call.
    let done = unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) };
    checked(done)?;
    let [
        low_effective,
        low_permitted,
        low_inheritable,
        effective,
        permitted,
        inheritable,
    ] = data;
    let join = |low: u32, high: u32| u64::from(low) | (u64::from(high) << 32);
    Ok(Sets {
        effective: join(low_effective, effective),
        permitted: join(low_permitted, permitted),
        inheritable: join(low_inheritable, inheritable),
    })
}

/// Keeps the permitted set over a change of the user (`PR_SET_KEEPCAPS`).
///
/// # Errors
///
/// `EPERM` when the securebits forbid it.
pub fn keep_capabilities(keep: bool) -> Result<()> {
    // SAFETY: plain numbers.
    let done = unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, libc::c_ulong::from(keep), 0, 0, 0) };
    checked(done.into()).map(drop)
}

/// Promises that this process and its children never gain privileges by `execve(2)`.
///
/// # Errors
///
/// None is known; the kernel's answer is passed on.
pub fn no_new_privileges() -> Result<()> {
    rustix::thread::set_no_new_privs(true)
}

/// The user and the group that this process counts as (`geteuid(2)`, `getegid(2)`).
#[must_use]
pub fn effective() -> (u32, u32) {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    (uid.as_raw(), gid.as_raw())
}

/// Becomes this group, real, effective and saved.
///
/// # Errors
///
/// `EINVAL` when the number has no meaning in this user namespace, `EPERM` without the right.
pub fn become_group(gid: u32) -> Result<()> {
    let gid = Gid::from_raw(gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid)
}

/// Becomes this user, real, effective and saved.
///
/// # Errors
///
/// `EINVAL` when the number has no meaning in this user namespace, `EPERM` without the right.
pub fn become_user(uid: u32) -> Result<()> {
    let uid = Uid::from_raw(uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid)
}

/// Sets the supplementary groups.
///
/// # Errors
///
/// `EPERM` where `/proc/PID/setgroups` says `deny` or without `CAP_SETGID`.
pub fn set_groups(groups: &[u32]) -> Result<()> {
    let groups: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    rustix::thread::set_thread_groups(&groups)
}

/// Joins a new session keyring of this name and lets its owner search it (`keyctl(2)`).
///
/// # Errors
///
/// `ENOSYS` on a kernel without keys, `EDQUOT` when the user has too many.
pub fn join_session_keyring(name: &std::ffi::CStr) -> Result<()> {
    const JOIN: libc::c_int = 1;
    const DESCRIBE: libc::c_int = 6;
    const SETPERM: libc::c_int = 5;
    const USER_SEARCH: u32 = 0x0008_0000;
    // SAFETY: the name is NUL-terminated and outlives the call.
    let key = checked(unsafe { libc::syscall(libc::SYS_keyctl, JOIN, name.as_ptr()) })?;
    let mut description = [0u8; 256];
    // SAFETY: the buffer is writable for the length passed.
    let described = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            DESCRIBE,
            key,
            description.as_mut_ptr(),
            description.len(),
        )
    };
    checked(described)?;
    let text = String::from_utf8_lossy(&description);
    let permissions = text
        .split(';')
        .nth(3)
        .and_then(|hex| u32::from_str_radix(hex, 16).ok());
    if let Some(permissions) = permissions {
        // SAFETY: plain numbers.
        let set =
            unsafe { libc::syscall(libc::SYS_keyctl, SETPERM, key, permissions | USER_SEARCH) };
        checked(set)?;
    }
    Ok(())
}
