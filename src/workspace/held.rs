//! Namespaces of a workspace that whoever stays with it holds beyond its first process: so their end, which waits for
//! the kernel, does not stand before everything else that is to be done then.

use std::os::fd::OwnedFd;
use std::thread::JoinHandle;

use rustix::fs::Mode;
use rustix::fs::OFlags;

use crate::workspace::found::Workspace;
use crate::workspace::wiring;

/// What is held; dropping it ends what nobody else holds, and waits for that.
#[derive(Debug, Default)]
pub struct Held {
    /// Where it is on a bridge. What went through its link can be looked at for as long as this is there, and whoever
    /// removes the link need not wait for the kernel, which would be about to do the same.
    _network: Option<OwnedFd>,
    mounts: Option<OwnedFd>,
    unmounting: Option<JoinHandle<()>>,
}

impl Workspace {
    /// Holds the namespaces of a workspace that runs; nothing of one that has ended.
    #[must_use]
    pub fn hold(&self) -> Held {
        let wired = wiring::is_wired(&self.record);
        let network = wired.then(|| self.namespace("net")).flatten();
        let held = Held {
            _network: network,
            mounts: self.namespace("mnt"),
            unmounting: None,
        };
        let init = self.record.init.as_ref();
        // Else the number is somebody else's.
        let is_its_own = init.is_some_and(|init| init.lives().unwrap_or(false));
        if is_its_own { held } else { Held::default() }
    }

    fn namespace(&self, kind: &str) -> Option<OwnedFd> {
        let init = self.record.init.as_ref()?;
        let path = format!("/proc/{}/ns/{kind}", init.pid);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty()).ok()
    }
}

impl Held {
    /// Lets go of the mounts, which ends them: when the disk has what was written there.
    pub fn unmount(&mut self) {
        drop(self.mounts.take());
    }

    /// As [`Held::unmount`], while something else is done. That must not be the end of an interface: both wait for whoever
    /// may still look, and hinder each other.
    pub fn begin_to_unmount(&mut self) {
        let mounts = self.mounts.take();
        self.unmounting = mounts.and_then(|mounts| {
            // Where there is no room for a thread they end here, with what it was to do.
            std::thread::Builder::new().spawn(move || drop(mounts)).ok()
        });
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(thread) = self.unmounting.take() {
            // It has nothing to say.
            thread.join().unwrap_or_default();
        }
    }
}
