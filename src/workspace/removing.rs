//! Removes what a workspace is on the host, in the order that lets a removal be repeated; errors are collected.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use crate::enclosure::Enclosure;
use crate::enclosure::EnclosureError;
use crate::enclosure::Place;
use crate::enclosure::counters::machine::MachineCounters;
use crate::enclosure::rdt;
use crate::enclosure::threads;
use crate::host::cgroup::Cgroups;
use crate::spec::asked::Asked;
use crate::spec::id::ContainerId;
use crate::spec::state::Status;
use crate::sys::Errno;
use crate::sys::ending;
use crate::sys::process;
use crate::sys::process::Exit;
use crate::sys::process::KILL;
use crate::sys::vanish::Parting;
use crate::workspace::admission;
use crate::workspace::document;
use crate::workspace::error::WorkspaceError;
use crate::workspace::estate;
use crate::workspace::found::Workspace;
use crate::workspace::found::read_record;
use crate::workspace::held::Farewell;
use crate::workspace::hooks::Moment;
use crate::workspace::inside;
use crate::workspace::interfaces;
use crate::workspace::interfaces::Interface;
use crate::workspace::life::Life;
use crate::workspace::record::Record;
use crate::workspace::report::Counted;
use crate::workspace::report::End;
use crate::workspace::report::Report;
use crate::workspace::store;
use crate::workspace::store::Home;
use crate::workspace::store::Store;
use crate::workspace::store::StoreError;
use crate::workspace::wiring;

/// How long processes that were killed may take to be gone.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long a command may take to see that what it makes was killed.
const GRACE: Duration = Duration::from_secs(1);
/// The number of `SIGSTOP`.
const STOP: i32 = 19;

/// Removes a workspace that has ended; with `force` kills it first, and succeeds when there is none.
///
/// # Errors
///
/// [`WorkspaceError::NotStopped`] without `force`; else everything that could not be removed, and the rest is.
pub fn delete(
    store: &Store,
    id: &ContainerId,
    force: bool,
    report: &dyn Report,
) -> Result<(), WorkspaceError> {
    let home = match store.open(id) {
        Err(StoreError::Missing) if force => {
            refuse_what_still_runs(store, id)?;
            return Ok(estate::discard(store, id).map(drop)?);
        }
        answer => answer?,
    };
    delete_at(home, id, force, report)?;
    // Nothing holds it any more, unless it has been made anew already.
    Ok(estate::discard(store, id).map(drop)?)
}

/// The files of a document whose workspace has lost its directory may still be in use. Only the usual name of its cgroup is
/// left to go by, so nobody is killed for that.
fn refuse_what_still_runs(store: &Store, id: &ContainerId) -> Result<(), WorkspaceError> {
    if !estate::place(store.places(), id).exists() {
        return Ok(());
    }
    let cgroups = Cgroups::look().map_err(|error| WorkspaceError::Kernel {
        what: "look for its cgroup",
        source: Errno::from_io_error(&error).unwrap_or(Errno::IO),
    })?;
    let cgroup = cgroups
        .mount
        .map(|mount| mount.join("bulkhead").join(id.as_str()));
    let events = |cgroup: &PathBuf| std::fs::read_to_string(cgroup.join("cgroup.events"));
    match cgroup {
        Some(cgroup) if events(&cgroup).is_ok_and(|text| text.contains("populated 1")) => {
            Err(WorkspaceError::Orphaned {
                id: id.to_string(),
                cgroup,
            })
        }
        _ => Ok(()),
    }
}

fn delete_at(
    home: Home,
    id: &ContainerId,
    force: bool,
    report: &dyn Report,
) -> Result<(), WorkspaceError> {
    let locked = if force {
        lock_by_force(&home, id)
    } else {
        home.lock()
    };
    match locked {
        Err(StoreError::Removed) if force => return Ok(()),
        answer => answer?,
    }
    match read_record(&home, id) {
        Ok(record) => delete_known(Workspace { home, record }, force, report),
        Err(error) => delete_unknown(home, id, error, force, report),
    }
}

fn delete_known(
    workspace: Workspace,
    force: bool,
    report: &dyn Report,
) -> Result<(), WorkspaceError> {
    if !force {
        let status = workspace.status()?;
        if !matches!(status, Status::Created | Status::Stopped) {
            return Err(WorkspaceError::NotStopped {
                id: workspace.record.id.to_string(),
                status,
            });
        }
    }
    let Workspace { home, record } = workspace;
    all_or_several(remove(home, Some(&record), report))
}

/// Without a record the name of the cgroup is what is left to go by.
fn delete_unknown(
    home: Home,
    id: &ContainerId,
    error: WorkspaceError,
    force: bool,
    report: &dyn Report,
) -> Result<(), WorkspaceError> {
    let left = left_enclosure(&home)?;
    let populated = left.is_some_and(|left| left.populated().unwrap_or(true));
    let lives = populated || left_init(&home)?.is_some_and(|init| init.goes_on());
    if lives && !force {
        return Err(error);
    }
    report.warning(&format!(
        "ignoring that the record of {id} cannot be used: {}",
        text_of(&error)
    ));
    all_or_several(remove(home, None, report))
}

/// Takes the lock; when another command holds it, ends what that command waits for, and at last that command.
fn lock_by_force(home: &Home, id: &ContainerId) -> Result<(), StoreError> {
    if home.try_lock()? {
        return Ok(());
    }
    if home.noted(store::CGROUP)?.is_some()
        && let Ok(Some(enclosure)) = left_enclosure(home)
    {
        // What cannot be found or killed now is tried again, and reported, under the lock.
        drop(enclosure.kill());
    }
    if let Ok(record) = read_record(home, id) {
        end_maker(&record.maker);
    }
    home.lock()
}

/// A command that makes a workspace fails when its process is killed, and takes back what it made; if it does not, it
/// hangs in a hook, and both are ended.
fn end_maker(maker: &Life) {
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let Ok(Some(pidfd)) = maker.open() else {
        return;
    };
    if maker.pid == own {
        return;
    }
    if process::ended_within(&pidfd, Some(GRACE)).unwrap_or(true) {
        return;
    }
    // While it stands still it collects nobody, so the numbers of its children cannot become somebody else's.
    process::signal(pidfd.as_fd(), STOP).unwrap_or_default();
    for child in process::children(maker.pid) {
        process::open(child)
            .and_then(|child| process::signal(child.as_fd(), KILL))
            .unwrap_or_default();
    }
    process::signal(pidfd.as_fd(), KILL).unwrap_or_default();
}

/// Keeps other commands from the workspace until this one has done with it; gives whether one that deleted it came first,
/// which has then removed it and told how it ended. One that cannot be locked is there.
pub(super) fn has_been_removed(home: &Home) -> bool {
    matches!(home.lock(), Err(StoreError::Removed))
}

/// Removes what was made of a workspace that failed, and gives why it failed, with what could not be removed.
pub(super) fn take_back(
    home: Home,
    record: &Record,
    error: WorkspaceError,
    report: &dyn Report,
) -> WorkspaceError {
    if has_been_removed(&home) {
        return error;
    }
    let mut record = record.clone();
    // What cannot be found out now is met, and told, by the removal.
    if matches!(home.noted(store::CGROUP), Ok(None)) {
        // What was made of it has been removed already; what is there is somebody else's.
        record.place = Place::Nowhere;
    } else if matches!(home.noted(store::FOUND), Ok(Some(_))) {
        // So is what was there before, but for who was born in it.
        if empty_what_was_found(&home, &record).is_ok() {
            record.place = Place::Nowhere;
        }
    }
    let left = remove(home, Some(&record), report);
    if left.is_empty() {
        return error;
    }
    let texts = std::iter::once(text_of(&error)).chain(left.iter().map(text_of));
    WorkspaceError::Several(texts.collect())
}

/// Leaves a cgroup that was there before this workspace as it was found.
fn empty_what_was_found(home: &Home, record: &Record) -> Result<(), WorkspaceError> {
    let whole = Enclosure::open(&record.place)?;
    end_processes(home, Some(record), Some(&whole))?;
    let parts = [threads::VCPU, threads::VMM, threads::FILES, threads::VHOST];
    for part in parts.iter().filter(|_| record.machine.is_some()) {
        if let Some(mut part) = whole.part(part) {
            part.remove()?;
        }
    }
    Ok(())
}

/// Ends and removes everything, goes on after errors, and gives them. The directory goes last, and only when nothing
/// else is left that it would be needed for.
pub(super) fn remove(
    home: Home,
    record: Option<&Record>,
    report: &dyn Report,
) -> Vec<WorkspaceError> {
    let mut farewell = Farewell::default();
    let mut errors = release(&home, record, report, &mut farewell);
    if !errors.is_empty() {
        return errors;
    }
    after_the_end(record, report);
    errors.extend(home.remove().err().map(WorkspaceError::from));
    errors
}

/// Ends every process and gives back what the host lent for them; the directory stays.
pub(super) fn release(
    home: &Home,
    record: Option<&Record>,
    report: &dyn Report,
    farewell: &mut Farewell,
) -> Vec<WorkspaceError> {
    let mut errors = Vec::new();
    let due = record.filter(|record| is_due(home, record));
    let runs = due.is_some_and(|record| record.init.as_ref().is_some_and(Life::goes_on));
    let wired = due.filter(|record| !runs && wiring::is_wired(record));
    let held = &mut farewell.held;
    let parting = match wired {
        Some(record) => held.begin_to_part(home, &record.id),
        None => {
            held.begin_to_unmount();
            None
        }
    };
    let watch = due.map(|record| LastWatch::begin(home, record, runs));
    // What went through the link has been counted; so the kernel works at that beside us.
    let leaving = parting.map(Parting::go);
    let noted = farewell.exit.map(|exit| note_exit(home, exit));
    errors.extend(noted.and_then(Result::err));
    let enclosure = match record.filter(|_| due.is_none()) {
        Some(record) if is_vacated(record) => None,
        _ => enclosure_of(home, record).unwrap_or_else(|error| {
            errors.push(error);
            None
        }),
    };
    errors.extend(end_processes(home, record, enclosure.as_ref()).err());
    if let Some((watch, enclosure)) = watch.zip(enclosure.as_ref()) {
        watch.end(home, enclosure, report);
    }
    errors.extend(enclosure.and_then(|enclosure| remove_cgroup(home, record, enclosure).err()));
    if let Some(leaving) = leaving {
        wiring::forget_files(home);
        // What failed here is met, and told, by the next.
        leaving.finish(&mut farewell.remains).unwrap_or_default();
    }
    let detached = wiring::detach(home, record, &mut farewell.remains);
    errors.extend(detached.err().map(WorkspaceError::from));
    if let Some(record) = record {
        admission::forget(home.store(), record, report);
    }
    let class = record.and_then(|record| record.rdt.as_ref());
    errors.extend(class.and_then(|class| Some(rdt::leave(class).err()?.into())));
    errors
}

/// Runs the hooks that belong after the end.
pub(super) fn after_the_end(record: Option<&Record>, report: &dyn Report) {
    if let Some(record) = record.filter(|record| record.init.is_some()) {
        let state = document::for_hooks(record, Status::Stopped);
        let moment = Moment {
            kind: "poststop",
            hooks: &record.poststop,
        };
        for error in moment.run_all(&state) {
            report.warning(&format!("ignoring that {error}"));
        }
    }
}

/// What is seen of a workspace that is billed before its processes are killed, since it goes with them.
struct LastWatch<'a> {
    record: &'a Record,
    runs: bool,
    interfaces: Option<Vec<Interface>>,
    machine: Option<MachineCounters>,
}

/// Whether there is a life to be looked at for the last time: none of one that has been seen to its end before.
fn is_due(home: &Home, record: &Record) -> bool {
    let settled = || matches!(home.read(store::SETTLED), Ok(Some(_)));
    record.init.is_some() && is_billed(record) && !settled()
}

impl<'a> LastWatch<'a> {
    fn begin(home: &Home, record: &'a Record, runs: bool) -> Self {
        Self {
            record,
            runs,
            interfaces: interfaces::counted(home.path(), record),
            machine: record.machine.and_then(|_| {
                let enclosure = Enclosure::open(&record.place).ok()?;
                inside::counted(home, record, &enclosure)
            }),
        }
    }

    /// Says that the counters are about to be lost, when all that was killed has been charged for.
    fn end(self, home: &Home, enclosure: &Enclosure, report: &dyn Report) {
        let end = match self.runs {
            true => End::Removed,
            false => End::Before(exit_of(home, self.record)),
        };
        let last = Counted {
            record: self.record,
            home,
            enclosure,
            interfaces: self.interfaces,
            machine: self.machine,
        };
        report.ending(&last, end);
    }
}

/// Whether what it uses is entered in the ledger. What cannot be understood was refused when it was made.
pub(super) fn is_billed(record: &Record) -> bool {
    Asked::of(&record.annotations).is_ok_and(|asked| asked.billed)
}

/// Writes down how a first process ended.
fn note_exit(home: &Home, exit: Exit) -> Result<(), WorkspaceError> {
    Ok(home.write(store::EXIT, &serde_json::to_vec(&exit)?)?)
}

/// How a first process ended: what was written down, or what its remains say while nobody has collected them.
fn exit_of(home: &Home, record: &Record) -> Option<Exit> {
    let noted = home.read(store::EXIT).ok().flatten();
    let noted = noted.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    noted.or_else(|| {
        let init = record.init.as_ref()?;
        ending::uncollected(init.pid, init.start_time).ok()?
    })
}

/// Kills every process and waits until none is left. Mostly none is: the first was the last.
fn end_processes(
    home: &Home,
    record: Option<&Record>,
    enclosure: Option<&Enclosure>,
) -> Result<(), WorkspaceError> {
    let mut crowded = None;
    if is_claimed(home, record)?
        && let Some(enclosure) = enclosure
        && enclosure.populated()?
    {
        enclosure.kill()?;
        crowded = Some(enclosure);
    }
    let deadline = Instant::now() + PATIENCE;
    // The end of a process is told at once; that a group is empty at most every ten milliseconds
    // (`CGROUP_FILE_NOTIFY_MIN_INTV`, Linux 4.18), and that it is not was told when this one was born.
    let first = end_first(home, record, deadline);
    if let Some(enclosure) = crowded {
        enclosure.wait_empty(deadline)?;
    }
    first
}

/// Kills the first process and waits for its end. Outside a cgroup of its own it is all that is known.
fn end_first(
    home: &Home,
    record: Option<&Record>,
    deadline: Instant,
) -> Result<(), WorkspaceError> {
    let init = record.and_then(|record| record.init.clone());
    let init = match init {
        None => left_init(home)?,
        known => known,
    };
    if let Some(init) = init
        && let Some(pidfd) = init.open().map_err(WorkspaceError::probe)?
    {
        process::signal(pidfd.as_fd(), KILL).unwrap_or_default();
        let patience = deadline.saturating_duration_since(Instant::now());
        if !process::ended_within(&pidfd, Some(patience)).map_err(WorkspaceError::probe)? {
            return Err(WorkspaceError::Immortal { pid: init.pid });
        }
    }
    Ok(())
}

fn remove_cgroup(
    home: &Home,
    record: Option<&Record>,
    mut enclosure: Enclosure,
) -> Result<(), WorkspaceError> {
    // One that was only intended may have been somebody else's before, or have been found: this program leaves none
    // that is populated, frozen or divided.
    let foreign = !is_claimed(home, record)?
        && (enclosure.populated()? || enclosure.frozen()? || enclosure.is_divided());
    let found =
        record.is_none_or(|record| record.init.is_none()) && home.noted(store::FOUND)?.is_some();
    if !foreign && !found {
        enclosure.remove()?;
    }
    Ok(())
}

/// Whether nobody else is in the cgroup: that is written down before anybody of ours is in it. A record that has a first
/// process was written after that, and says it too when the note is damaged.
fn is_claimed(home: &Home, record: Option<&Record>) -> Result<bool, WorkspaceError> {
    let made = record.is_some_and(|record| record.init.is_some());
    Ok(made || home.noted(store::CGROUP)?.is_some())
}

/// Removes the cgroup of somebody whose first process was the last, as nearly all are: then nobody has to be looked for.
fn is_vacated(record: &Record) -> bool {
    record.init.is_some() && Enclosure::remove_if_empty(&record.place)
}

fn enclosure_of(home: &Home, record: Option<&Record>) -> Result<Option<Enclosure>, WorkspaceError> {
    match record {
        Some(record) => Ok(Some(Enclosure::open(&record.place)?)),
        None => left_enclosure(home),
    }
}

/// The enclosure that the note in the directory names, which is there even when the record is not. A note that names no
/// cgroup is damaged, and leads nowhere.
fn left_enclosure(home: &Home) -> Result<Option<Enclosure>, WorkspaceError> {
    let noted = match home.noted(store::CGROUP)? {
        None => home.noted(store::INTENDED)?,
        claimed => claimed,
    };
    match noted.map(|directory| Enclosure::at(&directory)) {
        None | Some(Err(EnclosureError::NotACgroup { .. })) => Ok(None),
        Some(found) => Ok(Some(found?)),
    }
}

/// The first process that the note in the directory names.
fn left_init(home: &Home) -> Result<Option<Life>, WorkspaceError> {
    let noted = home.noted(store::INIT)?;
    Ok(noted.and_then(|text| Life::from_text(text.to_str()?)))
}

/// No error, the only one, or all of them as one.
pub(super) fn all_or_several(mut errors: Vec<WorkspaceError>) -> Result<(), WorkspaceError> {
    match (errors.pop(), errors.is_empty()) {
        (None, _) => Ok(()),
        (Some(error), true) => Err(error),
        (Some(last), false) => {
            let texts = errors.iter().chain([&last]).map(text_of);
            Err(WorkspaceError::Several(texts.collect()))
        }
    }
}

/// An error with its causes in one line.
pub(super) fn text_of(error: &WorkspaceError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
