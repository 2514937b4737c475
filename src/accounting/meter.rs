//! Looks at one workspace again and again, and adds up what no counter of the kernel holds.
//!
//! Between two looks that are `dt` apart, with a guarantee of `g` processors,
//!
//! ```text
//! hold = min(max(0, g * dt - used), waited)      waited = time with somebody runnable and not run + time throttled
//! ```
//!
//! It is the time by which the workspace fell short of its guarantee, and no more than it waited: who did not want to
//! run was not wronged. Short looks are exacter than long ones: a burst above the guarantee makes up for a lack below
//! it only within one interval, and an idle part of it hides a wait in another. The first term of `waited` counts time,
//! not processors, so of a guarantee of several at most `dt` is seen; time throttled may be in both terms. A machine waits
//! when its processors do: their delays are added up, so of those every processor's is seen.
//!
//! The sums are kept beside the record (`meter.json`), with the last look, so that a command that looks once, or a
//! meter that takes over from one that died, goes on from there.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;

use crate::accounting::AccountingError;
use crate::accounting::behalf::Attribution;
use crate::accounting::behalf::ByPackets;
use crate::accounting::behalf::Interval;
use crate::accounting::behalf::part;
use crate::accounting::energy;
use crate::accounting::moment::Moment;
use crate::accounting::reading;
use crate::accounting::reading::Look;
use crate::accounting::reading::Subject;
use crate::accounting::reading::Waited;
use crate::accounting::usage::Energy;
use crate::accounting::usage::How;
use crate::accounting::usage::Link;
use crate::accounting::usage::Machine;
use crate::accounting::usage::OnBehalf;
use crate::accounting::usage::Usage;
use crate::enclosure::Enclosure;
use crate::workspace::found::Workspace;
use crate::workspace::inside;
use crate::workspace::interfaces;
use crate::workspace::record::Record;
use crate::workspace::store::Home;

/// The file in the directory of a workspace.
const FILE: &str = "meter.json";

/// What is remembered between two looks, for one life of a workspace in one uptime of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    created: String,
    boot: String,
    host: Moment,
    used_us: u64,
    #[serde(default)]
    waited: Waited,
    network: Option<BTreeMap<String, Link>>,
    #[serde(default)]
    machine: Option<Machine>,
    #[serde(default)]
    guest_us: Option<u64>,
    hold_us: Option<u64>,
    network_softirq_us: Option<u64>,
    energy_uj: Option<u64>,
    /// The processor time with which its end was entered in the ledger.
    ended_us: Option<u64>,
}

/// The state between two looks at one workspace.
#[derive(Debug)]
pub struct Meter {
    kept: Option<Kept>,
    /// What the host had done when the workspace began, of one that nobody has looked at yet.
    begun: Option<Moment>,
    attribution: Box<dyn Attribution + Send + Sync>,
    /// Held so that the cgroup is not searched for at each look.
    enclosure: Option<Enclosure>,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            kept: None,
            begun: None,
            attribution: Box::new(ByPackets),
            enclosure: None,
        }
    }
}

impl Meter {
    /// Goes on from what the last meter of this workspace kept, or begins at its birth.
    #[must_use]
    pub fn new(workspace: &Workspace) -> Self {
        Self::resume(workspace.record(), workspace.home())
    }

    pub(super) fn resume(record: &Record, home: &Home) -> Self {
        let kept = home.read(FILE).ok().flatten();
        let kept = kept.and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
        let boot = crate::workspace::life::boot_id();
        // What has been counted is not thrown away because nobody can say whether the host was started again.
        let earlier = |then: &str| boot.as_ref().is_ok_and(|now| now != then);
        Self {
            kept: kept.filter(|kept| kept.created == record.created && !earlier(&kept.boot)),
            ..Self::default()
        }
    }

    /// Counts from that moment on, when nothing has been kept since.
    pub(super) fn since(mut self, begun: Option<Moment>) -> Self {
        self.begun = begun;
        self
    }

    /// Looks now. Nothing is written: see [`Meter::keep`].
    ///
    /// # Errors
    ///
    /// [`AccountingError::Uncounted`] when it has no cgroup of its own; [`AccountingError::Counters`] when that cannot
    /// be read.
    pub fn sample(&mut self, workspace: &Workspace) -> Result<Usage, AccountingError> {
        let enclosure = match self.enclosure.take() {
            Some(enclosure) => enclosure,
            None => workspace.enclosure()?,
        };
        let subject = Subject {
            record: workspace.record(),
            enclosure: &enclosure,
            interfaces: interfaces::counted(workspace.home().path(), workspace.record()),
            machine: inside::counted(workspace.home(), workspace.record(), &enclosure),
            term: reading::term(workspace.home()),
        };
        let usage = self.look(&subject)?;
        self.enclosure = Some(enclosure);
        Ok(usage)
    }

    /// Writes the sums and the last look beside the record.
    ///
    /// # Errors
    ///
    /// [`AccountingError::Keep`].
    pub fn keep(&self, workspace: &Workspace) -> Result<(), AccountingError> {
        self.keep_in(workspace.home(), workspace.record())
    }

    pub(super) fn keep_in(&self, home: &Home, record: &Record) -> Result<(), AccountingError> {
        let failed = |source| AccountingError::Keep {
            id: record.id.to_string(),
            source,
        };
        let Some(kept) = &self.kept else {
            return Ok(());
        };
        let bytes = serde_json::to_vec(kept).map_err(|error| failed(error.into()))?;
        home.write(FILE, &bytes)
            .map_err(|error| failed(error.into()))
    }

    /// Looks now at what is given.
    pub(super) fn look(&mut self, subject: &Subject<'_>) -> Result<Usage, AccountingError> {
        let look = reading::read(subject)?;
        let kept = self.go_on(&look, Moment::look());
        let mut usage = look.usage;
        // Interfaces go with the last process; what they said last still holds.
        usage.network.clone_from(&kept.network);
        // So do a machine's counters.
        usage.machine = kept.machine;
        usage.cpu.roles.workload.guest_us = kept.guest_us;
        usage.cpu.hold_ms = kept.hold_us.map(|hold| hold / 1000);
        usage.cpu.on_behalf = OnBehalf {
            how: match kept.network_softirq_us {
                Some(_) => self.attribution.how(),
                None => How::Unavailable,
            },
            us: kept.network_softirq_us,
            network_softirq_us: kept.network_softirq_us,
        };
        usage.energy = kept.energy_uj.map(|package_uj| Energy {
            how: How::Estimated,
            package_uj,
        });
        self.kept = Some(kept);
        Ok(usage)
    }

    /// The sums up to now.
    fn go_on(&self, look: &Look, host: Moment) -> Kept {
        let usage = &look.usage;
        let born = || birth(look, &host, self.begun.clone());
        let begun = self.kept.clone().unwrap_or_else(born);
        let waited = look.waited.since(begun.waited);
        let used = usage.cpu.total_us.saturating_sub(begun.used_us);
        let dt = host.clock_us.saturating_sub(begun.host.clock_us);
        let hold = waited.map(|waited| hold_us(look.asked.guarantee.cpu_milli, dt, used, waited));
        let network = usage.network.clone().or(begun.network.clone());
        let softirq = network.as_ref().and_then(|links| {
            let before = begun.network.as_ref().map(packets).unwrap_or_default();
            self.attribution.network_softirq_us(&Interval {
                before: &begun.host,
                now: &host,
                packets: packets(links).saturating_sub(before),
            })
        });
        let energy = energy::between(&begun.host.energy, &host.energy);
        let busy = host.busy_us.zip(begun.host.busy_us);
        let energy = energy
            .zip(busy)
            .map(|(taken, (now, before))| part(taken, used, now.saturating_sub(before)));
        let add = |sum: Option<u64>, more: Option<u64>| match (sum, more) {
            (sum, None) => sum,
            (sum, Some(more)) => Some(sum.unwrap_or_default() + more),
        };
        Kept {
            created: usage.created.clone(),
            boot: usage.boot.clone(),
            host,
            used_us: usage.cpu.total_us,
            waited: look.waited,
            network,
            machine: usage.machine.or(begun.machine),
            guest_us: usage.cpu.roles.workload.guest_us.or(begun.guest_us),
            hold_us: add(begun.hold_us, hold),
            network_softirq_us: add(begun.network_softirq_us, softirq),
            energy_uj: add(begun.energy_uj, energy),
            ended_us: begun.ended_us,
        }
    }

    /// Whether its end was entered already, with this figure.
    pub(super) fn has_ended_with(&self, total_us: u64) -> bool {
        let ended = self.kept.as_ref().and_then(|kept| kept.ended_us);
        ended == Some(total_us)
    }

    /// Begins at the birth of a workspace: its interfaces, if it will have any, have carried nothing. Of one that has run
    /// since a known moment they have carried what they say.
    pub(super) fn begin(&mut self, subject: &Subject<'_>) -> Result<Usage, AccountingError> {
        let usage = self.look(subject)?;
        if let Some(kept) = self.kept.as_mut().filter(|_| self.begun.is_none()) {
            kept.network = None;
        }
        Ok(usage)
    }

    pub(super) fn note_end(&mut self, total_us: u64) {
        if let Some(kept) = &mut self.kept {
            kept.ended_us = Some(total_us);
        }
    }
}

/// What nobody has looked at yet began with nothing: when the host was as is said, or as long ago as it was made, and then
/// nothing is known of the host at that time any more.
fn birth(look: &Look, host: &Moment, begun: Option<Moment>) -> Kept {
    Kept {
        host: begun.unwrap_or_else(|| unseen(look, host)),
        waited: Waited {
            delay_us: look.waited.delay_us.map(|_| 0),
            pressure_us: look.waited.pressure_us.map(|_| 0),
        },
        ..Kept::default()
    }
}

/// The moment when a workspace was made, of which only the time is known.
fn unseen(look: &Look, host: &Moment) -> Moment {
    let usage = &look.usage;
    let parsed = |text: &str| humantime::parse_rfc3339(text).ok();
    let span = parsed(&usage.at).zip(parsed(&usage.created));
    let age = span.and_then(|(at, created)| at.duration_since(created).ok());
    let age_us = u64::try_from(age.unwrap_or_default().as_micros()).unwrap_or_default();
    Moment {
        clock_us: host.clock_us.saturating_sub(age_us),
        ..Moment::default()
    }
}

/// Packets of all interfaces in both directions.
fn packets(links: &BTreeMap<String, Link>) -> u64 {
    links
        .values()
        .map(|link| link.in_packets + link.out_packets)
        .sum()
}

/// The formula at the top of this file; `cpu_milli` is the guarantee in thousandths of a processor.
fn hold_us(cpu_milli: u64, dt_us: u64, used_us: u64, waited_us: u64) -> u64 {
    let guaranteed = dt_us.saturating_mul(cpu_milli) / 1000;
    guaranteed.saturating_sub(used_us).min(waited_us)
}

/// Looks at a workspace once, going on from what its meter has kept. Nothing is written.
///
/// # Errors
///
/// As [`Meter::sample`].
pub fn sample(workspace: &Workspace) -> Result<Usage, AccountingError> {
    Meter::new(workspace).sample(workspace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_gets_the_guarantee_is_not_held_however_long_it_waits() {
        assert_eq!(hold_us(250, 10_000_000, 2_500_000, 7_000_000), 0);
        assert_eq!(hold_us(0, 10_000_000, 0, 10_000_000), 0);
    }

    #[test]
    fn what_is_missing_of_the_guarantee_is_held_as_far_as_it_was_waited_for() {
        assert_eq!(hold_us(500, 10_000_000, 2_000_000, 9_000_000), 3_000_000);
        assert_eq!(hold_us(500, 10_000_000, 2_000_000, 1_000_000), 1_000_000);
    }

    #[test]
    fn whoever_does_not_want_to_run_is_not_held() {
        assert_eq!(hold_us(1000, 10_000_000, 0, 0), 0);
    }
}
