//! When something is entered in the ledger: when a workspace is made, at intervals, and once at its end.
//!
//! Whoever makes or releases a workspace calls [`begun`] and [`ended`]; who stays with it (its monitor) calls
//! [`interval`] meanwhile. All go on from the same sums ([`crate::accounting::meter`]),
//! so it does not matter who was there when. Only what was asked for in our annotations is entered.

use crate::accounting::AccountingError;
use crate::accounting::Entry;
use crate::accounting::Ledger;
use crate::accounting::Meter;
use crate::accounting::Reason;
use crate::accounting::moment::Moment;
use crate::accounting::reading;
use crate::accounting::reading::Subject;
use crate::accounting::usage::Usage;
use crate::enclosure::counters::machine::LastWord;
use crate::spec::asked::Asked;
use crate::sys::process::Exit;
use crate::sys::process::KILL;
use crate::workspace::found::Workspace;
use crate::workspace::inside;
use crate::workspace::record::Record;
use crate::workspace::report::Counted;
use crate::workspace::report::End;
use crate::workspace::root::StateRoot;
use crate::workspace::store::Home;

/// The file beside a record with the entry that could not be made.
const OWED: &str = "owed.json";

/// Who waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// The entry is on the disk when the call returns.
    Awaited,
    /// Who calls sees to it with [`sync`].
    Later,
}

/// Enters that a workspace was made, and what it has used by then: since that moment, if it began before this is called.
///
/// # Errors
///
/// [`AccountingError`]; what could be read or written before it holds.
pub fn begun(
    root: &StateRoot,
    first: &Counted<'_>,
    since: Option<Moment>,
    disk: Disk,
) -> Result<(), AccountingError> {
    if !is_billed(first.record)? || !first.enclosure.exists() {
        return Ok(());
    }
    let mut meter = Meter::default().since(since);
    let usage = meter.begin(&subject(first))?;
    meter.keep_in(first.home, first.record)?;
    enter(root, &Entry::created(first.record, usage), disk)
}

/// Waits until every entry is on the disk.
///
/// # Errors
///
/// [`AccountingError`] when the disk does not take them.
pub fn sync(root: &StateRoot) -> Result<(), AccountingError> {
    Ok(Ledger::open(root)?.sync()?)
}

fn enter(root: &StateRoot, entry: &Entry, disk: Disk) -> Result<(), AccountingError> {
    let ledger = Ledger::open(root)?;
    match disk {
        Disk::Awaited => ledger.append(entry)?,
        Disk::Later => ledger.enter(entry)?,
    }
    Ok(())
}

/// Enters what a workspace has used by now, and keeps the sums for whoever looks next.
///
/// # Errors
///
/// [`AccountingError`]; what could be read or written before it holds.
pub fn interval(
    root: &StateRoot,
    meter: &mut Meter,
    workspace: &Workspace,
) -> Result<Usage, AccountingError> {
    let usage = meter.sample(workspace)?;
    meter.keep(workspace)?;
    if is_billed(workspace.record())? {
        let entry = Entry::interval(workspace.record(), usage.clone());
        Ledger::open(root)?.append(&entry)?;
    }
    Ok(usage)
}

/// Enters the end of a workspace whose counters are about to go, unless it has been entered and nothing was used since. Of
/// one whose beginning was not entered the moment of that may be given.
///
/// # Errors
///
/// [`AccountingError`]; what could be read or written before it holds.
pub fn ended(
    root: &StateRoot,
    last: &Counted<'_>,
    end: End,
    since: Option<Moment>,
    disk: Disk,
) -> Result<(), AccountingError> {
    if !is_billed(last.record)? || !last.enclosure.exists() {
        return Ok(());
    }
    let mut meter = Meter::resume(last.record, last.home).since(since);
    let usage = meter.look(&subject(last))?;
    let total_us = usage.cpu.total_us;
    if meter.has_ended_with(total_us) {
        return Ok(());
    }
    let word = inside::last_word(last.home, last.record);
    let end = match (end, &word) {
        (End::Before(_), Some(word)) => End::Before(Some(word.exit)),
        (end, _) => end,
    };
    let exit = match end {
        End::Removed => None,
        End::Before(exit) => exit,
    };
    let why = reason(end, out_of_memory(&usage, word.as_ref()));
    let entry = Entry::ended(last.record, usage, why, exit);
    enter(root, &entry, disk).inspect_err(|_| owe(last.home, &entry))?;
    // A removal that fails after this may be tried again.
    meter.note_end(total_us);
    meter.keep_in(last.home, last.record)
}

/// Keeps what could not be entered beside the record. Where that cannot be kept either, it has been said that it was lost.
fn owe(home: &Home, entry: &Entry) {
    let bytes = serde_json::to_vec(entry).unwrap_or_default();
    home.write(OWED, &bytes).unwrap_or_default();
}

/// Enters an end that could not be entered when it came, if there is one.
///
/// # Errors
///
/// [`AccountingError`]; it is kept for the next who asks.
pub fn settle(root: &StateRoot, workspace: &Workspace) -> Result<(), AccountingError> {
    let home = workspace.home();
    let Some(bytes) = home.read(OWED).ok().flatten() else {
        return Ok(());
    };
    // Nobody else writes there, so what is no entry was not written to its end, and says nothing.
    if let Ok(entry) = serde_json::from_slice(&bytes) {
        enter(root, &entry, Disk::Awaited)?;
    }
    home.forget(OWED).unwrap_or_default();
    Ok(())
}

fn subject<'a>(counted: &'a Counted<'a>) -> Subject<'a> {
    Subject {
        record: counted.record,
        enclosure: counted.enclosure,
        interfaces: counted.interfaces.clone(),
        machine: counted.machine,
        term: reading::term(counted.home),
    }
}

fn is_billed(record: &Record) -> Result<bool, AccountingError> {
    Ok(Asked::of(&record.annotations)?.billed)
}

/// Whether anybody was killed for want of memory: by this kernel, or by that of a machine.
fn out_of_memory(usage: &Usage, word: Option<&LastWord>) -> bool {
    let memory = usage.memory.as_ref();
    let here = memory.is_some_and(|memory| memory.events.oom_kill > 0);
    here || word.is_some_and(|word| word.oom_kills > 0)
}

/// Somebody who was killed for want of memory is told from others by the count of such kills; where nobody saw the
/// signal, that count alone must do.
fn reason(end: End, out_of_memory: bool) -> Reason {
    match end {
        End::Removed => Reason::Deleted,
        End::Before(Some(Exit::Status(_))) => Reason::Exited,
        End::Before(Some(Exit::Signal(KILL)) | None) if out_of_memory => Reason::Oom,
        End::Before(Some(Exit::Signal(_))) => Reason::Killed,
        End::Before(None) => Reason::Unknown,
    }
}
