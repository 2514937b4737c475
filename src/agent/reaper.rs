//! Collects what has ended: every process of the guest whose parent is gone is a child of this one.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::SyncSender;
use std::sync::mpsc::sync_channel;

use rustix::event::PollFd;
use rustix::event::PollFlags;

use crate::sys::Errno;
use crate::sys::Result;
use crate::sys::process;
use crate::sys::process::Exit;
use crate::sys::signal::Signals;

/// Who is told of which end.
#[derive(Debug, Default)]
pub(super) struct Reaper {
    awaited: Mutex<BTreeMap<i32, SyncSender<Exit>>>,
}

impl Reaper {
    /// Wants to be told how process `pid` ends. It must not have become a child of this process yet.
    pub(super) fn expect(&self, pid: i32) -> Receiver<Exit> {
        let (tell, told) = sync_channel(1);
        let mut awaited = self.awaited.lock().unwrap_or_else(PoisonError::into_inner);
        awaited.insert(pid, tell);
        told
    }

    /// Collects for ever, whenever `signals` bring news of a child.
    pub(super) fn run(&self, signals: &Signals) -> Result<()> {
        loop {
            let mut watched = [PollFd::new(signals, PollFlags::IN)];
            match rustix::event::poll(&mut watched, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
            while signals.next()?.is_some() {}
            while let Some((pid, exit)) = process::collect()? {
                self.tell(pid, exit);
            }
        }
    }

    fn tell(&self, pid: i32, exit: Exit) {
        let mut awaited = self.awaited.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tell) = awaited.remove(&pid) {
            // Who does not listen any more does not want to know.
            tell.try_send(exit).unwrap_or_default();
        }
    }
}
