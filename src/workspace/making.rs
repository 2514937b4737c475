//! Makes a workspace: the one that succeeds in making its directory; and takes everything back when something fails.
//!
//! What is about to be made is written down first (the place of the cgroup, the record), so that whatever moment this
//! command is killed at, `delete --force` finds it all.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::FileType;

use crate::backend::Attendant;
use crate::backend::Handle;
use crate::backend::Made;
use crate::backend::Supplies;
use crate::enclosure::Enclosure;
use crate::enclosure::Place;
use crate::enclosure::rdt;
use crate::plan::cgroup::Present;
use crate::plan::machine;
use crate::plan::namespaces::NetworkMaker;
use crate::plan::network::NetworkPlan;
use crate::spec::Spec;
use crate::spec::asked::OverLimit;
use crate::spec::process::Process;
use crate::spec::state::Status;
use crate::sys::Errno;
use crate::sys::namespace;
use crate::sys::socket;
use crate::workspace::admission;
use crate::workspace::agent;
use crate::workspace::agent::Agent;
use crate::workspace::blueprint;
use crate::workspace::blueprint::Blueprint;
use crate::workspace::blueprint::Wish;
use crate::workspace::document;
use crate::workspace::error::WorkspaceError;
use crate::workspace::handing;
use crate::workspace::hooks::Moment;
use crate::workspace::inside;
use crate::workspace::interfaces;
use crate::workspace::late::Late;
use crate::workspace::life::Life;
use crate::workspace::limiting::Processors;
use crate::workspace::notify;
use crate::workspace::promised::Promised;
use crate::workspace::record::Record;
use crate::workspace::removing;
use crate::workspace::report::Counted;
use crate::workspace::report::Report;
use crate::workspace::shortage;
use crate::workspace::store;
use crate::workspace::store::Home;
use crate::workspace::store::Store;
use crate::workspace::wall;
use crate::workspace::wiring;

/// The annotation that asks for a pidfd, for callers that cannot give `--pidfd-socket` (crun's name for it).
const PIDFD_RECEIVER: &str = "run.oci.pidfd_receiver";

/// What a caller is handed back.
#[derive(Debug, Clone, Default)]
pub struct Receipts {
    /// The socket that takes the master of the terminal.
    pub console_socket: Option<PathBuf>,
    /// The file that takes the number of the first process.
    pub pid_file: Option<PathBuf>,
    /// The socket that takes a pidfd of it.
    pub pidfd_socket: Option<PathBuf>,
}

/// Where a terminal's master goes, and who starts the program.
#[derive(Debug)]
pub(super) struct Arrangement {
    /// Where the master is sent.
    pub(super) console: Option<OwnedFd>,
    /// Where its network namespace comes from, if somebody else makes that.
    pub(super) network: Option<Promised>,
    /// Whether another command starts the program.
    pub(super) started_later: bool,
    /// Whether who starts it says that it stands.
    pub(super) begun_later: bool,
    /// Whether the time of each step is printed.
    pub(super) timed: bool,
}

/// A workspace that was made and waits for its start.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) home: Home,
    pub(super) record: Record,
    pub(super) made: Made,
}

/// Makes a workspace whose program waits for `start`.
///
/// # Errors
///
/// [`WorkspaceError`]; nothing of it is left then.
pub fn create(
    store: &Store,
    wish: &Wish,
    receipts: &Receipts,
    timed: bool,
    report: &dyn Report,
) -> Result<(), WorkspaceError> {
    let blueprint = Blueprint::draw(wish, store, report)?;
    refuse_reset(&blueprint)?;
    let console = connect_console(&blueprint, receipts)?;
    if console.is_none() && blueprint.spec.process.terminal {
        return Err(WorkspaceError::NoConsole);
    }
    let arrangement = Arrangement {
        console,
        network: None,
        started_later: true,
        begun_later: false,
        timed,
    };
    let standing = build(store, wish, &blueprint, arrangement, report)?;
    hand_back(&standing, receipts).or_else(|error| take_back(standing, error, report))
}

/// Nobody is there to start it again who has its streams.
pub(super) fn refuse_reset(blueprint: &Blueprint) -> Result<(), WorkspaceError> {
    match blueprint.asked.over_limit {
        OverLimit::Kill => Ok(()),
        OverLimit::Reset => Err(WorkspaceError::NoReset),
    }
}

/// The caller's console socket, where the configuration asks for a terminal.
pub(super) fn connect_console(
    blueprint: &Blueprint,
    receipts: &Receipts,
) -> Result<Option<OwnedFd>, WorkspaceError> {
    terminal_of(&blueprint.spec.process, receipts)
}

/// The caller's console socket, which nobody may give to a program without a terminal.
pub(super) fn terminal_of(
    process: &Process,
    receipts: &Receipts,
) -> Result<Option<OwnedFd>, WorkspaceError> {
    match &receipts.console_socket {
        None => Ok(None),
        Some(_) if !process.terminal => Err(WorkspaceError::NoTerminal),
        Some(path) => Ok(Some(handing::connect_console(path)?)),
    }
}

/// Makes a workspace up to the point where its program waits.
pub(super) fn build(
    store: &Store,
    wish: &Wish,
    blueprint: &Blueprint,
    arrangement: Arrangement,
    report: &dyn Report,
) -> Result<Standing, WorkspaceError> {
    refuse_rootless_bundle(blueprint)?;
    let mut record = intent(wish, blueprint)?;
    let network = wiring::plan(blueprint, wish.id.as_str(), store.places())?;
    let home = store.make(&wish.id)?;
    match erect(
        &home,
        &mut record,
        blueprint,
        arrangement,
        network.as_ref(),
        report,
    ) {
        Ok(made) => Ok(Standing { home, record, made }),
        Err(error) => Err(removing::take_back(home, &record, error, report)),
    }
}

/// Looks whether there is a root filesystem.
fn refuse_rootless_bundle(blueprint: &Blueprint) -> Result<(), WorkspaceError> {
    let path = blueprint.rootfs.clone();
    match rustix::fs::stat(&path) {
        Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::Directory => Ok(()),
        Ok(_) => Err(WorkspaceError::NoRoot {
            path,
            source: Errno::NOTDIR,
        }),
        Err(source) => Err(WorkspaceError::NoRoot { path, source }),
    }
}

/// What is known before anything exists.
pub(super) fn intent(wish: &Wish, blueprint: &Blueprint) -> Result<Record, WorkspaceError> {
    let maker = Life::own().map_err(WorkspaceError::probe)?;
    let spec = &blueprint.spec;
    let mut record = Record::new(
        wish.id.clone(),
        blueprint.bundle.clone(),
        blueprint.rootfs.clone(),
        maker,
    );
    record.oci_version.clone_from(&spec.oci_version);
    record.annotations.clone_from(&spec.annotations);
    record.place = blueprint.cgroup.place.clone();
    record.isolation = blueprint.isolation;
    record.machine = blueprint.machine.as_ref().map(|one| one.plan.extent());
    // The end of the process that stands for a machine ends it a moment later; who kills it wants that moment gone.
    record.shared_pids = blueprint.machine.is_some()
        || blueprint.plan.namespaces.new & crate::plan::namespaces::PID == 0;
    record.poststart.clone_from(&spec.hooks.poststart);
    record.poststop.clone_from(&spec.hooks.poststop);
    let class = spec.linux.intel_rdt.as_ref();
    record.rdt = class.map(|asked| crate::plan::rdt::plan(asked, wish.id.as_str()));
    let limits = &blueprint.cgroup.limits;
    record.weight = limits.cpu_weight();
    record.disk_shares = limits.disk_shares(&record.disk_shares);
    record.agent = Agent::of(spec);
    record.late = Late::of(&blueprint.plan);
    Ok(record)
}

/// Writes down what will be made, which is when what it was granted is its own, and makes the enclosure.
pub(super) fn found(
    home: &Home,
    record: &mut Record,
    blueprint: &Blueprint,
    report: &dyn Report,
) -> Result<Enclosure, WorkspaceError> {
    let grant = admission::admit(home.store(), record)?;
    if let Some(directory) = record.place.directory() {
        home.note(store::INTENDED, &directory)?;
    }
    home.write(store::STATE, &record.to_bytes()?)?;
    drop(grant);
    if blueprint.notifies {
        notify::make(home).map_err(|source| WorkspaceError::Kernel {
            what: "make the notify directory",
            source,
        })?;
    }
    wiring::make(home, blueprint)?;
    let mut enclosure = Enclosure::prepare(&blueprint.cgroup)?;
    for remark in enclosure.remarks() {
        report.warning(remark);
    }
    record.place = enclosure.place().clone();
    if enclosure.was_there() {
        home.note(store::FOUND, &enclosure.directory().unwrap_or_default())?;
    }
    if enclosure.exists() {
        // From here on whoever is in there belongs to this workspace, and may be killed. What is not claimed is not
        // found again by who takes everything back.
        home.claim().inspect_err(|_| match enclosure.was_there() {
            true => {}
            false => enclosure.remove().unwrap_or_default(),
        })?;
    }
    Ok(enclosure)
}

/// Makes everything below the directory.
pub(super) fn erect(
    home: &Home,
    record: &mut Record,
    blueprint: &Blueprint,
    arrangement: Arrangement,
    network: Option<&NetworkPlan>,
    report: &dyn Report,
) -> Result<Made, WorkspaceError> {
    let mut enclosure = found(home, record, blueprint, report)?;
    let listener = arrangement
        .started_later
        .then(|| start_socket(home))
        .transpose()?;
    let birthplace = birthplace(&enclosure)?;
    let made_outside = blueprint.plan.namespaces.network_by == NetworkMaker::Outside;
    // Without a link it is not made for us, and nobody is asked.
    let given = arrangement
        .network
        .filter(|_| made_outside && network.is_some());
    let supplies = Supplies {
        birthplace: birthplace.as_ref().map(AsFd::as_fd),
        console: arrangement.console,
        listener,
        network: given.and_then(Promised::take),
        lock: Some(home.as_fd()),
        timed: arrangement.timed,
    };
    let born_there = birthplace.is_some();
    let mut attendant = Maker {
        home,
        blueprint,
        record,
        enclosure: &mut enclosure,
        born_there,
        network,
        report,
        drafted: None,
    };
    let backend = wall::behind(
        blueprint.isolation,
        home.as_fd(),
        blueprint.machine.as_deref(),
    );
    let made = backend.create(&blueprint.plan, supplies, &mut attendant);
    let drafted = attendant.drafted.take();
    let made = made.map_err(|error| shortage::explain(&enclosure, error.into()))?;
    let init = Life::begun(made.handle);
    record.init = Some(init.map_err(WorkspaceError::probe)?);
    if let Some(class) = &record.rdt {
        rdt::enter(class, made.handle.pid)?;
    }
    hold_processors(record, blueprint, &enclosure)?;
    note_standing(home, record, drafted.as_deref())?;
    admission::rebalance(home.store(), record)?;
    if !arrangement.begun_later {
        tell_begun(home, record, &enclosure, report);
    }
    Ok(made)
}

/// The cgroup that a process is born in, open apart from the enclosure, which changes meanwhile.
fn birthplace(enclosure: &Enclosure) -> Result<Option<OwnedFd>, WorkspaceError> {
    let place = enclosure.birthplace();
    let opened = place.map(|place| place.try_clone_to_owned()).transpose();
    opened.map_err(|source| WorkspaceError::Unreadable {
        path: "/proc/self/fd".into(),
        source,
    })
}

/// Writes down who the first process is; what was `drafted` meanwhile is put in place, where it says the same.
fn note_standing(
    home: &Home,
    record: &Record,
    drafted: Option<&[u8]>,
) -> Result<(), WorkspaceError> {
    let state = record.to_bytes()?;
    if drafted != Some(&state) {
        home.draft(store::STATE, &state)?;
    }
    Ok(home.publish(store::STATE)?)
}

/// Limits what the processors of a machine may use, which have begun to boot by then.
fn hold_processors(
    record: &Record,
    blueprint: &Blueprint,
    enclosure: &Enclosure,
) -> Result<(), WorkspaceError> {
    let asked = blueprint.spec.linux.resources.as_ref();
    let (Some(extent), Some(asked)) = (&record.machine, asked) else {
        return Ok(());
    };
    if machine::of_processors(asked, extent.size, &Present::default()).is_none() {
        return Ok(());
    }
    let host = blueprint::look()?;
    match Processors::of(enclosure, extent, &host) {
        Some(mut processors) => processors.hold(asked).map(drop),
        None => Ok(()),
    }
}

/// Says that a workspace that is billed stands.
pub(super) fn tell_begun(home: &Home, record: &Record, enclosure: &Enclosure, report: &dyn Report) {
    if removing::is_billed(record) {
        report.begun(&Counted {
            record,
            home,
            enclosure,
            interfaces: interfaces::counted(home.path(), record),
            machine: inside::counted(home, record, enclosure),
        });
    }
}

/// The socket where the program will wait for its start.
fn start_socket(home: &Home) -> Result<OwnedFd, WorkspaceError> {
    socket::listen(home.as_fd(), store::START).map_err(|source| WorkspaceError::Kernel {
        what: "make the socket for the start",
        source,
    })
}

/// Hands the caller what it asked for, and lets other commands at the workspace.
pub(super) fn hand_back(standing: &Standing, receipts: &Receipts) -> Result<(), WorkspaceError> {
    let receiver = standing
        .record
        .annotations
        .get(PIDFD_RECEIVER)
        .map(PathBuf::from);
    for path in receipts.pidfd_socket.iter().chain(&receiver) {
        handing::send_pidfd(path, standing.made.process.as_fd())?;
    }
    if let Some(path) = &receipts.pid_file {
        handing::write_pid_file(path, standing.made.handle.pid)?;
    }
    Ok(standing.home.unlock()?)
}

/// Removes a workspace that could not be handed over, and gives why.
pub(super) fn take_back(
    standing: Standing,
    error: WorkspaceError,
    report: &dyn Report,
) -> Result<(), WorkspaceError> {
    Err(removing::take_back(
        standing.home,
        &standing.record,
        error,
        report,
    ))
}

/// Runs the hooks that belong between the making of the namespaces and the step into the root.
pub(super) fn runtime_hooks(record: &Record, spec: &Spec) -> anyhow::Result<()> {
    let state = document::for_hooks(record, Status::Creating);
    Moment {
        kind: "prestart",
        hooks: &spec.hooks.prestart,
    }
    .run(&state)?;
    Moment {
        kind: "createRuntime",
        hooks: &spec.hooks.create_runtime,
    }
    .run(&state)?;
    Ok(())
}

/// Attends to a workspace while it is made.
struct Maker<'a> {
    home: &'a Home,
    blueprint: &'a Blueprint,
    record: &'a mut Record,
    enclosure: &'a mut Enclosure,
    born_there: bool,
    network: Option<&'a NetworkPlan>,
    report: &'a dyn Report,
    /// The record that was drafted while the process was at work.
    drafted: Option<Vec<u8>>,
}

impl Maker<'_> {
    /// Writes the record that will be put in place when the process stands, which is most of the work.
    fn draft_state(&mut self, process: Handle) -> anyhow::Result<()> {
        let mut record = self.record.clone();
        record.init = Some(Life::begun(process)?);
        let bytes = record.to_bytes()?;
        self.home.draft(store::STATE, &bytes)?;
        self.drafted = Some(bytes);
        Ok(())
    }
}

impl Attendant for Maker<'_> {
    fn born(&mut self, process: Handle, network: Option<BorrowedFd<'_>>) -> anyhow::Result<()> {
        // Nobody asks for it before the process stands.
        self.home.write(store::CONFIG, &self.blueprint.config)?;
        let limits = &self.blueprint.cgroup.limits;
        if let Some(remark) = self.enclosure.filter_devices(limits)? {
            self.report.warning(&remark);
        }
        let Some(plan) = self.network else {
            return self.draft_state(process);
        };
        // It is at its barrier before this is done, and waits for us.
        match network {
            Some(network) => wiring::attach(self.home, plan, network, self.report),
            None => {
                let own = namespace::network_of(process.pid)?;
                wiring::attach(self.home, plan, own.as_fd(), self.report)
            }
        }
    }

    fn place(&mut self, pid: i32) -> anyhow::Result<()> {
        if self.born_there {
            return Ok(());
        }
        self.enclosure.adopt(pid)?;
        match self.record.place {
            Place::Nowhere => self
                .home
                .note(store::INIT, Life::of(pid)?.text().as_ref())?,
            Place::Directory { .. } | Place::Scope { .. } => self.home.claim()?,
        }
        Ok(())
    }

    fn hooks(&mut self, pid: i32) -> anyhow::Result<()> {
        self.record.init = Some(Life::of(pid)?);
        runtime_hooks(self.record, &self.blueprint.spec)
    }

    fn notify(&mut self, pid: i32, listener: OwnedFd) -> anyhow::Result<()> {
        self.record.init = Some(Life::of(pid)?);
        let state = document::for_hooks(self.record, Status::Creating);
        agent::introduce(self.record.agent.as_ref(), pid, &listener, &state)
    }
}
