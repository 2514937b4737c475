//! What the process is and may do: names, limits, scheduling, identity, capabilities.

use std::ffi::CString;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::Mode;

use super::Doing;
use super::report::Message;
use super::report::Reason;
use super::report::Trouble;
use crate::defence::Defence;
use crate::plan::step::Capabilities;
use crate::plan::step::Filter;
use crate::plan::step::Scheduling;
use crate::plan::step::Step;
use crate::plan::step::User;
use crate::sys::Errno;
use crate::sys::Result;
use crate::sys::identity;
use crate::sys::identity::Sets;
use crate::sys::namespace;
use crate::sys::seccomp;
use crate::sys::tuning;

/// `CLONE_NEWIPC`.
const NEW_IPC: u64 = 0x0800_0000;
/// `CLONE_NEWCGROUP`.
const NEW_CGROUP: u64 = 0x0200_0000;

/// Does a step that needs nothing of those before it.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the steps that need earlier ones are done elsewhere"
)]
pub(super) fn apply(step: &Step) -> Result<()> {
    if defended_by(step).is_some_and(Defence::is_out) {
        return Ok(());
    }
    match step {
        Step::BecomeRoot => become_root(),
        Step::IpcNamespace => namespace::leave(NEW_IPC),
        Step::CgroupNamespace => namespace::leave(NEW_CGROUP),
        Step::Keyring(name) => join_keyring(name),
        Step::Loopback => tuning::loopback_up(),
        Step::Hostname(name) => rustix::system::sethostname(name.as_bytes()),
        Step::Domainname(name) => rustix::system::setdomainname(name.as_bytes()),
        Step::Rlimit(limit) => tuning::limit(0, limit.resource, limit.soft, limit.hard),
        Step::Schedule(scheduling) => schedule(scheduling),
        Step::IoPriority { class, level } => tuning::io_priority(*class, *level),
        Step::MemoryPolicy { mode, nodes } => tuning::memory_policy(*mode, nodes),
        Step::Personality(domain) => tuning::personality(*domain),
        Step::Affinity(cpus) => tuning::run_on(cpus),
        Step::Umask(mask) => {
            rustix::process::umask(Mode::from_raw_mode(*mask));
            Ok(())
        }
        Step::Session => rustix::process::setsid().map(drop),
        Step::Bound(mask) => identity::bound(*mask),
        Step::Capabilities(sets) => set_capabilities(*sets),
        Step::NoNewPrivileges => identity::no_new_privileges(),
        _ => Err(Errno::NOSYS),
    }
}

/// The defence that a step is the whole of.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the steps that defend nothing are the many"
)]
fn defended_by(step: &Step) -> Option<Defence> {
    match step {
        Step::Session => Some(Defence::Session),
        Step::Keyring(_) => Some(Defence::Keyring),
        Step::Bound(_) => Some(Defence::Bounding),
        Step::NoNewPrivileges => Some(Defence::NoNewPrivileges),
        _ => None,
    }
}

/// The user who made the namespace has no number in it; its root has.
fn become_root() -> Result<()> {
    identity::become_group(0)?;
    identity::become_user(0)
}

/// A kernel without keys, or a user with too many, does not keep a program from running.
fn join_keyring(name: &str) -> Result<()> {
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    match identity::join_session_keyring(&name) {
        Err(Errno::NOSYS | Errno::DQUOT | Errno::PERM) => Ok(()),
        other => other,
    }
}

fn schedule(wanted: &Scheduling) -> Result<()> {
    tuning::schedule(tuning::Scheduling {
        size: 0,
        policy: wanted.policy,
        flags: wanted.flags,
        nice: wanted.nice,
        priority: wanted.priority,
        runtime: wanted.runtime,
        deadline: wanted.deadline,
        period: wanted.period,
    })
}

/// Sets what was asked for as far as this process holds it: a caller who asks for all gets all there is.
fn set_capabilities(wanted: Capabilities) -> Result<()> {
    let held = identity::capabilities()?.permitted;
    let permitted = wanted.permitted & held;
    let inheritable = match Defence::Inheritable.is_out() {
        true => permitted,
        false => wanted.inheritable & held,
    };
    identity::set_capabilities(Sets {
        effective: wanted.effective & permitted,
        permitted,
        inheritable,
    })?;
    identity::ambient(wanted.ambient & permitted & inheritable)
}

impl Doing {
    /// Takes on user and groups, and keeps what capabilities there are for the step that sets them.
    pub(super) fn become_user(&mut self, user: &User) -> std::result::Result<(), Trouble> {
        for standard in [
            &rustix::stdio::stdin(),
            &rustix::stdio::stdout(),
            &rustix::stdio::stderr(),
        ] {
            give_stream(*standard, user.uid)?;
        }
        identity::keep_capabilities(true)?;
        let groups = user.groups.as_ref();
        if let Some(groups) = groups.filter(|_| !Defence::Groups.is_out()) {
            match identity::set_groups(groups) {
                // A user namespace in which groups cannot be set has none to take away.
                Err(Errno::PERM) if groups.is_empty() => {}
                other => other?,
            }
        }
        identity::become_group(user.gid)?;
        identity::become_user(user.uid)?;
        identity::keep_capabilities(false)?;
        match self.late_directory.take() {
            Some(directory) => go(&directory),
            None => Ok(()),
        }
    }

    /// Loads a filter. Where it has an agent, the other side takes the listener before anything else is called:
    /// from here on only `write(2)`, `read(2)` and what the program itself needs.
    pub(super) fn load_filter(&mut self, filter: &Filter) -> std::result::Result<(), Trouble> {
        if Defence::Seccomp.is_out() {
            return Ok(());
        }
        let instructions = filter.instructions.iter();
        let instructions = instructions.map(|one| (one.code, one.jt, one.jf, one.k));
        let Some(listener) = seccomp::load(instructions, filter.flags)? else {
            return Ok(());
        };
        Message::Listener(listener.as_raw_fd()).send(&self.outfit.channel)?;
        let mut byte = [0u8; 1];
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.outfit.channel, &mut byte))? {
            1 => Ok(()),
            _ => Err(Trouble::because(Reason::Abandoned, Errno::PIPE)),
        }
    }

    /// Enters the working directory. One that only the program's user may enter waits for that user.
    pub(super) fn enter_directory(&mut self, path: &Path) -> std::result::Result<(), Trouble> {
        match go(path) {
            Err(trouble) if matches!(trouble.errno, Errno::ACCESS | Errno::PERM) => {
                self.late_directory = Some(path.to_owned());
                Ok(())
            }
            other => other,
        }
    }
}

/// Gives a standard stream to the program's user, who may want to open it again by its name in `/dev`.
///
/// Only pipes and terminals: a file keeps its owner, and so does `/dev/null`, which is everybody's. What the
/// kernel refuses stays as it is.
fn give_stream(stream: std::os::fd::BorrowedFd<'_>, uid: u32) -> Result<()> {
    use rustix::fs::FileType;
    let Ok(stat) = rustix::fs::fstat(stream) else {
        return Ok(());
    };
    let kind = FileType::from_raw_mode(stat.st_mode);
    let terminal = kind == FileType::CharacterDevice && rustix::termios::isatty(stream);
    let ours = kind == FileType::Fifo || terminal || Defence::StreamOwner.is_out();
    if stat.st_uid == uid || !ours {
        return Ok(());
    }
    match rustix::fs::fchown(stream, Some(rustix::fs::Uid::from_raw(uid)), None) {
        Err(Errno::INVAL | Errno::PERM | Errno::ROFS) => Ok(()),
        other => other,
    }
}

/// Enters a directory through no magic link: a descriptor of a directory outside would otherwise be a way out.
fn go(path: &Path) -> std::result::Result<(), Trouble> {
    use rustix::fs::OFlags;
    // host path: the root itself.
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let directory = crate::sys::path::open_in(&root, path, OFlags::PATH | OFlags::DIRECTORY)?;
    enter(&directory)
}

/// Enters an opened directory, and sees that it lies inside the root: of one that does not, the kernel says
/// `(unreachable)`.
fn enter(directory: &OwnedFd) -> std::result::Result<(), Trouble> {
    rustix::process::fchdir(directory)?;
    let here = rustix::process::getcwd(Vec::new())?;
    if here.to_bytes().starts_with(b"/") || Defence::WorkingDirectory.is_out() {
        Ok(())
    } else {
        Err(Trouble::because(Reason::OutsideRoot, Errno::NOENT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::OFlags;

    /// `CLONE_FS`: a thread with a root and a working directory of its own.
    const OWN_DIRECTORIES: u64 = 0x200;

    #[test]
    fn a_directory_outside_the_root_is_not_entered() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let thread = std::thread::spawn(move || {
            namespace::leave(OWN_DIRECTORIES).unwrap();
            let open = |path: &Path| {
                rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
            };
            let (inside, outside) = (open(root.path()), open(outside.path()));
            rustix::process::chroot(root.path()).unwrap();
            [&inside, &outside].map(|directory| enter(directory).map_err(|trouble| trouble.reason))
        });
        let entered = thread.join().unwrap();
        assert_eq!(entered, [Ok(()), Err(Reason::OutsideRoot)]);
    }
}
