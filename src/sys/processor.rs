//! Which processors two threads of this program run on that are at work at the same time.
//!
//! The kernel puts who is born or woken on a processor that is idle. In a virtual machine it takes an idle one for one that
//! the host has taken away (`available_idle_cpu` and `vcpu_is_preempted`, Linux 4.20 and later), and often leaves the thread
//! behind who bore or woke it, where it waits until that one sleeps. So where half a millisecond counts, one of the two is
//! told to be elsewhere. Nothing depends on it: where there is one processor, or more than a set holds, the kernel decides.
//!
//! What a thread has been told, all whom it bears later have been told too (`sched_setaffinity(2)`), in whatever cpuset they
//! are: so nobody is told who bears a workspace.

use rustix::thread::CpuSet;
use rustix::thread::Pid;
use rustix::thread::sched_getaffinity;
use rustix::thread::sched_getcpu;
use rustix::thread::sched_setaffinity;

use crate::sys::process;

/// Another thread of this process that runs elsewhere than this one, when it is woken.
#[derive(Debug)]
pub struct KeptOff {
    thread: Pid,
    /// Where this one ran when it was told so.
    from: usize,
}

impl KeptOff {
    /// Tells it so.
    #[must_use]
    pub fn new(thread: Pid) -> Self {
        let from = sched_getcpu();
        if let Some((_, others)) = seats() {
            allow(Some(thread), &others);
        }
        Self { thread, from }
    }

    /// Tells it again, if this one has moved since.
    pub fn follow(&mut self) {
        if self.from != sched_getcpu() {
            *self = Self::new(self.thread);
        }
    }
}

/// This thread, which bears nobody any more, goes elsewhere where `child` is on this processor and waits for it.
pub fn make_room_for(child: i32) {
    let Some((all, others)) = seats() else { return };
    let place = process::stat(child).ok().and_then(|stat| stat.processor);
    if place == Some(sched_getcpu()) {
        allow(None, &others);
        allow(None, &all);
    }
}

/// All other threads of this process go on elsewhere than where this one is: those that were just borne need not wait for it.
pub fn send_others_away() {
    let Some((_, others)) = seats() else { return };
    for thread in process::other_threads() {
        allow(Some(thread), &others);
    }
}

/// Where this thread may run, and which of that is elsewhere; nothing where nothing is.
fn seats() -> Option<(CpuSet, CpuSet)> {
    let here = sched_getcpu();
    let all = sched_getaffinity(None).ok()?;
    if here >= CpuSet::MAX_CPU || !all.is_set(here) || all.count() < 2 {
        return None;
    }
    let mut others = all;
    others.unset(here);
    Some((all, others))
}

/// What cannot be had costs some time, and nothing else.
fn allow(thread: Option<Pid>, set: &CpuSet) {
    sched_setaffinity(thread, set).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::sys::clone;

    #[test]
    fn who_makes_room_is_elsewhere_and_may_come_back() {
        let Some((all, others)) = seats() else {
            assert_eq!(sched_getaffinity(None).unwrap().count(), 1);
            return;
        };
        let mut here = all;
        for number in (0..CpuSet::MAX_CPU).filter(|number| others.is_set(*number)) {
            here.unset(number);
        }
        // It stays where it is born, since that is all it may do.
        allow(None, &here);
        let waits = || loop {
            std::thread::park();
        };
        let child = clone::spawn(clone::Birth::default(), waits).unwrap();
        allow(None, &all);
        make_room_for(child.pid);
        assert_eq!(sched_getaffinity(None).unwrap(), all);
        process::signal(child.pidfd.as_fd(), 9).unwrap();
        process::wait(child.pidfd.as_fd()).unwrap();
    }

    #[test]
    fn a_thread_that_is_kept_off_may_run_elsewhere_only() {
        let (word, heard) = std::sync::mpsc::channel();
        let (told, number) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            told.send(rustix::thread::gettid()).unwrap();
            heard.recv().unwrap();
            sched_getaffinity(None).unwrap()
        });
        let number = number.recv().unwrap();
        let before = sched_getaffinity(None).unwrap();
        KeptOff::new(number).follow();
        word.send(()).unwrap();
        let allowed = thread.join().unwrap();
        let fewer = u32::from(before.count() > 1);
        assert_eq!(allowed.count() + fewer, before.count());
        assert_eq!(sched_getaffinity(None).unwrap(), before);
    }
}
