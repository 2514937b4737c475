//! The birth of a VMM: from the first moment on it is nobody on the host, and ends with the one who made it.
//!
//! It has a user namespace, and in there the process numbers of its own. This process owns that namespace, so that it may
//! end the VMM though they have no user in common and it has no capability itself.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use rustix::fs::Mode;
use rustix::fs::OFlags;

use super::Result;
use crate::backend::BackendError;
use crate::backend::microvm::users;
use crate::backend::microvm::vmm;
use crate::init;
use crate::plan::namespaces;
use crate::sys::clone;
use crate::sys::clone::Birth;
use crate::sys::inherited;
use crate::sys::process;
use crate::sys::socket;

/// What a VMM has for itself; its mounts follow, when it has closed its jail.
const OWN: u64 = namespaces::USER | namespaces::PID | namespaces::IPC | namespaces::UTS;

/// Makes the process, in the cgroup where its devices are counted: what it does before it has threads is its own too. Gives it,
/// and what must be held as long as it shall live.
pub(super) fn bear(
    place: Option<BorrowedFd<'_>>,
    complaint: BorrowedFd<'_>,
    handed: &[BorrowedFd<'_>],
    config: i32,
) -> Result<(OwnedFd, OwnedFd)> {
    let (here, there) =
        socket::pair().map_err(BackendError::kernel("make a channel for the machine"))?;
    let birth = Birth {
        namespaces: OWN,
        cgroup: place,
        leave: &[here.as_fd()],
        ..Birth::default()
    };
    let born = clone::spawn(birth, || become_vmm(complaint, handed, config, &there))
        .map_err(BackendError::kernel("make a process in a user namespace"))?;
    if let Err(error) = users::admit_nobody(&born, here.as_fd()) {
        process::end(born.pidfd.as_fd());
        return Err(error);
    }
    Ok((born.pidfd, here))
}

/// In the new process: its standard error is kept, and it ends with the one who made it.
fn become_vmm(
    complaint: BorrowedFd<'_>,
    handed: &[BorrowedFd<'_>],
    config: i32,
    channel: &OwnedFd,
) -> i32 {
    let prepared = || {
        let nothing = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        rustix::stdio::dup2_stdin(&nothing)?;
        rustix::stdio::dup2_stdout(&nothing)?;
        rustix::stdio::dup2_stderr(complaint)?;
        process::default_signals()?;
        users::enter(channel.as_fd())?;
        // Another user is another life: what was asked for before would be forgotten.
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        // Who has gone before that cannot be heard any more.
        socket::send(channel.as_fd(), b"h")?;
        process::close_on_exec_from(3)?;
        handed.iter().try_for_each(|fd| inherited::hand_on(*fd))
    };
    let prepared: crate::sys::Result<()> = prepared();
    let failed = match prepared {
        Ok(()) => {
            let words = ["bulkhead", vmm::WORD, "--config-fd", &config.to_string()];
            let words = words.map(CString::new);
            let words: Vec<CString> = words.into_iter().flatten().collect();
            process::execute(c"/proc/self/exe", &words, &[])
        }
        Err(errno) => errno,
    };
    let words = format!("cannot become the machine's process: {failed} (may everybody run it?)\n");
    rustix::io::write(rustix::stdio::stderr(), words.as_bytes())
        .map(drop)
        .unwrap_or_default();
    init::FAILED
}
