//! The limits of a document as `linux.resources` says them.

use super::Cpu;
use super::Document;
use super::Io;
use super::Memory;
use super::error::Fault;
use crate::spec::resources;
use crate::spec::resources::BlockIo;
use crate::spec::resources::Pids;
use crate::spec::resources::Resources;
use crate::spec::resources::ThrottleDevice;

/// The period that CPU limits are for, in microseconds: the kernel's own.
const PERIOD_US: u64 = 100_000;

/// Microseconds of a period in a thousandth of a CPU.
const US_PER_MILLI: u64 = PERIOD_US / 1000;

/// Adds a document's limits to resources that have their device rules.
///
/// # Errors
///
/// Rates of the root filesystem's device, where it has none.
pub(super) fn limit(
    document: &Document,
    device: Option<(i64, i64)>,
    resources: &mut Resources,
) -> Result<(), Fault> {
    resources.cpu = cpu(&document.cpu);
    resources.memory = memory(&document.memory);
    resources.block_io = block_io(&document.io, device)?;
    resources.pids = document.pids.map(|pids| Pids {
        limit: i64::try_from(pids).ok(),
    });
    let unified = &mut resources.unified;
    if let Some(high) = document.memory.high {
        unified.insert("memory.high".to_owned(), high.0.to_string());
    }
    if document.memory.limit.is_some() {
        // Half of a workspace is no workspace: when the kernel must kill, it kills all of it.
        unified.insert("memory.oom.group".to_owned(), "1".to_owned());
    }
    Ok(())
}

fn cpu(asked: &Cpu) -> Option<resources::Cpu> {
    let made = resources::Cpu {
        // OCI counts in shares of which 1024 are the usual part, as 100 are here.
        shares: asked.share.map(|share| (share * 1024 / 100).max(2)),
        quota: asked
            .limit
            .and_then(|limit| i64::try_from(limit.0 * US_PER_MILLI).ok()),
        period: asked.limit.map(|_| PERIOD_US),
        burst: asked.burst.map(|burst| burst.0 * US_PER_MILLI),
        ..resources::Cpu::default()
    };
    (made != resources::Cpu::default()).then_some(made)
}

fn memory(asked: &Memory) -> Option<resources::Memory> {
    let bytes =
        |amount: Option<super::Bytes>| amount.and_then(|amount| i64::try_from(amount.0).ok());
    let made = resources::Memory {
        limit: bytes(asked.limit),
        // Memory and swap together: no swap.
        swap: bytes(asked.limit),
        reservation: bytes(asked.reserve.filter(|reserve| reserve.0 > 0)),
        ..resources::Memory::default()
    };
    (made != resources::Memory::default()).then_some(made)
}

fn block_io(asked: &Io, device: Option<(i64, i64)>) -> Result<Option<BlockIo>, Fault> {
    let rates = [
        ("io.read.bps", asked.read.bps.map(|bps| bps.0)),
        ("io.write.bps", asked.write.bps.map(|bps| bps.0)),
        ("io.read.iops", asked.read.iops),
        ("io.write.iops", asked.write.iops),
    ];
    let mut made = BlockIo {
        weight: asked.reserve_weight,
        ..BlockIo::default()
    };
    for (key, rate) in rates {
        let Some(rate) = rate else { continue };
        let Some((major, minor)) = device else {
            let text = "the root filesystem is on no block device, so nothing can keep this rate";
            return Err(Fault::meaning(key, text));
        };
        let list = match key {
            "io.read.bps" => &mut made.throttle_read_bps_device,
            "io.write.bps" => &mut made.throttle_write_bps_device,
            "io.read.iops" => &mut made.throttle_read_iops_device,
            _ => &mut made.throttle_write_iops_device,
        };
        list.push(ThrottleDevice { major, minor, rate });
    }
    Ok((made != BlockIo::default()).then_some(made))
}
