//! Who is promised what on this host: refuses what cannot be kept, and keeps what was granted.
//!
//! There is no book of grants: what is granted is the sum over the annotations of all workspaces that live, so nothing
//! has to be repaired after a crash, and what has ended holds nothing. `ROOT/@admission.lock` is held from the check
//! until the record with the annotations stands, so that two at once cannot both be granted the last of anything. The
//! file is made with the first grant: as long as there is none, nobody who asks for nothing looks any further.
//!
//! Whoever holds the lock of a workspace may wait for this one, never the other way about.

mod capacity;
mod disk;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::FlockOperation;
use rustix::fs::Mode;
use rustix::fs::OFlags;

use crate::enclosure::Enclosure;
use crate::enclosure::EnclosureError;
use crate::enclosure::pool::Pool;
use crate::host;
use crate::host::Host;
use crate::plan::admission;
use crate::plan::admission::Amounts;
use crate::plan::admission::Capacity;
use crate::plan::admission::Holder;
use crate::plan::admission::Resource;
use crate::plan::cgroup::Place;
use crate::plan::cgroup::guarantee;
use crate::plan::entitlement;
use crate::plan::entitlement::Member;
use crate::spec::asked::Asked;
use crate::spec::asked::Guarantee;
use crate::sys::Errno;
use crate::workspace::blueprint;
use crate::workspace::error::WorkspaceError;
use crate::workspace::found::Workspace;
use crate::workspace::record::Record;
use crate::workspace::removing;
use crate::workspace::report::Report;
use crate::workspace::store::Store;

/// What the lock is called among what belongs to all workspaces.
const LOCK: &str = "admission.lock";
/// Entitlements are counted in so many parts of a thousandth of a CPU, so that rounding is nothing.
const FINE: u64 = 1_000_000;

/// Nobody else is granted anything while this lives.
#[derive(Debug)]
pub struct Grant {
    _lock: OwnedFd,
}

/// What there is, and who holds how much of it.
#[derive(Debug)]
pub struct Survey {
    /// What this host has.
    pub capacity: Capacity,
    /// Who holds anything.
    pub holders: Vec<Holder>,
}

/// Looks at what this host has and who holds how much of it.
///
/// # Errors
///
/// [`WorkspaceError::HostFile`]; or the store cannot be read.
pub fn survey(store: &Store) -> Result<Survey, WorkspaceError> {
    let living = living(store)?;
    Survey::of(store, &blueprint::look()?, &living)
}

impl Survey {
    fn of(store: &Store, host: &Host, living: &[Living]) -> Result<Self, WorkspaceError> {
        let holders = living.iter().filter_map(|one| {
            let amounts = wanted(&one.asked, &one.record).ok()?;
            let id = one.record.id.to_string();
            let own = one.asked.guarantee.memory_bytes;
            let machine_bytes = promised(&one.asked, &one.record).saturating_sub(own);
            (!amounts.is_empty()).then_some(Holder {
                id,
                amounts,
                machine_bytes,
            })
        });
        Ok(Self {
            capacity: capacity::find(store.places(), host)?,
            holders: holders.collect(),
        })
    }
}

/// Grants a workspace what its record asks for; nothing when it asks for nothing, and then nothing was looked at.
///
/// The grant is to be dropped when the record stands. What the workspace held before does not count.
///
/// # Errors
///
/// [`WorkspaceError::Refused`] with what is free and who holds the rest.
pub(super) fn admit(store: &Store, record: &Record) -> Result<Option<Grant>, WorkspaceError> {
    let asked = Asked::of(&record.annotations)?;
    let amounts = wanted(&asked, record)?;
    if amounts.is_empty() && !asked.guarantee.is_some() {
        return Ok(None);
    }
    let grant = lock(store)?;
    let mut living = living(store)?;
    living.retain(|one| one.record.id != record.id);
    let host = blueprint::look()?;
    let survey = Survey::of(store, &host, &living)?;
    admission::admit(&amounts, &survey.capacity, &survey.holders)?;
    disk::refuse_unweighed(&amounts, host.cgroup.mount.as_deref())?;
    Ok(Some(grant))
}

/// Weighs all workspaces against each other again, after one of them has been made or changed.
///
/// Nothing is looked at when it is weighed against nobody, or nobody was ever granted anything. That it was not done,
/// because a command was killed, is mended by the next time: it depends on nothing that was.
///
/// # Errors
///
/// The first weight that is not taken; all are tried.
pub fn rebalance(store: &Store, record: &Record) -> Result<(), WorkspaceError> {
    if record.place.pool().is_none() {
        return Ok(());
    }
    match lock_if_there(store)? {
        Some(grant) => grant.rebalance(store, record),
        None => Ok(()),
    }
}

/// Weighs those who are left, after a workspace has gone. That it fails keeps nobody from going.
pub(super) fn forget(store: &Store, record: &Record, report: &dyn Report) {
    let weighed = || match lock_if_there(store)? {
        Some(_grant) => {
            let mut left = living(store)?;
            left.retain(|one| one.record.id != record.id);
            weigh(store, left, &record.place)
        }
        None => Ok(()),
    };
    if record.place.pool().is_none() {
        return;
    }
    if let Err(error) = weighed() {
        report.warning(&format!(
            "ignoring that workspaces could not be weighed again: {}",
            removing::text_of(&error)
        ));
    }
}

impl Grant {
    /// As [`rebalance`], by the one who holds the lock.
    pub(super) fn rebalance(&self, store: &Store, record: &Record) -> Result<(), WorkspaceError> {
        weigh(store, living(store)?, &record.place)
    }
}

fn weigh(store: &Store, mut living: Vec<Living>, place: &Place) -> Result<(), WorkspaceError> {
    living.retain(|one| one.record.place.pool().is_some());
    let host = blueprint::look()?;
    let capacity = capacity::find(store.places(), &host)?;
    let mut balance = Balance::weigh(&living, &capacity);
    balance.include(place, 0)?;
    for (one, weight) in living.iter().zip(balance.weights.clone()) {
        balance.try_to(settle(one, weight));
    }
    let mount = host.cgroup.mount.as_deref();
    let disks = disk::weigh(&living, &mut balance.pools, &capacity, mount);
    balance.try_to(disks);
    for (pool, entitled) in std::mem::take(&mut balance.pools).into_values() {
        let settled = settle_pool(pool, entitled, balance.kept, balance.promised);
        balance.try_to(settled);
    }
    balance.failed.map_or(Ok(()), Err)
}

/// A workspace that lives.
#[derive(Debug)]
struct Living {
    record: Record,
    asked: Asked,
}

/// Everybody's weight, and what the groups around them are due.
#[derive(Debug)]
struct Balance {
    weights: Vec<u64>,
    pools: BTreeMap<PathBuf, (Pool, u64)>,
    /// What the host keeps for itself.
    kept: u64,
    /// Whether anybody was promised any CPU.
    promised: bool,
    failed: Option<WorkspaceError>,
}

impl Balance {
    fn weigh(living: &[Living], capacity: &Capacity) -> Self {
        let members = living.iter().map(|one| Member {
            reserve: one.asked.guarantee.cpu_milli.saturating_mul(FINE),
            share: one.record.weight.unwrap_or(entitlement::USUAL),
        });
        let members: Vec<Member> = members.collect();
        let cpu = capacity.promisable(&Resource::Cpu).unwrap_or_default();
        let cpu = cpu.saturating_mul(FINE);
        let kept = capacity.host.get(&Resource::Cpu).copied();
        let mut balance = Self {
            weights: entitlement::weights(cpu, &members),
            pools: BTreeMap::new(),
            kept: kept.unwrap_or_default().saturating_mul(FINE),
            promised: members.iter().any(|member| member.reserve > 0),
            failed: None,
        };
        for (one, entitled) in living.iter().zip(entitlement::entitlements(cpu, &members)) {
            let included = balance.include(&one.record.place, entitled);
            balance.try_to(included);
        }
        balance
    }

    /// Counts what a workspace is due to what its pool is due.
    fn include(&mut self, place: &Place, entitled: u64) -> Result<(), WorkspaceError> {
        if let Some(pool) = Pool::of(place)? {
            let path = pool.path().to_owned();
            let (_, sum) = self.pools.entry(path).or_insert((pool, 0));
            *sum = sum.saturating_add(entitled);
        }
        Ok(())
    }

    fn try_to(&mut self, done: Result<(), WorkspaceError>) {
        if self.failed.is_none() {
            self.failed = done.err();
        }
    }
}

/// The enclosure of one; none where there are no cgroups.
fn open(one: &Living) -> Result<Option<Enclosure>, WorkspaceError> {
    match Enclosure::open(&one.record.place) {
        Err(EnclosureError::NotACgroup { .. }) => Ok(None),
        answer => Ok(Some(answer?)),
    }
}

fn settle(one: &Living, weight: u64) -> Result<(), WorkspaceError> {
    let memory_bytes = promised(&one.asked, &one.record);
    let Some(mut enclosure) = open(one)? else {
        return Ok(());
    };
    enclosure.settle(guarantee::CPU_WEIGHT, weight, "cpu.share")?;
    if memory_bytes > 0 {
        enclosure.settle(guarantee::MEMORY_MIN, memory_bytes, "memory.reserve")?;
    }
    Ok(())
}

fn settle_pool(
    mut pool: Pool,
    entitled: u64,
    kept: u64,
    promised: bool,
) -> Result<(), WorkspaceError> {
    let beside = pool.neighbours()?;
    let weight = match promised && beside > 0 {
        true => entitlement::against(beside, entitled, kept),
        false => entitlement::USUAL,
    };
    pool.settle(guarantee::CPU_WEIGHT, weight, "cpu.reserve")?;
    let protected = pool.protected()?;
    pool.settle(guarantee::MEMORY_MIN, protected, "memory.reserve")?;
    Ok(())
}

/// All workspaces whose first process, or whose maker, goes on. One that cannot be read counts for nothing: what it was
/// promised is not known.
fn living(store: &Store) -> Result<Vec<Living>, WorkspaceError> {
    let found = store.ids()?.into_iter().filter_map(|id| {
        let record = Workspace::find(store, &id).ok()?.record;
        let asked = Asked::of(&record.annotations).ok()?;
        let lives = match &record.init {
            Some(init) => init.goes_on(),
            None => record.maker.goes_on(),
        };
        lives.then_some(Living { record, asked })
    });
    Ok(found.collect())
}

/// The memory that a workspace is promised: what is promised to a program in a machine needs that machine too.
fn promised(asked: &Asked, record: &Record) -> u64 {
    let own = asked.guarantee.memory_bytes;
    let machine = record.machine.filter(|_| own > 0);
    own.saturating_add(machine.map_or(0, |extent| extent.overhead()))
}

/// What a workspace asks to be promised.
fn wanted(asked: &Asked, record: &Record) -> Result<Amounts, WorkspaceError> {
    let asked = &Asked {
        guarantee: Guarantee {
            memory_bytes: promised(asked, record),
            ..asked.guarantee
        },
        ..asked.clone()
    };
    let guarantee = &asked.guarantee;
    if guarantee.read_bps == 0 && guarantee.write_bps == 0 {
        return Ok(admission::request(asked, None));
    }
    let written = asked.layer.as_ref().map(|layer| Path::new(&layer.upper));
    let path = written.unwrap_or(&record.rootfs);
    let disk = host::disk::below(path).ok_or_else(|| WorkspaceError::NoDisk {
        path: path.to_owned(),
    })?;
    Ok(admission::request(asked, Some(&disk)))
}

/// Waits until nobody else is granted anything.
fn lock(store: &Store) -> Result<Grant, WorkspaceError> {
    let make = OFlags::CREATE;
    let opened = match open_lock(store, make) {
        Err(Errno::NOENT) => {
            store.make_root()?;
            open_lock(store, make)
        }
        answer => answer,
    };
    hold(opened.map_err(no_lock)?)
}

/// The same, when anything was ever granted here.
fn lock_if_there(store: &Store) -> Result<Option<Grant>, WorkspaceError> {
    match open_lock(store, OFlags::empty()) {
        Err(Errno::NOENT) => Ok(None),
        answer => hold(answer.map_err(no_lock)?).map(Some),
    }
}

fn open_lock(store: &Store, more: OFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | more;
    let path = store.places().shared(LOCK);
    rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)
}

fn hold(file: OwnedFd) -> Result<Grant, WorkspaceError> {
    rustix::io::retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::LockExclusive))
        .map_err(no_lock)?;
    Ok(Grant { _lock: file })
}

fn no_lock(source: Errno) -> WorkspaceError {
    WorkspaceError::Kernel {
        what: "lock @admission.lock in the state root",
        source,
    }
}
