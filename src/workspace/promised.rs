//! A network namespace that another process makes for a workspace meanwhile.
//!
//! The kernel takes half a millisecond for it, longer than for all else that is new. Whoever has started a monitor only waits
//! from there on, and makes it while the monitor makes what comes before the first process. Nothing depends on that: a
//! monitor that is given none in time makes it itself.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;

use crate::plan::namespaces;
use crate::spec::asked::Asked;
use crate::sys::Errno;
use crate::sys::namespace;
use crate::sys::processor;
use crate::sys::socket;
use crate::workspace::blueprint::Wish;
use crate::workspace::blueprint::Written;
use crate::workspace::wall;
use crate::workspace::wiring;

/// How long it is waited for: some times as long as it takes on a machine that is busy.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};

/// The end of who makes it; dropping this says that there will be none.
#[derive(Debug)]
pub struct Promise(OwnedFd);

/// The end of who makes the workspace.
#[derive(Debug)]
pub struct Promised(OwnedFd);

/// Makes both ends.
///
/// # Errors
///
/// Fails as `socketpair(2)` does.
pub fn pair() -> Result<(Promise, Promised), Errno> {
    let (near, far) = socket::pair()?;
    Ok((Promise(near), Promised(far)))
}

impl Promise {
    /// Makes the namespace, where the workspace has a use for it; `beside` that child, by a process that bears nobody after
    /// it.
    pub fn keep(self, wish: &Wish, written: &Written, beside: Option<i32>) {
        if !is_of_use(wish, written) {
            return;
        }
        if let Some(child) = beside {
            processor::make_room_for(child);
        }
        if let Ok(network) = namespace::make_network() {
            // Who was to have it may have ended.
            socket::send_with(self.0.as_fd(), b"n", &[network.as_fd()]).unwrap_or_default();
        }
    }
}

/// Whether a link leads into the network namespace of a container, which its maker may make.
fn is_of_use(wish: &Wish, written: &Written) -> bool {
    let spec = &written.spec;
    let Ok(asked) = Asked::of(&spec.annotations) else {
        return false;
    };
    let own_users = namespaces::of(spec).has(namespaces::USER);
    wiring::asked_for(&asked).is_some()
        && !own_users
        && !wall::is_machine(wall::chosen(wish.isolation, &asked, spec))
}

impl Promised {
    /// Another handle on it, for a process that was just made.
    ///
    /// # Errors
    ///
    /// Fails as `fcntl(2)` does.
    pub fn try_clone(&self) -> Result<Self, Errno> {
        let copy = rustix::io::fcntl_dupfd_cloexec(&self.0, 0)?;
        Ok(Self(copy))
    }

    /// The namespace; nothing where there is none in time.
    #[must_use]
    pub(super) fn take(self) -> Option<OwnedFd> {
        let mut heard = [PollFd::new(&self.0, PollFlags::IN)];
        let ready = rustix::io::retry_on_intr(|| rustix::event::poll(&mut heard, Some(&PATIENCE)));
        if ready != Ok(1) {
            return None;
        }
        let (_, given) = socket::receive_with(self.0.as_fd(), &mut [0; 1]).ok()?;
        given.into_iter().next()
    }
}

impl AsFd for Promised {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::cgroup::Manager;
    use crate::spec::Spec;

    fn wish() -> Wish {
        Wish::plain("one".parse().unwrap(), "/bundle".into(), Manager::Disabled)
    }

    /// What comes of a promise for a bundle on the network `lan`.
    fn given(wish: &Wish, mut spec: Spec) -> Option<OwnedFd> {
        let network = ("dev.bulkhead.network".to_owned(), "lan".to_owned());
        spec.annotations.extend([network]);
        let (promise, promised) = pair().unwrap();
        promise.keep(wish, &Written::of(spec).unwrap(), None);
        promised.take()
    }

    #[test]
    fn a_container_with_a_link_is_given_a_network_namespace() {
        let network = given(&wish(), Spec::starter()).unwrap();
        assert_eq!(
            namespace::kind(network.as_fd()).unwrap(),
            namespace::NETWORK
        );
        let id = |fd| rustix::fs::fstat(fd).unwrap().st_ino;
        assert_ne!(id(network), id(namespace::network().unwrap()));
    }

    #[test]
    fn who_has_no_use_for_one_is_given_none_at_once() {
        let behind_a_machine = Wish {
            isolation: Some(crate::spec::asked::Isolation::MicroVm),
            ..wish()
        };
        assert!(given(&behind_a_machine, Spec::starter()).is_none());
        assert!(given(&wish(), Spec::starter_rootless(1000, 1000)).is_none());
    }

    #[test]
    fn one_that_does_not_come_is_not_waited_for() {
        let (promise, promised) = pair().unwrap();
        let begun = std::time::Instant::now();
        assert!(promised.take().is_none());
        assert!(begun.elapsed() >= std::time::Duration::from_millis(20));
        drop(promise);
    }
}
