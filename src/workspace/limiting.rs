//! Changes the limits of a workspace that lives, and what it is promised.
//!
//! All of a change is in force, or nothing of it: what was done before the step that fails is taken back.

use std::collections::BTreeMap;

use crate::enclosure::Enclosure;
use crate::enclosure::rdt;
use crate::enclosure::threads;
use crate::host::Host;
use crate::plan;
use crate::plan::cgroup::Limits;
use crate::plan::machine;
use crate::plan::machine::Extent;
use crate::plan::machine::Size;
use crate::spec::asked::Asked;
use crate::spec::asked::PREFIX;
use crate::spec::id::ContainerId;
use crate::spec::resources::Cpu;
use crate::spec::resources::Resources;
use crate::spec::state::Status;
use crate::workspace::admission;
use crate::workspace::admission::Grant;
use crate::workspace::blueprint;
use crate::workspace::error::WorkspaceError;
use crate::workspace::found::Workspace;
use crate::workspace::lifecycle::Event;
use crate::workspace::lifecycle::NotNow;
use crate::workspace::record::Record;
use crate::workspace::report::Report;
use crate::workspace::store;
use crate::workspace::store::Store;
use crate::workspace::wiring;

/// What is to be otherwise; what is not named stays as it is.
#[derive(Debug, Default)]
pub struct Change {
    /// The limits.
    pub resources: Resources,
    /// Lines of `schemata` for its class of cache and memory bandwidth.
    pub shares: Vec<String>,
    /// What it is promised, and its rates: annotations without their prefix, none for those that shall be no more.
    pub promises: BTreeMap<&'static str, Option<String>>,
}

/// Changes the limits of a workspace, and what it is promised.
///
/// # Errors
///
/// [`NotNow`] when it has ended; [`WorkspaceError::Refused`] when what it shall be promised is not there; else the field
/// that cannot be had. Everything is then as it was before.
pub fn update(
    store: &Store,
    id: &ContainerId,
    change: &Change,
    report: &dyn Report,
) -> Result<(), WorkspaceError> {
    let workspace = Workspace::find_locked(store, id)?;
    if workspace.status()? == Status::Stopped {
        return Err(NotNow {
            state: Status::Stopped,
            event: Event::Enter,
        }
        .into());
    }
    let mut enclosure = workspace.enclosure()?;
    let host = blueprint::look()?;
    let machine = workspace
        .record
        .machine
        .map(|extent| extent.after(&change.resources));
    let machine = machine.transpose()?;
    let roomy = roomy(machine.as_ref(), &change.resources);
    let mut limits = plan::cgroup::update(&roomy, &enclosure.present()?, &host)?;
    for ignored in &limits.ignored {
        report.warning(ignored);
    }
    let mut record = workspace.record.clone();
    let grant = promise(store, change, &mut record, (&host, &mut limits))?;
    record.weight = limits.cpu_weight().or(record.weight);
    record.disk_shares = limits.disk_shares(&record.disk_shares);
    record.machine = machine;
    let shares = Shares::change(&workspace.record, &change.shares)?;
    let machine = record.machine.as_ref();
    let mut processors = machine.and_then(|extent| Processors::of(&enclosure, extent, &host));
    let held = match &mut processors {
        Some(processors) => processors.hold(&change.resources)?,
        None => None,
    };
    let changed = connect_anew(store, change, (&workspace.record, &record))
        .and_then(|()| put_in_force(&workspace, &record, &mut enclosure, &limits));
    if changed.is_err() {
        // The first error is the one to tell.
        connect_anew(store, change, (&record, &workspace.record)).unwrap_or_default();
        shares.put_back(&record);
        if let (Some(mut processors), Some(held)) = (processors, held) {
            processors.hold(&held).map(drop).unwrap_or_default();
        }
    }
    changed?;
    weigh(store, grant, &record)
}

/// Writes into the record what it is promised from now on, if that is there; the grant is to be kept until the record stands.
fn promise(
    store: &Store,
    change: &Change,
    record: &mut Record,
    (host, limits): (&Host, &mut Limits),
) -> Result<Option<Grant>, WorkspaceError> {
    if change.promises.is_empty() {
        return Ok(None);
    }
    for (key, value) in &change.promises {
        let key = format!("{PREFIX}{key}");
        match value {
            Some(value) => record.annotations.insert(key, value.clone()),
            None => record.annotations.remove(&key),
        };
    }
    let guarantee = Asked::of(&record.annotations)?.guarantee;
    plan::cgroup::promise(&record.place, &guarantee, host, limits)?;
    admission::admit(store, record)
}

/// Lets the rates of the second record hold in place of those of the first, when they are among what is changed.
fn connect_anew(
    store: &Store,
    change: &Change,
    (before, after): (&Record, &Record),
) -> Result<(), WorkspaceError> {
    let mut keys = change.promises.keys();
    match keys.any(|key| key.starts_with("network.")) && before.annotations != after.annotations {
        true => wiring::regrant(after, store.places()),
        false => Ok(()),
    }
}

/// Writes the record before the limits: if this command is killed between them, the next time that workspaces are
/// weighed gives it what the record says.
fn put_in_force(
    workspace: &Workspace,
    record: &Record,
    enclosure: &mut Enclosure,
    limits: &Limits,
) -> Result<(), WorkspaceError> {
    let renewed = *record != workspace.record;
    let inside = (workspace.record.machine, record.machine);
    if let (Some(before), Some(after)) = inside
        && before != after
    {
        workspace.limit_inside(after.limits)?;
        let taken = put_in_force_outside(workspace, record, enclosure, limits, renewed);
        if taken.is_err() {
            workspace.limit_inside(before.limits).unwrap_or_default();
        }
        return taken;
    }
    put_in_force_outside(workspace, record, enclosure, limits, renewed)
}

fn put_in_force_outside(
    workspace: &Workspace,
    record: &Record,
    enclosure: &mut Enclosure,
    limits: &Limits,
    renewed: bool,
) -> Result<(), WorkspaceError> {
    if renewed {
        workspace.home.write(store::STATE, &record.to_bytes()?)?;
    }
    let taken = enclosure.update(limits);
    if taken.is_err() && renewed {
        let before = workspace.record.to_bytes()?;
        workspace.home.write(store::STATE, &before)?;
    }
    Ok(taken?)
}

/// The processors of a machine, whose limit is the workload's; that of the whole has room for the machine's own work.
pub(super) struct Processors<'a> {
    part: Enclosure,
    size: Size,
    host: &'a Host,
}

impl<'a> Processors<'a> {
    /// None where the machine could not be divided: then the limit of the whole is all that holds it.
    pub(super) fn of(whole: &Enclosure, extent: &Extent, host: &'a Host) -> Option<Self> {
        Some(Self {
            part: whole.part(threads::VCPU)?,
            size: extent.size,
            host,
        })
    }

    /// Holds them to what is asked for. Gives what they were held to before, when that has changed.
    pub(super) fn hold(&mut self, asked: &Resources) -> Result<Option<Resources>, WorkspaceError> {
        let present = self.part.present()?;
        let Some(wanted) = machine::of_processors(asked, self.size, &present) else {
            return Ok(None);
        };
        let limits = plan::cgroup::update(&wanted, &present, self.host)?;
        self.part.update(&limits)?;
        let before = Cpu {
            quota: present.cpu_quota.or(Some(-1)),
            period: present.cpu_period,
            ..Cpu::default()
        };
        Ok(Some(Resources {
            cpu: Some(before),
            ..Resources::default()
        }))
    }
}

/// The limits of its enclosure, which have room for its machine where it has one.
fn roomy(machine: Option<&Extent>, asked: &Resources) -> Resources {
    match machine {
        None => asked.clone(),
        Some(extent) => Resources {
            devices: Vec::new(),
            ..machine::enclosed(asked, extent)
        },
    }
}

fn weigh(store: &Store, grant: Option<Grant>, record: &Record) -> Result<(), WorkspaceError> {
    match grant {
        Some(grant) => grant.rebalance(store, record),
        None => admission::rebalance(store, record),
    }
}

/// What a class of cache and memory bandwidth had before.
struct Shares {
    before: Option<Vec<String>>,
}

impl Shares {
    fn change(record: &Record, shares: &[String]) -> Result<Self, WorkspaceError> {
        if shares.is_empty() {
            return Ok(Self { before: None });
        }
        let class = record.rdt.as_ref().ok_or(WorkspaceError::NoClass)?;
        let before = Some(rdt::change(class, shares)?);
        Ok(Self { before })
    }

    /// The error that is the reason for this is the one to tell.
    fn put_back(self, record: &Record) {
        if let (Some(before), Some(class)) = (self.before, &record.rdt) {
            rdt::change(class, &before).map(drop).unwrap_or_default();
        }
    }
}
