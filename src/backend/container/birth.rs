//! Brings the first process of a workspace into being, in one generation or in two.
//!
//! One `clone3(2)` makes the process in its cgroup and with its namespaces. Only where a user, pid or time
//! namespace is joined (or made with offsets) a first process enters it and makes the second, which is born as
//! its sibling: so the runtime is the parent of the one that lives.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use rustix::fs::Mode;
use rustix::fs::OFlags;

use super::outside;
use super::second;
use crate::backend::Attendant;
use crate::backend::BackendError;
use crate::backend::Handle;
use crate::backend::Made;
use crate::backend::Supplies;
use crate::backend::dialogue;
use crate::backend::dialogue::BEFORE_STEPS;
use crate::backend::dialogue::Dialogue;
use crate::backend::dialogue::Turn;
use crate::backend::join;
use crate::backend::lift;
use crate::backend::mapping;
use crate::init;
use crate::init::Outfit;
use crate::init::report::Message;
use crate::init::report::Reason;
use crate::init::report::Trouble;
use crate::plan::Plan;
use crate::plan::namespaces;
use crate::plan::namespaces::Namespaces;
use crate::plan::namespaces::NetworkMaker;
use crate::plan::step::Barrier;
use crate::sys::Errno;
use crate::sys::clone;
use crate::sys::clone::Birth;
use crate::sys::clone::Spawned;
use crate::sys::namespace;
use crate::sys::process;
use crate::sys::seal;
use crate::sys::socket;
use crate::sys::tuning;

/// A namespace to join, opened while its path still meant what the caller meant.
pub(super) struct Open {
    kind: u64,
    words: String,
    file: OwnedFd,
}

/// Builds a workspace's first process, up to the point where it waits for its start.
pub(super) fn create(
    plan: &Plan,
    supplies: Supplies<'_>,
    attendant: &mut dyn Attendant,
) -> Result<Made, BackendError> {
    let joins = open_joins(&plan.namespaces)?;
    let (here, there) = channel()?;
    let (giver, taker) = network_channel(&plan.namespaces)?;
    let birthplace = supplies.birthplace;
    let own = std::iter::once(here.as_fd()).chain(giver.as_ref().map(OwnedFd::as_fd));
    let leave: Vec<_> = own.chain(supplies.lock).collect();
    let outfit = Outfit {
        channel: there,
        listener: supplies.listener,
        console: supplies.console,
        network: taker,
        mounts: lift::mounts(plan)?,
        layers: lift::layers(plan)?,
        timed: supplies.timed,
    };
    let child = Child {
        plan,
        joins,
        outfit,
    };
    let mut child = Some(child);
    let Spawned { pid, pidfd } = bear(plan, &mut child, birthplace, &leave)?;
    let dialogue = Dialogue {
        steps: &plan.steps,
        channel: here.as_fd(),
        process: pidfd.as_fd(),
        pid,
    };
    let network = giver.map(|giver| give_network(supplies.network, plan, &giver));
    // The process waits for its network soon, and for nothing that is let go of here.
    drop(child);
    let attended = network.transpose().and_then(|network| {
        let handle = attend(plan, &dialogue, network.as_ref(), attendant)?;
        Ok((handle, network))
    });
    match attended {
        Ok((handle, network)) => Ok(Made {
            handle,
            process: pidfd,
            channel: here,
            network,
        }),
        Err(error) => {
            process::end(pidfd.as_fd());
            Err(error)
        }
    }
}

/// Makes the process. What it takes with it is let go of here where another takes it along first; else the caller does.
fn bear(
    plan: &Plan,
    child: &mut Option<Child<'_>>,
    birthplace: Option<BorrowedFd<'_>>,
    leave: &[BorrowedFd<'_>],
) -> Result<Spawned, BackendError> {
    if let Some(child) = child.take_if(|_| plan.namespaces.two_generations()) {
        return two_generations(child, birthplace, leave);
    }
    let birth = Birth {
        namespaces: at_birth(&plan.namespaces),
        cgroup: birthplace,
        seals: true,
        leave,
        ..Birth::default()
    };
    clone::spawn(birth, || child.take().map_or(init::FAILED, Child::run))
        .map_err(BackendError::kernel("make the process"))
}

/// Attends to the process until it waits for its start; one that has failed by itself is why nobody could.
fn attend(
    plan: &Plan,
    dialogue: &Dialogue<'_>,
    network: Option<&OwnedFd>,
    attendant: &mut dyn Attendant,
) -> Result<Handle, BackendError> {
    let handle = Handle::of(dialogue.pid, dialogue.process)?;
    attendant
        .born(handle, network.map(AsFd::as_fd))
        .map_err(|error| dialogue.reason(BackendError::Attendant(error)))?;
    build(plan, dialogue, attendant).map(|()| handle)
}

/// Answers the process until it waits for its start.
fn build(
    plan: &Plan,
    dialogue: &Dialogue<'_>,
    attendant: &mut dyn Attendant,
) -> Result<(), BackendError> {
    let (pid, channel) = (dialogue.pid, dialogue.channel);
    loop {
        match dialogue.next(attendant)? {
            Turn::At(Barrier::Outside) => {
                if let Some(wanted) = &plan.namespaces.mapping
                    && !maps_early(&plan.namespaces)
                {
                    mapping::write(pid, wanted)?;
                }
                outside::apply(pid, &plan.outside)?;
                attendant.place(pid).map_err(BackendError::Attendant)?;
                dialogue::release(channel)?;
            }
            Turn::At(Barrier::RuntimeHooks) => {
                attendant.hooks(pid).map_err(BackendError::Attendant)?;
                dialogue::release(channel)?;
            }
            Turn::At(Barrier::Start) => return Ok(()),
            Turn::Gone => {
                let exit = process::wait(dialogue.process)
                    .map_err(BackendError::kernel("wait for the process"))?;
                return Err(BackendError::Died(exit));
            }
        }
    }
}

/// The ends of the one who gives the process its network namespace, and of the process.
fn network_channel(
    wanted: &Namespaces,
) -> Result<(Option<OwnedFd>, Option<OwnedFd>), BackendError> {
    Ok(match wanted.network_by {
        NetworkMaker::Outside => Some(channel()?),
        NetworkMaker::Birth => None,
    }
    .unzip())
}

/// Gives the process the network namespace that was `made` for it, or one that is made now.
fn give_network(made: Option<OwnedFd>, plan: &Plan, to: &OwnedFd) -> Result<OwnedFd, BackendError> {
    let wanted = plan.namespaces.loopback;
    let made = match made {
        Some(network) => Ok((network, None)),
        None => namespace::make_network_with(|| wanted.then(tuning::interfaces)),
    };
    let (network, interfaces) = made.map_err(BackendError::kernel("make a network namespace"))?;
    match socket::send_with(to.as_fd(), b"n", &[network.as_fd()]) {
        // It has ended; the next thing heard from it says so better.
        Ok(()) | Err(Errno::PIPE | Errno::CONNRESET) => {}
        Err(errno) => {
            let failed = BackendError::kernel("give the process its network namespace");
            return Err(failed(errno));
        }
    }
    // It has what it waits for, and goes on beside this.
    if let Some(interfaces) = interfaces {
        let up = interfaces.and_then(|interfaces| tuning::loopback_up_by(&interfaces));
        up.map_err(BackendError::kernel("bring up lo"))?;
    }
    Ok(network)
}

/// The namespaces that `clone3(2)` makes; the cgroup namespace is made later by the process itself, because it
/// would begin at the cgroup of the caller; so may the ipc namespace, whose filesystem would belong to the caller, and that
/// of the network, which takes longer than all others together.
fn at_birth(wanted: &Namespaces) -> u64 {
    let mut later = namespaces::CGROUP | namespaces::TIME;
    if wanted.ipc_later() {
        later |= namespaces::IPC;
    }
    if wanted.network_by != NetworkMaker::Birth {
        later |= namespaces::NETWORK;
    }
    wanted.new & !later
}

/// Whether the user namespace is the first generation's already: it then makes the time namespace inside.
fn maps_early(wanted: &Namespaces) -> bool {
    wanted.new & namespaces::USER != 0 && wanted.two_generations() && wanted.join.is_empty()
}

fn channel() -> Result<(OwnedFd, OwnedFd), BackendError> {
    rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::SEQPACKET,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .map_err(BackendError::kernel("make a channel to the process"))
}

fn open_joins(wanted: &Namespaces) -> Result<Vec<Open>, BackendError> {
    wanted
        .join
        .iter()
        .map(|join| {
            Ok(Open {
                kind: join.kind,
                words: format!("join {} namespace {}", join.name, join.path.display()),
                file: join::open(join)?,
            })
        })
        .collect()
}

/// What the child has of the parent's.
struct Child<'a> {
    plan: &'a Plan,
    joins: Vec<Open>,
    outfit: Outfit,
}

impl Child<'_> {
    /// The life of the process that stays.
    fn run(self) -> i32 {
        let joined = match self.plan.namespaces.two_generations() {
            true => Ok(()),
            false => run_sealed().and_then(|()| self.join()),
        };
        let hidden = joined.and_then(|()| self.hide());
        match hidden {
            Ok(()) => init::run(&self.plan.steps, self.outfit),
            Err(trouble) => self.fail(trouble),
        }
    }

    /// From here on others must not look into this process. Who maps its user namespace must: then it is
    /// hidden when that is done.
    fn hide(&self) -> Result<(), Trouble> {
        if self.plan.namespaces.mapping.is_none() {
            Ok(process::hide()?)
        } else {
            Ok(())
        }
    }

    fn join(&self) -> Result<(), Trouble> {
        for open in &self.joins {
            namespace::enter(open.file.as_fd(), open.kind).map_err(|errno| Trouble {
                errno,
                reason: Reason::Plain,
                detail: open.words.clone(),
            })?;
        }
        Ok(())
    }

    fn fail(&self, trouble: Trouble) -> i32 {
        let message = Message::Failed {
            index: BEFORE_STEPS,
            trouble,
        };
        message.send(&self.outfit.channel).unwrap_or_default();
        init::FAILED
    }

    /// The life of the process that only makes the one that stays.
    fn run_first(self) -> i32 {
        match self.make_second() {
            Ok(()) => 0,
            Err(trouble) => init_failed(&trouble.0, trouble.1),
        }
    }

    fn make_second(self) -> Result<(), (OwnedFd, Trouble)> {
        let channel = self.outfit.channel.try_clone();
        let prepared = self.prepare();
        let channel = channel.map_err(|_| Errno::MFILE);
        let Ok(channel) = channel else { return Ok(()) };
        if let Err(trouble) = prepared {
            return Err((channel, trouble));
        }
        let mut kinds = at_birth(&self.plan.namespaces);
        if maps_early(&self.plan.namespaces) {
            kinds &= !namespaces::USER;
        }
        // The first was born in the cgroup, and its children are as well; inside a user namespace nobody may ask for it.
        second::announce(kinds, None, &channel, || self.run())
            .map_err(|errno| (channel, errno.into()))
    }

    /// Enters what only a child will live in.
    fn prepare(&self) -> Result<(), Trouble> {
        run_sealed()?;
        let wanted = &self.plan.namespaces;
        let offsets = open_offsets(&wanted.time_offsets)?;
        if maps_early(wanted) {
            wait_for_mapping(&self.outfit.channel)?;
            crate::sys::identity::become_group(0)?;
            crate::sys::identity::become_user(0)?;
        }
        self.join()?;
        if wanted.new & namespaces::TIME != 0 {
            namespace::leave(namespaces::TIME)?;
            write_offsets(offsets.as_ref(), &wanted.time_offsets)?;
        }
        Ok(())
    }
}

/// Keeps the runtime's own file from whoever will see this process: nobody can yet, in a pid namespace that is new, or before
/// one is joined.
fn run_sealed() -> Result<(), Trouble> {
    seal::enter().map_err(|errno| Trouble {
        errno,
        reason: Reason::Plain,
        detail: "protect the runtime's own file".to_owned(),
    })
}

fn init_failed(channel: &OwnedFd, trouble: Trouble) -> i32 {
    Message::Failed {
        index: BEFORE_STEPS,
        trouble,
    }
    .send(channel)
    .unwrap_or_default();
    init::FAILED
}

fn wait_for_mapping(channel: &OwnedFd) -> Result<(), Trouble> {
    Message::Reached(Barrier::Outside).send(channel)?;
    let mut byte = [0u8; 1];
    let read = rustix::io::retry_on_intr(|| rustix::io::read(channel, &mut byte))?;
    if read == 1 {
        Ok(())
    } else {
        Err(Trouble::because(Reason::Abandoned, Errno::PIPE))
    }
}

const OFFSETS: &str = "/proc/self/timens_offsets";

/// Opens the file of the clocks' offsets, if there are any to write. Once this process has become another user, the
/// file belongs to nobody whom its user namespace knows; and whoever opened it is who may write to it.
fn open_offsets(lines: &str) -> Result<Option<OwnedFd>, Trouble> {
    if lines.is_empty() {
        return Ok(None);
    }
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    // host path: this process, in the host's proc.
    let opened = rustix::fs::open(OFFSETS, flags, Mode::empty());
    opened.map(Some).map_err(|errno| told("open", errno))
}

fn write_offsets(file: Option<&OwnedFd>, lines: &str) -> Result<(), Trouble> {
    let Some(file) = file else { return Ok(()) };
    let written = rustix::io::write(file, lines.as_bytes());
    written
        .map(drop)
        .map_err(|errno| told(&format!("write {lines:?} to"), errno))
}

fn told(action: &str, errno: Errno) -> Trouble {
    Trouble {
        errno,
        reason: Reason::Plain,
        detail: format!("{action} {OFFSETS}"),
    }
}

/// Makes the first process and hears from it of the second.
fn two_generations(
    child: Child<'_>,
    birthplace: Option<BorrowedFd<'_>>,
    leave: &[BorrowedFd<'_>],
) -> Result<Spawned, BackendError> {
    let plan = child.plan;
    let channel = leave.first().copied().ok_or(BackendError::OutOfTurn)?;
    let early = maps_early(&plan.namespaces);
    let kinds = if early { namespaces::USER } else { 0 };
    let birth = Birth {
        namespaces: kinds,
        cgroup: birthplace,
        seals: true,
        leave,
        ..Birth::default()
    };
    let first = clone::spawn(birth, || child.run_first())
        .map_err(BackendError::kernel("make the process"))?;
    let second = hear_of_second(plan, channel, &first);
    if second.is_err() {
        process::end(first.pidfd.as_fd());
        return second;
    }
    process::wait(first.pidfd.as_fd())
        .map_err(BackendError::kernel("wait for the first process"))?;
    second
}

fn hear_of_second(
    plan: &Plan,
    channel: BorrowedFd<'_>,
    first: &Spawned,
) -> Result<Spawned, BackendError> {
    loop {
        let heard = Message::receive(channel)
            .map_err(BackendError::kernel("hear from the first process"))?;
        match heard {
            Some(Message::Reached(Barrier::Outside)) => {
                if let Some(wanted) = &plan.namespaces.mapping {
                    mapping::write(first.pid, wanted)?;
                }
                dialogue::release(channel)?;
            }
            Some(Message::Born(pid)) => {
                let pidfd =
                    process::open(pid).map_err(BackendError::kernel("open the second process"))?;
                return Ok(Spawned { pid, pidfd });
            }
            Some(Message::Failed { index, trouble }) => {
                let total = plan.steps.len();
                return Err(crate::backend::StepError {
                    index,
                    total,
                    step: None,
                    trouble,
                }
                .into());
            }
            _ => return Err(BackendError::OutOfTurn),
        }
    }
}
