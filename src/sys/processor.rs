//! Which processors two threads of this program run on that are at work at the same time.
//!
//! The kernel puts who is born or woken on a processor that is idle. In a virtual machine it takes an idle one for one that
//! the host has taken away (`available_idle_cpu` and `vcpu_is_preempted`, Linux 4.20 and later), and often leaves the thread
//! behind who bore or woke it, where it waits until that one sleeps. So where half a millisecond counts, who is about to be
//! at work besides is told to be elsewhere. Nothing depends on it: where there is one processor, or more than a set holds,
//! the kernel decides.

use rustix::thread::CpuSet;
use rustix::thread::Pid;
use rustix::thread::sched_getaffinity;
use rustix::thread::sched_getcpu;
use rustix::thread::sched_setaffinity;

/// The processor that a thread is on, and the others that it may run on; nothing where there are no others.
#[derive(Debug, Clone, Copy)]
pub struct Seat(Option<Sets>);

#[derive(Debug, Clone, Copy)]
struct Sets {
    all: CpuSet,
    here: CpuSet,
    others: CpuSet,
}

impl Seat {
    /// Where this thread is now.
    #[must_use]
    pub fn find() -> Self {
        let number = sched_getcpu();
        let all = sched_getaffinity(None).ok();
        let all = all.filter(|all| number < CpuSet::MAX_CPU && all.is_set(number));
        Self(all.filter(|all| all.count() > 1).map(|all| {
            let (mut here, mut others) = (CpuSet::new(), all);
            here.set(number);
            others.unset(number);
            Sets { all, here, others }
        }))
    }

    /// This thread stays here, and so does whom it bears, until each may [`leave`](Self::leave) or [`rise`](Self::rise).
    pub fn hold(&self) {
        self.allow(None, |sets| &sets.here);
    }

    /// This thread may run wherever it might before.
    pub fn rise(&self) {
        self.allow(None, |sets| &sets.all);
    }

    /// This thread goes elsewhere; it may come back when the kernel wants it to.
    pub fn leave(&self) {
        self.allow(None, |sets| &sets.others);
        self.rise();
    }

    /// Another thread of this process runs elsewhere when it is woken.
    pub fn keep_off(&self, thread: Pid) {
        self.allow(Some(thread), |sets| &sets.others);
    }

    fn allow(&self, thread: Option<Pid>, of: impl FnOnce(&Sets) -> &CpuSet) {
        if let Self(Some(sets)) = self {
            // What cannot be had costs some time, and nothing else.
            sched_setaffinity(thread, of(sets)).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leaves_is_elsewhere_and_may_come_back() {
        let seat = Seat::find();
        let Seat(Some(sets)) = seat else {
            assert_eq!(sched_getaffinity(None).unwrap().count(), 1);
            return;
        };
        seat.hold();
        assert!(sets.here.is_set(sched_getcpu()));
        assert_eq!(sched_getaffinity(None).unwrap(), sets.here);
        seat.leave();
        assert_eq!(sched_getaffinity(None).unwrap(), sets.all);
    }

    #[test]
    fn a_thread_that_is_kept_off_runs_elsewhere() {
        let (word, heard) = std::sync::mpsc::channel();
        let (told, number) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            told.send(rustix::thread::gettid()).unwrap();
            heard.recv().unwrap();
            sched_getaffinity(None).unwrap()
        });
        let thread_id = number.recv().unwrap();
        let seat = Seat::find();
        seat.keep_off(thread_id);
        word.send(()).unwrap();
        let allowed = thread.join().unwrap();
        let Seat(Some(sets)) = seat else { return };
        assert_eq!(allowed, sets.others);
    }
}
