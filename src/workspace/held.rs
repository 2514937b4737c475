//! What whoever stays with a workspace has of it when its first process has ended. Its namespaces are held beyond that: so
//! their end, which waits for the kernel, does not stand before everything else that is to be done then.

use std::os::fd::OwnedFd;
use std::thread::JoinHandle;

use rustix::fs::Mode;
use rustix::fs::OFlags;

use crate::spec::id::ContainerId;
use crate::sys::process::Exit;
use crate::sys::vanish::Parting;
use crate::sys::vanish::Remains;
use crate::workspace::found::Workspace;
use crate::workspace::store::Home;
use crate::workspace::wiring;

/// What is held; dropping it ends what nobody else holds, and waits for that.
#[derive(Debug, Default)]
pub struct Held {
    /// Where it is on a bridge. What went through its link can be looked at for as long as this is there, and whoever
    /// removes the link need not wait for the kernel, which would be about to do the same.
    network: Option<OwnedFd>,
    mounts: Option<OwnedFd>,
    unmounting: Option<JoinHandle<()>>,
    parting: Option<Parting>,
}

impl Workspace {
    /// Holds the namespaces of a workspace that runs; nothing of one that has ended.
    #[must_use]
    pub fn hold(&self) -> Held {
        let wired = wiring::is_wired(&self.record);
        let network = wired.then(|| self.namespace("net")).flatten();
        let held = Held {
            network,
            mounts: self.namespace("mnt"),
            unmounting: None,
            parting: None,
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
    /// Prepares for the end of a workspace that is waited for: its link takes longest, and most of that to begin with.
    pub fn prepare(&mut self, workspace: &Workspace) {
        if self.network.is_some() {
            self.parting = self.part_later(&workspace.home, &workspace.record.id);
        }
    }

    /// Begins to part with a link: the mounts end, and then it may go. One after the other, because both wait for whoever
    /// may still look, and hinder each other; in a thread, because there is something else to do. Nothing where there is no
    /// link.
    pub(super) fn begin_to_part(&mut self, home: &Home, id: &ContainerId) -> Option<Parting> {
        let prepared = self.parting.take();
        let mut parting = prepared.or_else(|| self.part_later(home, id))?;
        parting.begin();
        Some(parting)
    }

    fn part_later(&mut self, home: &Home, id: &ContainerId) -> Option<Parting> {
        let mounts = self.mounts.take();
        wiring::prepare_to_detach(home, id, move || drop(mounts))
    }

    /// Lets go of the mounts, which ends them when the disk has what was written there, while something else is done.
    pub fn begin_to_unmount(&mut self) {
        let mounts = self.mounts.take();
        self.unmounting = mounts.and_then(|mounts| {
            // Where there is no room for a thread they end here, with what it was to do.
            std::thread::Builder::new().spawn(move || drop(mounts)).ok()
        });
    }

    /// Waits until the mounts have ended.
    pub fn await_mounts(&mut self) {
        if let Some(thread) = self.unmounting.take() {
            // It has nothing to say.
            thread.join().unwrap_or_default();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.await_mounts();
    }
}

/// The end of a workspace, as whoever sees it to that has it.
#[derive(Debug, Default)]
pub struct Farewell {
    /// How its program ended, where that is known and not written down.
    pub exit: Option<Exit>,
    /// Its namespaces.
    pub held: Held,
    /// What the kernel still takes apart.
    pub remains: Remains,
}
