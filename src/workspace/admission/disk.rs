//! Keeps what is promised of disks: whoever shares one with somebody who was promised some of it is weighed for it.
//!
//! As with the CPU a promise is a floor and the rest goes by the shares (`blockIO.weight`). It is the time of the disk
//! that is divided: what is promised of reading and of writing takes its part of it by what the disk can do of each.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;

use crate::enclosure::pool::Pool;
use crate::host::disk;
use crate::host::disk::Weigher;
use crate::plan::admission::Amounts;
use crate::plan::admission::Capacity;
use crate::plan::entitlement;
use crate::plan::entitlement::Member;
use crate::workspace::admission;
use crate::workspace::admission::Living;
use crate::workspace::error::WorkspaceError;

/// A disk's time is counted in so many parts.
const WHOLE: u64 = 1_000_000_000;
/// The files of weights that there may be.
const FILES: [&str; 2] = ["io.weight", "io.bfq.weight"];

/// Refuses a promise of a disk that nothing weighs.
pub(super) fn refuse_unweighed(
    amounts: &Amounts,
    mount: Option<&Path>,
) -> Result<(), WorkspaceError> {
    let unweighed =
        disks(amounts).find(|disk| mount.is_none_or(|mount| Weigher::of(disk, mount).is_none()));
    let Some(disk) = unweighed else {
        return Ok(());
    };
    let name = disk::name(disk).unwrap_or_else(|| disk.to_owned());
    Err(WorkspaceError::UnweighedDisk {
        disk: disk.to_owned(),
        scheduler: disk::scheduler(disk).unwrap_or_else(|| "none".to_owned()),
        name,
    })
}

fn disks(amounts: &Amounts) -> impl Iterator<Item = &str> {
    amounts.keys().filter_map(|resource| resource.disk())
}

/// Weighs those who live for every disk of which anything is promised, and takes back the weights for all others.
pub(super) fn weigh(
    living: &[Living],
    pools: &mut BTreeMap<PathBuf, (Pool, u64)>,
    capacity: &Capacity,
    mount: Option<&Path>,
) -> Result<(), WorkspaceError> {
    let mut held = Vec::new();
    for one in living {
        held.push(admission::wanted(&one.asked, &one.record).unwrap_or_default());
    }
    let promised: BTreeSet<&str> = held.iter().flat_map(disks).collect();
    let weighed: BTreeMap<&str, Weigher> = promised
        .into_iter()
        .filter_map(|disk| Some((disk, Weigher::of(disk, mount?)?)))
        .collect();
    for (disk, weigher) in &weighed {
        let parts = held
            .iter()
            .map(|amounts| capacity.part_of_disk(disk, amounts, WHOLE));
        let parts: Vec<u64> = parts.collect();
        weigh_one((disk, *weigher), living, &parts, (pools, capacity))?;
    }
    for (pool, _) in pools.values_mut() {
        for file in FILES {
            let stale = pool.disks(file).into_iter();
            let stale = stale.filter(|disk| {
                weighed
                    .get(disk.as_str())
                    .is_none_or(|weigher| weigher.file() != file)
            });
            for disk in stale.collect::<Vec<String>>() {
                take_back(&disk, file, living, pool)?;
            }
        }
    }
    Ok(())
}

fn weigh_one(
    (disk, weigher): (&str, Weigher),
    living: &[Living],
    parts: &[u64],
    (pools, capacity): (&mut BTreeMap<PathBuf, (Pool, u64)>, &Capacity),
) -> Result<(), WorkspaceError> {
    let members = living.iter().zip(parts).map(|(one, part)| Member {
        reserve: *part,
        share: one.record.disk_shares.on(disk),
    });
    let members: Vec<Member> = members.collect();
    let (file, greatest) = (weigher.file(), weigher.greatest());
    let weights = entitlement::weights_up_to(greatest, WHOLE, &members);
    let entitled = entitlement::entitlements(WHOLE, &members);
    for (one, weight) in living.iter().zip(weights) {
        if let Some(mut enclosure) = admission::open(one)? {
            enclosure.settle_disk(disk, file, Some(weight))?;
        }
    }
    let kept = capacity.kept_of_disk(disk, WHOLE);
    for (path, (pool, _)) in pools {
        let inside = living.iter().zip(&entitled).filter(|(one, _)| {
            let own = one.record.place.pool();
            own.is_some_and(|own| own == path.as_path())
        });
        let sum = inside.map(|(_, entitled)| entitled).sum();
        let beside = pool.neighbours_on(disk, file)?;
        let weight = match beside {
            0 => entitlement::USUAL,
            beside => entitlement::against(beside, sum, kept).min(greatest),
        };
        pool.settle_disk(disk, file, Some(weight))?;
    }
    Ok(())
}

/// Nothing of a disk is promised any more: the workspaces' own shares count again. The pool comes last, since its line
/// is what tells that there is something to take back.
fn take_back(
    disk: &str,
    file: &str,
    living: &[Living],
    pool: &mut Pool,
) -> Result<(), WorkspaceError> {
    for one in living {
        let own = one.record.place.pool();
        if own.is_none_or(|own| own != pool.path()) {
            continue;
        }
        if let Some(mut enclosure) = admission::open(one)? {
            enclosure.settle_disk(disk, file, one.record.disk_shares.said_of(disk, file))?;
        }
    }
    Ok(pool.settle_disk(disk, file, None)?)
}
