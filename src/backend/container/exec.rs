//! Brings one more program into a workspace that runs.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use rustix::fs::Mode;
use rustix::fs::OFlags;

use super::outside;
use super::second;
use crate::backend::Attendant;
use crate::backend::BackendError;
use crate::backend::Made;
use crate::backend::Supplies;
use crate::backend::Target;
use crate::backend::dialogue;
use crate::backend::dialogue::BEFORE_STEPS;
use crate::backend::dialogue::Dialogue;
use crate::backend::dialogue::Turn;
use crate::init;
use crate::init::Outfit;
use crate::init::report::Message;
use crate::init::report::Trouble;
use crate::plan::ProcessPlan;
use crate::plan::namespaces;
use crate::plan::step::Barrier;
use crate::sys::Errno;
use crate::sys::clone;
use crate::sys::clone::Birth;
use crate::sys::clone::Spawned;
use crate::sys::namespace;
use crate::sys::process;
use crate::sys::seal;
use crate::sys::tuning;

/// Runs a program in a workspace; returns when it runs.
pub(super) fn exec(
    target: &Target<'_>,
    plan: &ProcessPlan,
    supplies: Supplies<'_>,
    attendant: &mut dyn Attendant,
) -> Result<Made, BackendError> {
    let (here, there) = rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::SEQPACKET,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .map_err(BackendError::kernel("make a channel to the process"))?;
    let root = shared_root(target)?;
    if !plan.initial_cpus.is_empty() {
        tuning::run_on(&plan.initial_cpus).map_err(BackendError::kernel(
            "run on process.execCPUAffinity.initial",
        ))?;
    }
    let birthplace = supplies.birthplace;
    let outfit = Outfit {
        channel: there,
        network: None,
        listener: None,
        console: supplies.console,
        mounts: std::collections::BTreeMap::new(),
        layers: None,
        timed: supplies.timed,
    };
    let guest = Guest {
        target,
        plan,
        root,
        outfit,
    };
    let born = guest.born(birthplace, here.as_fd())?;
    // The child is at work, and we would only wait.
    seal::settle();
    let made = attend(plan, &here, &born, attendant);
    if let Err(error) = made {
        process::end(born.pidfd.as_fd());
        return Err(error);
    }
    Made::of(born, here)
}

fn attend(
    plan: &ProcessPlan,
    channel: &OwnedFd,
    born: &Spawned,
    attendant: &mut dyn Attendant,
) -> Result<(), BackendError> {
    let dialogue = Dialogue {
        steps: &plan.steps,
        channel: channel.as_fd(),
        process: born.pidfd.as_fd(),
        pid: born.pid,
    };
    loop {
        match dialogue.next(attendant)? {
            Turn::Gone => return Ok(()),
            Turn::At(Barrier::Outside) => {
                outside::apply(born.pid, &plan.outside)?;
                attendant.place(born.pid).map_err(BackendError::Attendant)?;
                dialogue::release(channel.as_fd())?;
            }
            Turn::At(_) => return Err(BackendError::OutOfTurn),
        }
    }
}

/// The root of a workspace that shares the host's mounts: it has a root directory of its own only.
fn shared_root(target: &Target<'_>) -> Result<Option<OwnedFd>, BackendError> {
    if target.namespaces & namespaces::MOUNT != 0 {
        return Ok(None);
    }
    let path = format!("/proc/{}/root", target.pid);
    // host path: the root of a process, in the host's proc.
    rustix::fs::open(
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map(Some)
    .map_err(BackendError::kernel("open the root of the workspace"))
}

/// What the child has of the parent's.
struct Guest<'a> {
    target: &'a Target<'a>,
    plan: &'a ProcessPlan,
    root: Option<OwnedFd>,
    outfit: Outfit,
}

impl Guest<'_> {
    /// Makes the process. With privileges this process sets the pid namespace of its children and makes one
    /// child; without, only a first child that has entered the user namespace has the right to.
    fn born(
        self,
        birthplace: Option<BorrowedFd<'_>>,
        channel: BorrowedFd<'_>,
    ) -> Result<Spawned, BackendError> {
        let Target {
            process,
            namespaces,
            rootless,
            ..
        } = *self.target;
        if rootless {
            return self.second_generation(birthplace, channel);
        }
        if namespaces & namespaces::PID != 0 {
            namespace::enter(process, namespaces::PID).map_err(BackendError::kernel(
                "join the pid namespace of the workspace",
            ))?;
        }
        let birth = Birth {
            cgroup: birthplace,
            leave: &[channel],
            ..Birth::default()
        };
        clone::spawn(birth, || self.run(namespaces & !namespaces::PID))
            .map_err(BackendError::kernel("make the process"))
    }

    fn second_generation(
        self,
        birthplace: Option<BorrowedFd<'_>>,
        channel: BorrowedFd<'_>,
    ) -> Result<Spawned, BackendError> {
        let birth = Birth {
            cgroup: birthplace,
            leave: &[channel],
            ..Birth::default()
        };
        let first = clone::spawn(birth, || self.run_first())
            .map_err(BackendError::kernel("make the process"))?;
        let heard = Message::receive(channel)
            .map_err(BackendError::kernel("hear from the first process"))?;
        process::wait(first.pidfd.as_fd())
            .map_err(BackendError::kernel("wait for the first process"))?;
        match heard {
            Some(Message::Born(pid)) => {
                let pidfd =
                    process::open(pid).map_err(BackendError::kernel("open the second process"))?;
                Ok(Spawned { pid, pidfd })
            }
            Some(Message::Failed { index, trouble }) => {
                let error = crate::backend::StepError {
                    index,
                    total: 0,
                    step: None,
                    trouble,
                };
                Err(error.into())
            }
            _ => Err(BackendError::OutOfTurn),
        }
    }

    fn run_first(self) -> i32 {
        let Ok(channel) = self.outfit.channel.try_clone() else {
            return init::FAILED;
        };
        let Target {
            process,
            namespaces,
            ..
        } = *self.target;
        let said = match namespace::enter(process, namespaces) {
            Err(errno) => failed(errno.into()),
            Ok(()) => match second::announce(0, None, &channel, || self.run(0)) {
                Ok(()) => return 0,
                Err(errno) => failed(errno.into()),
            },
        };
        said.send(&channel).unwrap_or_default();
        0
    }

    /// The life of the process: it hides, goes in, and does its steps.
    fn run(self, kinds: u64) -> i32 {
        match self.go_in(kinds) {
            Ok(()) => init::run(&self.plan.steps, self.outfit),
            Err(errno) => {
                failed(errno.into())
                    .send(&self.outfit.channel)
                    .unwrap_or_default();
                init::FAILED
            }
        }
    }

    fn go_in(&self, kinds: u64) -> Result<(), Errno> {
        process::hide()?;
        if kinds != 0 {
            namespace::enter(self.target.process, kinds)?;
        }
        if let Some(root) = &self.root {
            rustix::process::fchdir(root)?;
            // host path: the directory that was just entered by its descriptor.
            rustix::process::chroot(".")?;
        }
        Ok(())
    }
}

fn failed(mut trouble: Trouble) -> Message {
    "join the namespaces of the workspace".clone_into(&mut trouble.detail);
    Message::Failed {
        index: BEFORE_STEPS,
        trouble,
    }
}
