//! Does the steps of a plan, in the process that becomes the workspace.
//!
//! It runs in a child of one thread on this kernel, and is written so that it can run as well in a guest.
//! What it needs from outside it is given as descriptors ([`Outfit`]); what it has to say goes over one
//! socket ([`report`]).

mod conceal;
mod console;
mod copy;
mod device;
mod hook;
mod kernel;
mod mount;
mod overlay;
mod program;
pub mod report;
mod rights;

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::net::RecvFlags;

pub use self::overlay::Layers;
pub use self::overlay::layered;
use self::report::Message;
use self::report::Reason;
use self::report::Trouble;
use crate::plan::step::Attributes;
use crate::plan::step::Barrier;
use crate::plan::step::Step;
use crate::sys::Errno;
use crate::sys::Result;
use crate::sys::namespace;
use crate::sys::socket;

/// The status of a process whose plan failed before the program was reached.
pub const FAILED: i32 = 125;

/// What is handed to the one who does the steps.
#[derive(Debug)]
pub struct Outfit {
    /// Where it reports and is answered.
    pub channel: OwnedFd,
    /// Where `start` connects; `None` when the one who created also starts.
    pub listener: Option<OwnedFd>,
    /// Where a terminal's master is sent.
    pub console: Option<OwnedFd>,
    /// Where its network namespace comes from, when who made it makes that.
    pub network: Option<OwnedFd>,
    /// Mounts that only the outside could make, by the index of the step that attaches them.
    pub mounts: BTreeMap<usize, OwnedFd>,
    /// The layers of the root, where the one who does the steps may not reach them.
    pub layers: Option<Layers>,
    /// Whether each step's time is printed on standard error.
    pub timed: bool,
}

/// Does all steps; returns only when one failed, with the status to end with.
pub fn run(steps: &[Step], outfit: Outfit) -> i32 {
    let mut doing = Doing::new(outfit);
    if steps.iter().any(|step| matches!(step, Step::Hook(_))) {
        doing.pid = hook::number_outside();
    }
    for (index, step) in steps.iter().enumerate() {
        let begun = doing.outfit.timed.then(std::time::Instant::now);
        if let Err(trouble) = doing.step(index, step) {
            doing.fail(index, trouble);
            return FAILED;
        }
        if let Some(begun) = begun {
            program::print_time(index, step, begun.elapsed());
        }
    }
    FAILED
}

/// Does those steps of a plan that put something into the root, on `root`; `mounts` are those that only the outside could
/// make.
///
/// # Errors
///
/// Gives the index of the step that failed, and why.
pub fn furnish(
    steps: &[Step],
    root: OwnedFd,
    mounts: BTreeMap<usize, OwnedFd>,
) -> std::result::Result<(), (usize, Trouble)> {
    let into_root = |step: &Step| {
        matches!(
            step,
            Step::Mount(_)
                | Step::Bind(_)
                | Step::Device(_)
                | Step::Symlink { .. }
                | Step::Directory(_)
        )
    };
    below(steps, root, mounts, into_root)
}

/// Does the steps that `wanted` picks, each of which needs the root alone, on `root`.
///
/// # Errors
///
/// As [`furnish`].
pub fn below(
    steps: &[Step],
    root: OwnedFd,
    mounts: BTreeMap<usize, OwnedFd>,
    wanted: impl Fn(&Step) -> bool,
) -> std::result::Result<(), (usize, Trouble)> {
    let (channel, _nobody) = socket::pair().map_err(|errno| (0, errno.into()))?;
    let mut doing = Doing::new(Outfit {
        channel,
        listener: None,
        console: None,
        network: None,
        mounts,
        layers: None,
        timed: false,
    });
    doing.root = Some(root);
    for (index, step) in steps.iter().enumerate().filter(|(_, step)| wanted(step)) {
        doing
            .step(index, step)
            .map_err(|trouble| (index, trouble))?;
    }
    Ok(())
}

/// Sets the attributes of a detached tree, as a step that mounts it would.
///
/// # Errors
///
/// Fails as `mount_setattr(2)` does.
pub fn set_attributes(tree: &OwnedFd, wanted: &Attributes) -> std::result::Result<(), Trouble> {
    mount::change(tree, wanted)
}

/// The steps done so far, as far as later ones need them.
#[derive(Debug)]
struct Doing {
    outfit: Outfit,
    /// The root that is built below.
    root: Option<OwnedFd>,
    /// A `proc` that nobody inside can have changed.
    proc: Option<OwnedFd>,
    /// A verified `/dev/null` of the root.
    null: Option<OwnedFd>,
    /// Where the last node or link was made; what comes between two of them may change what its path means.
    parent: Option<device::Parent>,
    /// The empty read-only directory that hides directories.
    empty: Option<OwnedFd>,
    /// A working directory that only the program's user may enter.
    late_directory: Option<PathBuf>,
    /// This process's number outside.
    pid: Option<i32>,
    /// What `Lookup` found.
    program: Option<program::Found>,
}

impl Doing {
    fn new(outfit: Outfit) -> Self {
        Self {
            outfit,
            root: None,
            proc: None,
            null: None,
            parent: None,
            empty: None,
            late_directory: None,
            pid: None,
            program: None,
        }
    }

    /// Says that a step failed; when nobody listens any more there is nobody to tell.
    fn fail(&self, index: usize, trouble: Trouble) {
        Message::Failed { index, trouble }
            .send(&self.outfit.channel)
            .unwrap_or_default();
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the steps that need nothing of earlier ones are done by `rights`"
    )]
    fn step(&mut self, index: usize, step: &Step) -> std::result::Result<(), Trouble> {
        if !matches!(step, Step::Device(_) | Step::Symlink { .. }) {
            self.parent = None;
        }
        match step {
            Step::Await(barrier) => self.wait(*barrier),
            Step::JoinNetwork => self.join_network(),
            Step::Propagate(flags) => Ok(crate::sys::mount::propagate_all(*flags)?),
            Step::Root { path, cut_off } => self.take_root(path, *cut_off),
            Step::Overlay(wanted) => self.take_overlay(wanted),
            Step::PlainRoot(path) => self.hold_root(path),
            Step::Mount(mount) => self.mount(mount),
            Step::Bind(bind) => self.bind(index, bind),
            Step::Remount(change) => self.remount(change),
            Step::Device(device) => self.make_device(device),
            Step::Symlink { path, target } => self.make_link(path, target),
            Step::Console(console) => self.open_console(*console),
            Step::Directory(path) => self.make_directory(path),
            Step::Hook(hook) => self.run_hook(hook),
            Step::Enter(entry) => self.enter(*entry),
            Step::RootPropagation { flag, recursive } => self.share_root(*flag, *recursive),
            Step::ReadonlyRoot => self.make_root_read_only(),
            Step::Sysctl { key, value } => self.set_sysctl(key, value),
            Step::Mask(path) => self.mask(path),
            Step::Readonly(path) => self.make_read_only(path),
            Step::Label(label) => self.ask_for_label(label),
            Step::OomScore(score) => kernel::set_oom_score(*score),
            Step::WorkingDirectory(path) => self.enter_directory(path),
            Step::Become(user) => self.become_user(user),
            Step::Seccomp(filter) => self.load_filter(filter),
            Step::Lookup(wanted) => self.look_up(wanted),
            Step::Execute(wanted) => self.execute(wanted),
            other => Ok(rights::apply(other)?),
        }
    }

    fn root(&self) -> std::result::Result<&OwnedFd, Trouble> {
        self.root
            .as_ref()
            .ok_or(Trouble::because(Reason::Order, Errno::INVAL))
    }

    fn join_network(&mut self) -> std::result::Result<(), Trouble> {
        let giver = self.outfit.network.take();
        let giver = giver.ok_or(Trouble::because(Reason::Order, Errno::INVAL))?;
        let (_, given) = socket::receive_with(giver.as_fd(), &mut [0; 1])?;
        match given.first() {
            Some(network) => Ok(namespace::enter(network.as_fd(), namespace::NETWORK)?),
            None => Err(Trouble::because(Reason::Abandoned, Errno::PIPE)),
        }
    }

    fn wait(&mut self, barrier: Barrier) -> std::result::Result<(), Trouble> {
        Message::Reached(barrier).send(&self.outfit.channel)?;
        if barrier == Barrier::Start
            && let Some(listener) = self.outfit.listener.take()
        {
            let (listener, caller) = accept_start(listener)?;
            self.outfit.channel = caller;
            self.outfit.listener = Some(listener);
            return Ok(());
        }
        if !released(&self.outfit.channel)? {
            return Err(Trouble::because(Reason::Abandoned, Errno::PIPE));
        }
        if barrier == Barrier::Outside {
            // Who maps the user namespace had to look into this process; nobody has to from here on.
            crate::sys::process::hide()?;
        }
        Ok(())
    }
}

/// Waits until somebody connects and says "go". Who connects and goes away has changed its mind.
///
/// The listener stays open until the program takes over: as long as it lives, the workspace is created
/// and not running, and everybody can see that by a `connect(2)` of the wrong type.
fn accept_start(listener: OwnedFd) -> Result<(OwnedFd, OwnedFd)> {
    loop {
        match rustix::net::accept_with(&listener, rustix::net::SocketFlags::CLOEXEC) {
            Err(Errno::INTR | Errno::CONNABORTED) => {}
            Err(errno) => return Err(errno),
            Ok(caller) => {
                if released(&caller)? {
                    return Ok((listener, caller));
                }
            }
        }
    }
}

/// Waits for one byte; `false` when the other side has closed instead.
fn released(channel: &OwnedFd) -> Result<bool> {
    let mut byte = [0u8; 1];
    loop {
        match rustix::net::recv(channel, &mut byte, RecvFlags::empty()) {
            Ok((length, _)) => return Ok(length == 1),
            Err(Errno::CONNRESET) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
