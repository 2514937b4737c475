//! The one workspace of a machine, and the programs in it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use crate::agent::group::Group;
use crate::agent::maker::Maker;
use crate::agent::maker::Order;
use crate::agent::maker::Word;
use crate::agent::reaper::Reaper;
use crate::agent::session;
use crate::agent::session::Ends;
use crate::agent::session::Session;
use crate::agent::surroundings;
use crate::agent::wire;
use crate::agent::wire::Create;
use crate::agent::wire::Exec;
use crate::agent::wire::Failure;
use crate::agent::wire::Streams;
use crate::sys::Errno;
use crate::sys::process;

/// The workspace.
#[derive(Debug)]
pub(super) struct Workspace {
    group: Group,
    reaper: Arc<Reaper>,
    /// Whether this is a machine whose network, clock and disks are ours.
    whole: bool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stage: Stage,
    namespaces: u64,
    sessions: BTreeMap<u32, Arc<Session>>,
    last: u32,
    connections: usize,
    /// Somebody has asked for the end.
    ending: bool,
}

/// How far the workspace's own program has come.
#[derive(Debug, Default)]
enum Stage {
    /// Nobody has asked for it.
    #[default]
    Empty,
    /// It is being made, or has failed.
    Taken,
    /// It stands; this one starts it.
    Stands(Maker),
}

type Result<T> = std::result::Result<T, Failure>;

fn other<T>(words: &str) -> Result<T> {
    Err(Failure::Other(words.to_owned()))
}

impl Workspace {
    /// A machine without a workspace. Without `whole` nothing is done to the machine itself.
    pub(super) fn new(group: Group, reaper: Arc<Reaper>, whole: bool) -> Self {
        Self {
            group,
            reaper,
            whole,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its cgroup.
    pub(super) fn group(&self) -> &Group {
        &self.group
    }

    /// Builds it, up to the point where its program would start; `hooks` are those of the runtime's side.
    pub(super) fn create(
        self: &Arc<Self>,
        wanted: Create,
        hooks: impl FnMut() -> Result<()>,
    ) -> Result<i32> {
        let mut state = self.state();
        if !matches!(state.stage, Stage::Empty) {
            return other("there is a workspace in this machine already");
        }
        state.stage = Stage::Taken;
        let joined = wanted.plan.namespaces.join.iter();
        state.namespaces = joined.fold(wanted.plan.namespaces.new, |kinds, one| kinds | one.kind);
        drop(state);
        if self.whole {
            surroundings::furnish(&wanted)?;
            self.group.filter(&wanted.devices)?;
        }
        self.group.limit(&wanted.limits)?;
        let order = Order::Create {
            plan: Box::new(wanted.plan),
            group: self.group.path().to_owned(),
        };
        let (maker, ends) = begin(&order, wanted.streams)?;
        let pid = stands(&maker, hooks)?;
        self.take_charge(wire::WORKLOAD, pid, ends, &maker)?;
        self.state().stage = Stage::Stands(maker);
        Ok(pid)
    }

    /// Starts its program.
    pub(super) fn start(&self) -> Result<i32> {
        let mut state = self.state();
        let stage = std::mem::replace(&mut state.stage, Stage::Taken);
        let maker = match stage {
            Stage::Stands(maker) => maker,
            Stage::Empty => {
                state.stage = Stage::Empty;
                return other("there is no workspace in this machine");
            }
            Stage::Taken => return other("the workspace does not wait for its start"),
        };
        drop(state);
        maker.go();
        match maker.hear() {
            Word::Runs(pid) => {
                maker.go();
                Ok(pid)
            }
            Word::Failed(failure) => Err(failure),
            Word::Hooks | Word::Stands(_) => other("the maker of the program spoke out of turn"),
        }
    }

    /// Runs one more program in it.
    pub(super) fn exec(self: &Arc<Self>, wanted: Exec) -> Result<Arc<Session>> {
        let first = self.session(wire::WORKLOAD)?;
        if first.exit().is_some() {
            return other("the workspace has ended");
        }
        let mut state = self.state();
        state.last += 1;
        let (number, namespaces) = (state.last, state.namespaces);
        drop(state);
        let order = Order::Exec {
            plan: Box::new(wanted.plan),
            group: self.group.path().to_owned(),
            pid: first.pid,
            namespaces,
        };
        let (maker, ends) = begin(&order, wanted.streams)?;
        match maker.hear() {
            Word::Runs(pid) => {
                let session = self.take_charge(number, pid, ends, &maker)?;
                maker.go();
                Ok(session)
            }
            Word::Failed(failure) => Err(failure),
            Word::Hooks | Word::Stands(_) => other("the maker of the program spoke out of turn"),
        }
    }

    /// Makes a session of a program that its maker still holds, and sees to it that its end is noticed.
    fn take_charge(
        self: &Arc<Self>,
        number: u32,
        pid: i32,
        ends: Ends,
        maker: &Maker,
    ) -> Result<Arc<Session>> {
        let refused = |errno| super::group::refused("hold on to the program".to_owned(), errno);
        let process = process::open(pid).map_err(refused)?;
        let terminal = maker.terminal()?;
        let session = Session::new(number, pid, process, ends, terminal).map_err(refused)?;
        let session = Arc::new(session);
        let told = self.reaper.expect(pid);
        let (workspace, watched) = (Arc::clone(self), Arc::clone(&session));
        let watch = move || {
            // The one who tells lives as long as this process.
            let Ok(exit) = told.recv() else { return };
            if number == wire::WORKLOAD {
                workspace.group.kill();
            }
            watched.over(exit);
            workspace.changed.notify_all();
        };
        let thread = std::thread::Builder::new().stack_size(super::STACK);
        let begun = thread.spawn(watch);
        begun.map_err(super::group::failed("watch the program"))?;
        self.state().sessions.insert(number, Arc::clone(&session));
        Ok(session)
    }

    /// The session of this number.
    pub(super) fn session(&self, number: u32) -> Result<Arc<Session>> {
        let session = self.state().sessions.get(&number).map(Arc::clone);
        let missing = || super::group::refused(format!("find program {number}"), Errno::SRCH);
        session.ok_or_else(missing)
    }

    /// All sessions there are.
    pub(super) fn sessions(&self) -> Vec<Arc<Session>> {
        self.state().sessions.values().map(Arc::clone).collect()
    }

    /// Forgets a program that nobody will ask for any more, and ends it.
    pub(super) fn forget(&self, number: u32) {
        let gone = self.state().sessions.remove(&number);
        if let Some(session) = gone {
            session.abandon();
        }
    }

    /// Notes that a connection begins; `false` when there are too many.
    pub(super) fn enter(&self) -> bool {
        let mut state = self.state();
        let room = state.connections < super::MOST_CONNECTIONS;
        state.connections += usize::from(room);
        room
    }

    /// Notes that a connection has ended.
    pub(super) fn leave(&self) {
        self.state().connections -= 1;
        self.changed.notify_all();
    }

    /// Asks for the end of all.
    pub(super) fn finish(&self) {
        self.state().ending = true;
        self.changed.notify_all();
    }

    /// Waits until the end is asked for, or the program has ended and nobody is there who could ask.
    pub(super) fn finished(&self) {
        let mut state = self.state();
        loop {
            let first = state.sessions.get(&wire::WORKLOAD);
            let ended = first.is_some_and(|first| first.exit().is_some());
            if state.ending || (ended && state.connections == 0) {
                break;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        self.group.kill();
    }
}

fn begin(order: &Order, streams: Streams) -> Result<(Maker, Ends)> {
    let made = session::streams(streams);
    let (standard, ends) =
        made.map_err(|errno| super::group::refused("make the streams".to_owned(), errno))?;
    let maker = Maker::begin(order, &standard, streams == Streams::Terminal)?;
    Ok((maker, ends))
}

/// Attends to a maker until the workspace stands.
fn stands(maker: &Maker, mut hooks: impl FnMut() -> Result<()>) -> Result<i32> {
    loop {
        match maker.hear() {
            Word::Stands(pid) => return Ok(pid),
            Word::Failed(failure) => return Err(failure),
            Word::Runs(_) => return other("the maker of the program spoke out of turn"),
            Word::Hooks => {
                hooks()?;
                maker.go();
            }
        }
    }
}

/// Where cgroup2 is mounted.
pub(super) fn cgroups() -> PathBuf {
    PathBuf::from("/sys/fs/cgroup")
}
