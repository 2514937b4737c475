//! Writes to the kernel through `proc`: parameters, labels, the order of death.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::OFlags;

use super::Doing;
use super::report::Trouble;
use crate::plan::step::Label;
use crate::sys::Errno;
use crate::sys::mount::Configuration;
use crate::sys::path;

type Done = std::result::Result<(), Trouble>;

impl Doing {
    /// Sets a kernel parameter of one of the namespaces.
    pub(super) fn set_sysctl(&mut self, key: &str, value: &str) -> Done {
        let file = Path::new("sys").join(key);
        self.write_to_proc(&file, value.as_bytes())
    }

    /// Asks for a label that takes effect at the next `execve(2)`.
    pub(super) fn ask_for_label(&mut self, label: &Label) -> Done {
        match label {
            Label::Selinux(context) => {
                self.write_to_proc(Path::new("thread-self/attr/exec"), context.as_bytes())
            }
            Label::AppArmor(profile) => {
                let wish = format!("exec {profile}");
                let own = Path::new("thread-self/attr/apparmor/exec");
                match self.write_to_proc(own, wish.as_bytes()) {
                    Err(trouble) if trouble.errno == Errno::NOENT => {
                        let shared = Path::new("thread-self/attr/exec");
                        self.write_to_proc(shared, wish.as_bytes())
                    }
                    other => other,
                }
            }
        }
    }

    /// Writes to a file of a `proc` that is known to be one: by descriptor, on one mount, through no
    /// link that somebody inside could have put there.
    fn write_to_proc(&mut self, file: &Path, text: &[u8]) -> Done {
        let proc = self.trusted_proc()?;
        let opened = path::open_on_one_mount(proc, file, OFlags::WRONLY)?;
        rustix::io::retry_on_intr(|| rustix::io::write(&opened, text))?;
        Ok(())
    }

    /// The `proc` that these steps have mounted, or one that is mounted nowhere.
    fn trusted_proc(&mut self) -> std::result::Result<&OwnedFd, Trouble> {
        if self.proc.is_none() {
            self.proc = Some(Configuration::begin("proc")?.finish(0)?);
        }
        self.proc.as_ref().ok_or(Errno::INVAL.into())
    }
}

/// Sets how eagerly the kernel ends this process; the host's `proc` is still in its place.
pub(super) fn set_oom_score(score: i32) -> Done {
    // host path: this process, in the host's proc, before the root is entered.
    std::fs::write("/proc/self/oom_score_adj", score.to_string()).map_err(|error| {
        Trouble::from(Errno::from_raw_os_error(
            error.raw_os_error().unwrap_or(libc::EIO),
        ))
    })
}
