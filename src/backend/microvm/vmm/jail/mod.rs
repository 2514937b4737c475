//! Holds the process of a machine in, once everything that it needs is open: a guest that gets hold of it has the
//! machine's own descriptors, and nothing to use them with on anybody else.
//!
//! In this order: descriptors that were only handed through are closed; a mount namespace of its own has an empty root
//! that cannot be written to; Landlock forbids every path, even there; no capability is left in any set and no new
//! privilege can be had; user and group become those asked for; nobody may look into the process; each thread may make
//! the system calls of its work and no others ([`calls`]).

pub mod calls;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use anyhow::Context;
use landlock::Access;
use landlock::AccessFs;
use landlock::Ruleset;
use landlock::RulesetAttr;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::mount::UnmountFlags;
use seccompiler::BpfProgram;
use seccompiler::SeccompAction;
use seccompiler::SeccompCmpArgLen;
use seccompiler::SeccompCmpOp;
use seccompiler::SeccompCondition;
use seccompiler::SeccompFilter;
use seccompiler::SeccompRule;
use seccompiler::TargetArch;

use crate::backend::microvm::vmm::config::JailConfig;
use crate::backend::microvm::vmm::jail::calls::Argument;
use crate::backend::microvm::vmm::jail::calls::Call;
use crate::sys::Errno;
use crate::sys::Result;
use crate::sys::identity;
use crate::sys::identity::Sets;
use crate::sys::inherited::Inherited;
use crate::sys::mount;
use crate::sys::mount::Configuration;
use crate::sys::namespace;
use crate::sys::process;
use crate::sys::tuning;

/// `CLONE_NEWNS`.
const MOUNT: u64 = 0x0002_0000;
/// `CLONE_NEWUSER`.
const USER: u64 = 0x1000_0000;
/// `MS_PRIVATE`.
const PRIVATE: u64 = 1 << 18;
/// `RLIMIT_CORE` and `RLIMIT_NOFILE`.
const CORE: u32 = 4;
const DESCRIPTORS: u32 = 7;
/// Connections of a guest's sockets are the only descriptors that come and go.
const DESCRIPTORS_MAX: u64 = 4096;

/// Closes the jail around this process, which has one thread; those that it starts are in it too. System calls are
/// left to [`confine`].
///
/// # Errors
///
/// When a wall cannot be put up.
pub(super) fn close(config: &JailConfig, inherited: Inherited) -> anyhow::Result<()> {
    inherited.close();
    tuning::limit(0, CORE, 0, 0).context("jail: core dumps cannot be forbidden")?;
    tuning::limit(0, DESCRIPTORS, DESCRIPTORS_MAX, DESCRIPTORS_MAX)
        .context("jail: descriptors cannot be limited")?;
    empty_root()?;
    identity::no_new_privileges().context("jail: new privileges cannot be forbidden")?;
    forbid_paths()?;
    give_up(config)?;
    process::hide().context("jail: the process cannot be hidden")
}

/// Leaves the mounts of the caller for an empty root. Without the right to, a user namespace gives it; where there may
/// be none of those either, Landlock alone forbids the paths.
fn empty_root() -> anyhow::Result<()> {
    match namespace::leave(MOUNT) {
        Err(Errno::PERM) => {
            if namespace::leave(USER | MOUNT).is_err() {
                return Ok(());
            }
        }
        other => other.context("jail: the mounts of the caller cannot be left")?,
    }
    pivot().context("jail: the root cannot be emptied")
}

fn pivot() -> Result<()> {
    mount::propagate_all(PRIVATE)?;
    let open = |path| rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let empty = Configuration::begin("tmpfs")?;
    for (key, value) in [("size", "4k"), ("nr_inodes", "1"), ("mode", "0")] {
        empty.option(key, Some(value))?;
    }
    let attributes = mount::ATTR_RDONLY | mount::ATTR_NOSUID | mount::ATTR_NODEV;
    let root: OwnedFd = empty.finish(attributes | mount::ATTR_NOEXEC)?;
    let old = open("/")?;
    mount::attach(&root, &old)?;
    rustix::process::fchdir(&root)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::process::fchdir(&old)?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::fchdir(&root)
}

/// Forbids whatever Landlock can forbid of files; a kernel without it forbids less.
fn forbid_paths() -> anyhow::Result<()> {
    Ruleset::default()
        .handle_access(AccessFs::from_all(landlock::ABI::V5))
        .and_then(Ruleset::create)
        .and_then(landlock::RulesetCreated::restrict_self)
        .context("jail: Landlock cannot be used")?;
    Ok(())
}

/// Gives up groups, user and every capability.
fn give_up(config: &JailConfig) -> anyhow::Result<()> {
    let capable = identity::bound(0).is_ok();
    if capable {
        // In a user namespace of one's own making the groups may be locked; they are the caller's then.
        identity::set_groups(&[]).unwrap_or_default();
    }
    identity::ambient(0).context("jail: ambient capabilities cannot be lowered")?;
    if let Some(gid) = config.gid {
        identity::become_group(gid).with_context(|| format!("jail.gid: {gid} cannot be had"))?;
    }
    if let Some(uid) = config.uid {
        identity::become_user(uid).with_context(|| format!("jail.uid: {uid} cannot be had"))?;
    }
    identity::set_capabilities(Sets::default()).context("jail: capabilities cannot be lowered")
}

/// Leaves the calling thread these system calls, for good. Whatever else it does ends the process: it is not ours any
/// more then.
///
/// # Errors
///
/// When the filter cannot be made or loaded.
pub(super) fn confine(calls: &[Call]) -> io::Result<()> {
    let program = program(calls).map_err(io::Error::other)?;
    seccompiler::apply_filter(&program).map_err(io::Error::other)
}

fn program(calls: &[Call]) -> std::result::Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for (number, argument) in calls {
        let rules = rules.entry(*number).or_default();
        rules.extend(argument.map(rule).transpose()?);
    }
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        TargetArch::x86_64,
    )?;
    BpfProgram::try_from(filter)
}

/// The call is allowed when this argument is so.
fn rule(argument: Argument) -> std::result::Result<SeccompRule, seccompiler::BackendError> {
    let (index, mask, value) = argument;
    let is = SeccompCmpOp::MaskedEq(mask);
    let condition = SeccompCondition::new(index, SeccompCmpArgLen::Dword, is, value)?;
    SeccompRule::new(vec![condition])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_list_of_calls_makes_a_filter() {
        for calls in [calls::VCPU, calls::VMM] {
            assert!(!program(calls).unwrap().is_empty());
        }
    }
}
