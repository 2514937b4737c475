//! What is left of the rights of a file server, once it has what it serves.

use anyhow::Context;

use crate::sys::identity;
use crate::sys::identity::Sets;
use crate::sys::process;
use crate::sys::tuning;

/// The rights of one who keeps files for many owners (`capabilities(7)`): nothing about mounts, devices, other
/// processes or networks. `CAP_DAC_READ_SEARCH` is not among them on purpose: with it files outside the shares could be
/// opened by guessed handles.
const KEPT: u64 = 1 << CHOWN
    | 1 << DAC_OVERRIDE
    | 1 << FOWNER
    | 1 << FSETID
    | 1 << SETGID
    | 1 << SETUID
    | 1 << MKNOD
    | 1 << SETFCAP;

const CHOWN: u32 = 0;
const DAC_OVERRIDE: u32 = 1;
const FOWNER: u32 = 3;
const FSETID: u32 = 4;
const SETGID: u32 = 6;
const SETUID: u32 = 7;
const MKNOD: u32 = 27;
const SETFCAP: u32 = 31;

/// `RLIMIT_NOFILE`.
const DESCRIPTORS: u32 = 7;
/// `RLIMIT_CORE`.
const CORE: u32 = 4;
/// More files than a guest of ordinary size can remember.
const ENOUGH: u64 = 1_000_000;

/// Raises the limit of open descriptors as far as it may be; gives how many there are now. Before the room is entered:
/// the machine's own limit is read from `/proc`.
pub(super) fn more_descriptors() -> u64 {
    // host path: a parameter, in the host's proc.
    let most = std::fs::read_to_string("/proc/sys/fs/nr_open")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(ENOUGH)
        .min(ENOUGH);
    let allowed = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let allowed = allowed.maximum.unwrap_or(ENOUGH);
    let wanted = most.max(allowed.min(ENOUGH));
    if tuning::limit(0, DESCRIPTORS, wanted, wanted).is_ok() {
        return wanted;
    }
    match tuning::limit(0, DESCRIPTORS, allowed, allowed) {
        Ok(()) => allowed,
        // It stays as it was.
        Err(_) => rustix::process::getrlimit(rustix::process::Resource::Nofile)
            .current
            .unwrap_or(allowed),
    }
}

/// Gives up every right but those of a file server, for this process and whatever it might become.
pub(super) fn lower() -> anyhow::Result<()> {
    tuning::limit(0, CORE, 0, 0).context("cannot forbid core dumps")?;
    identity::bound(KEPT).context("cannot bound the capabilities")?;
    identity::ambient(0).context("cannot lower the ambient capabilities")?;
    // In a user namespace of one's own making the groups may be locked; they are the caller's then, and its files.
    identity::set_groups(&[]).unwrap_or_default();
    identity::set_capabilities(Sets {
        effective: KEPT,
        permitted: KEPT,
        inheritable: 0,
    })
    .context("cannot lower the capabilities")?;
    identity::no_new_privileges().context("cannot forbid new privileges")?;
    process::hide().context("cannot become unreadable")?;
    Ok(())
}
