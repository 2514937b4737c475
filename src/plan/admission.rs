//! Whether what a workspace asks to be promised is still there: capacity, less what the host keeps, less what others
//! hold.
//!
//! Only promises are counted here, not use: what is promised and idle may be used by others meanwhile. Nothing is asked
//! of the machine; who holds what, and what the machine has, come in as values.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::path::PathBuf;

use crate::spec::asked::Asked;
use crate::spec::asked::Network;
use crate::spec::quantity;

/// How many holders a refusal names.
const NAMED: usize = 5;

/// Something that can be promised.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// Thousandths of a CPU.
    Cpu,
    /// Bytes of memory.
    Memory,
    /// Bytes per second from a disk (`8:0`).
    Read(String),
    /// Bytes per second to a disk.
    Write(String),
    /// Bits per second that the workspaces of a network receive together.
    Inward(String),
    /// Bits per second that they send together.
    Outward(String),
}

/// How much of which resources.
pub type Amounts = BTreeMap<Resource, u64>;

/// What a machine has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capacity {
    /// All of it.
    pub total: Amounts,
    /// What is promised to nobody.
    pub host: Amounts,
    /// What a network carries in each direction, where `total` does not have it.
    pub usual_network: Option<u64>,
    /// The file in which its administrator says what cannot be found out.
    pub file: PathBuf,
}

/// A workspace and what it was promised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its name.
    pub id: String,
    /// What it holds.
    pub amounts: Amounts,
    /// Of the memory that it holds, what its machine takes beyond its workload, in bytes.
    pub machine_bytes: u64,
}

/// A promise cannot be made. One line for each resource that is short.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct Refusal(Vec<String>);

impl Resource {
    /// The annotation that asks for it, without the prefix.
    #[must_use]
    pub fn key(&self) -> &'static str {
        match self {
            Self::Cpu => "cpu.reserve",
            Self::Memory => "memory.reserve",
            Self::Read(_) => "io.read.reserve",
            Self::Write(_) => "io.write.reserve",
            Self::Inward(_) => "network.in.reserve",
            Self::Outward(_) => "network.out.reserve",
        }
    }

    /// The disk that it is of.
    #[must_use]
    pub fn disk(&self) -> Option<&str> {
        match self {
            Self::Read(disk) | Self::Write(disk) => Some(disk),
            Self::Cpu | Self::Memory | Self::Inward(_) | Self::Outward(_) => None,
        }
    }

    /// The other thing that a disk can do meanwhile, or rather cannot: it reads, or it writes.
    fn other_way(&self) -> Option<Self> {
        match self {
            Self::Read(disk) => Some(Self::Write(disk.clone())),
            Self::Write(disk) => Some(Self::Read(disk.clone())),
            Self::Cpu | Self::Memory | Self::Inward(_) | Self::Outward(_) => None,
        }
    }

    /// An amount of it in words, without the noun: `0.25`, `512M`, `10mbit`.
    #[must_use]
    pub fn amount(&self, amount: u64) -> String {
        match self {
            Self::Cpu => quantity::cpus_text(amount),
            Self::Memory => scaled(amount, 1024, &["", "K", "M", "G", "T", "P"]),
            Self::Read(_) | Self::Write(_) => {
                scaled(amount, 1024, &["", "K", "M", "G", "T", "P"]) + "/s"
            }
            Self::Inward(_) | Self::Outward(_) => {
                scaled(amount, 1000, &["bit", "kbit", "mbit", "gbit"])
            }
        }
    }

    /// The section and the key of the host's file that say how much there is of it, for what cannot be found out.
    fn entry(&self) -> Option<(String, &'static str, &'static str)> {
        match self {
            Self::Cpu | Self::Memory => None,
            Self::Read(disk) => Some((format!("[disk.{disk:?}]"), "read", "\"200M\"")),
            Self::Write(disk) => Some((format!("[disk.{disk:?}]"), "write", "\"100M\"")),
            Self::Inward(network) => Some((format!("[network.{network}]"), "in", "\"1gbit\"")),
            Self::Outward(network) => Some((format!("[network.{network}]"), "out", "\"1gbit\"")),
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => write!(out, "cpu"),
            Self::Memory => write!(out, "memory"),
            Self::Read(disk) => write!(out, "disk {disk} read"),
            Self::Write(disk) => write!(out, "disk {disk} write"),
            Self::Inward(network) => write!(out, "network {network} in"),
            Self::Outward(network) => write!(out, "network {network} out"),
        }
    }
}

impl Capacity {
    /// All that there is of a resource.
    #[must_use]
    pub fn all(&self, resource: &Resource) -> Option<u64> {
        let usual = match resource {
            Resource::Inward(_) | Resource::Outward(_) => self.usual_network,
            Resource::Cpu | Resource::Memory | Resource::Read(_) | Resource::Write(_) => None,
        };
        self.total.get(resource).copied().or(usual)
    }

    /// What may be promised at all.
    #[must_use]
    pub fn promisable(&self, resource: &Resource) -> Option<u64> {
        let total = self.all(resource)?;
        let kept = self.host.get(resource).copied().unwrap_or_default();
        Some(total.saturating_sub(kept))
    }

    /// What is not promised yet.
    #[must_use]
    pub fn free(&self, resource: &Resource, holders: &[Holder]) -> Option<u64> {
        let held = resource.other_way().map(|other| granted(&other, holders));
        self.beside(resource, holders, held.unwrap_or_default())
    }

    /// The same, when so much of the disk's other way is promised.
    fn beside(&self, resource: &Resource, holders: &[Holder], other: u64) -> Option<u64> {
        let free = self
            .promisable(resource)?
            .saturating_sub(granted(resource, holders));
        Some(free.saturating_sub(self.as_much_as(resource, other)))
    }

    /// What a disk could have done of `resource` in the time that `amount` of its other way takes.
    fn as_much_as(&self, resource: &Resource, amount: u64) -> u64 {
        let other = resource.other_way();
        let other = other.and_then(|other| self.promisable(&other));
        let (Some(all), Some(other)) = (self.promisable(resource), other) else {
            return 0;
        };
        let exact = u128::from(all) * u128::from(amount);
        u64::try_from(exact.div_ceil(u128::from(other).max(1))).unwrap_or(u64::MAX)
    }

    /// The part of a disk's time that amounts of it take, in parts of `whole`.
    #[must_use]
    pub fn part_of_disk(&self, disk: &str, amounts: &Amounts, whole: u64) -> u64 {
        let ways = [
            Resource::Read(disk.to_owned()),
            Resource::Write(disk.to_owned()),
        ];
        let parts = ways.iter().filter_map(|way| {
            let all = u128::from(self.promisable(way)?).max(1);
            let amount = u128::from(*amounts.get(way)?);
            u64::try_from(u128::from(whole) * amount / all).ok()
        });
        parts.fold(0, u64::saturating_add)
    }

    /// What the host keeps of a disk, where what is promisable of it is `whole`.
    #[must_use]
    pub fn kept_of_disk(&self, disk: &str, whole: u64) -> u64 {
        let ways = [
            Resource::Read(disk.to_owned()),
            Resource::Write(disk.to_owned()),
        ];
        let known = ways.iter().find_map(|way| {
            let kept = u128::from(*self.host.get(way)?);
            let all = u128::from(self.promisable(way)?).max(1);
            u64::try_from(u128::from(whole) * kept / all).ok()
        });
        known.unwrap_or_default()
    }
}

/// What a workspace asks to be promised; `disk` is the one that its root filesystem is on.
#[must_use]
pub fn request(asked: &Asked, disk: Option<&str>) -> Amounts {
    let disk = disk.unwrap_or("unknown").to_owned();
    let guarantee = &asked.guarantee;
    let mut amounts = Amounts::from([
        (Resource::Cpu, guarantee.cpu_milli),
        (Resource::Memory, guarantee.memory_bytes),
        (Resource::Read(disk.clone()), guarantee.read_bps),
        (Resource::Write(disk), guarantee.write_bps),
    ]);
    if let Some(Network::Bridge(bridged)) = &asked.network {
        let (inward, outward) = (bridged.inward.reserve_bps, bridged.outward.reserve_bps);
        let name = bridged.bridge.clone();
        amounts.insert(Resource::Inward(name.clone()), inward.unwrap_or_default());
        amounts.insert(Resource::Outward(name), outward.unwrap_or_default());
    }
    amounts.retain(|_, amount| *amount > 0);
    amounts
}

/// All that is promised of a resource.
#[must_use]
pub fn granted(resource: &Resource, holders: &[Holder]) -> u64 {
    let held = holders
        .iter()
        .filter_map(|holder| holder.amounts.get(resource));
    held.fold(0, |sum, amount| sum.saturating_add(*amount))
}

/// Whether `request` can be promised beside what `holders` hold.
///
/// # Errors
///
/// [`Refusal`] names each resource that is short, what is free, and who holds it.
pub fn admit(request: &Amounts, capacity: &Capacity, holders: &[Holder]) -> Result<(), Refusal> {
    let short = request.iter().filter_map(|(resource, asked)| {
        let other = resource.other_way().map_or(0, |other| {
            let own = request.get(&other).copied().unwrap_or_default();
            own.saturating_add(granted(&other, holders))
        });
        let Some(free) = capacity.beside(resource, holders, other) else {
            return Some(unknown(resource, *asked, &capacity.file));
        };
        let taken = capacity.as_much_as(resource, other);
        (*asked > free).then(|| shortage(resource, (*asked, free, taken), capacity, holders))
    });
    let short: Vec<String> = short.collect();
    if short.is_empty() {
        Ok(())
    } else {
        Err(Refusal(short))
    }
}

fn unknown(resource: &Resource, asked: u64, file: &Path) -> String {
    let (key, asked) = (resource.key(), resource.amount(asked));
    match resource.entry() {
        Some((section, entry, example)) => format!(
            "{key}: {asked} asked, and how much there is cannot be found out: \
             say {entry} = {example}, or what it is, under {section} in {}",
            file.display()
        ),
        None => format!("{key}: {asked} asked, and the kernel does not say how much there is"),
    }
}

/// `taken` is what the disk cannot do because it does what is promised of its other way.
fn shortage(
    resource: &Resource,
    (asked, free, taken): (u64, u64, u64),
    capacity: &Capacity,
    holders: &[Holder],
) -> String {
    let noun = match (resource, asked) {
        (Resource::Cpu, 1000) => " CPU",
        (Resource::Cpu, _) => " CPUs",
        _ => "",
    };
    let words = |amount: Option<u64>| resource.amount(amount.unwrap_or_default());
    let other = match (resource, taken) {
        (_, 0) => String::new(),
        (Resource::Read(_), _) => format!("writing takes {}; ", resource.amount(taken)),
        _ => format!("reading takes {}; ", resource.amount(taken)),
    };
    format!(
        "{}: {}{noun} asked, {} free of {} ({} kept for the host; {other}{})",
        resource.key(),
        resource.amount(asked),
        resource.amount(free),
        words(capacity.all(resource)),
        words(capacity.host.get(resource).copied()),
        held_by(resource, holders),
    )
}

/// Who holds a resource, the greatest first.
fn held_by(resource: &Resource, holders: &[Holder]) -> String {
    let mut held: Vec<(u64, &str)> = holders
        .iter()
        .filter_map(|holder| Some((*holder.amounts.get(resource)?, holder.id.as_str())))
        .collect();
    held.sort_by(|one, other| other.0.cmp(&one.0).then(one.1.cmp(other.1)));
    let mut words: Vec<String> = Vec::new();
    for (index, (amount, id)) in held.iter().take(NAMED).enumerate() {
        let verb = if index == 0 { " holds" } else { "" };
        words.push(format!("{id}{verb} {}", resource.amount(*amount)));
    }
    if let Some(others) = held.get(NAMED..).filter(|others| !others.is_empty()) {
        let sum = others.iter().map(|(amount, _)| amount).sum();
        words.push(format!("{} others {}", others.len(), resource.amount(sum)));
    }
    if words.is_empty() {
        "nobody holds any".to_owned()
    } else {
        words.join(", ")
    }
}

/// A number with the largest unit that it has at least one of, and at most two decimals, not rounded up.
fn scaled(amount: u64, step: u64, units: &[&str]) -> String {
    let mut unit = 0;
    let mut factor = 1u64;
    while unit + 1 < units.len() && amount / factor >= step {
        factor = factor.saturating_mul(step);
        unit += 1;
    }
    let hundredths = u128::from(amount % factor) * 100 / u128::from(factor);
    let part = format!("{hundredths:02}");
    let part = part.trim_end_matches('0');
    let point = if part.is_empty() { "" } else { "." };
    format!("{}{point}{part}{}", amount / factor, units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Capacity {
        Capacity {
            total: [
                (Resource::Cpu, 2000),
                (Resource::Memory, 4 << 30),
                (Resource::Inward("lan".to_owned()), 1_000_000_000),
            ]
            .into(),
            host: [(Resource::Cpu, 100), (Resource::Memory, 256 << 20)].into(),
            usual_network: None,
            file: "/etc/bulkhead/host.toml".into(),
        }
    }

    fn holder(id: &str, resource: Resource, amount: u64) -> Holder {
        Holder {
            id: id.to_owned(),
            amounts: [(resource, amount)].into(),
            machine_bytes: 0,
        }
    }

    fn refused(resource: Resource, amount: u64, holders: &[Holder]) -> String {
        let refusal = admit(&[(resource, amount)].into(), &machine(), holders);
        refusal.unwrap_err().to_string()
    }

    #[test]
    fn a_refusal_says_what_is_free_and_who_holds_the_rest() {
        let holders = [
            holder("web", Resource::Cpu, 150),
            holder("compile", Resource::Cpu, 1000),
            holder("other", Resource::Memory, 1 << 30),
        ];
        assert_eq!(
            refused(Resource::Cpu, 1500, &holders),
            "cpu.reserve: 1.5 CPUs asked, 0.75 free of 2 (0.1 kept for the host; compile holds 1, web 0.15)"
        );
        assert_eq!(
            refused(Resource::Memory, 3 << 30, &holders),
            "memory.reserve: 3G asked, 2.75G free of 4G (256M kept for the host; other holds 1G)"
        );
    }

    #[test]
    fn what_is_free_can_be_had_to_the_last() {
        let holders = [holder("web", Resource::Cpu, 150)];
        let all = machine().free(&Resource::Cpu, &holders).unwrap();
        assert_eq!(all, 1750);
        assert_eq!(
            admit(&[(Resource::Cpu, all)].into(), &machine(), &holders),
            Ok(())
        );
        assert!(admit(&[(Resource::Cpu, all + 1)].into(), &machine(), &holders).is_err());
    }

    #[test]
    fn only_the_greatest_holders_are_named() {
        let holders: Vec<Holder> = (1..=8)
            .map(|number| holder(&format!("w{number}"), Resource::Cpu, number * 10))
            .collect();
        assert_eq!(
            refused(Resource::Cpu, 2000, &holders),
            "cpu.reserve: 2 CPUs asked, 1.54 free of 2 (0.1 kept for the host; \
             w8 holds 0.08, w7 0.07, w6 0.06, w5 0.05, w4 0.04, 3 others 0.06)"
        );
        assert!(refused(Resource::Cpu, 2000, &[]).ends_with("nobody holds any)"));
    }

    #[test]
    fn what_nobody_has_measured_is_refused_with_the_way_out() {
        assert_eq!(
            refused(Resource::Read("8:0".to_owned()), 50 << 20, &[]),
            "io.read.reserve: 50M/s asked, and how much there is cannot be found out: say read = \
             \"200M\", or what it is, under [disk.\"8:0\"] in /etc/bulkhead/host.toml"
        );
        assert!(refused(Resource::Outward("lan".to_owned()), 8000, &[]).contains("[network.lan]"));
    }

    #[test]
    fn a_disk_that_writes_does_not_read_meanwhile() {
        let (read, write) = (
            Resource::Read("8:0".to_owned()),
            Resource::Write("8:0".to_owned()),
        );
        let disk = Capacity {
            total: [(read.clone(), 200 << 20), (write.clone(), 100 << 20)].into(),
            ..machine()
        };
        let half = [holder("db", write.clone(), 50 << 20)];
        assert_eq!(disk.free(&read, &half), Some(100 << 20));
        let both = [(read.clone(), 60 << 20), (write.clone(), 30 << 20)].into();
        let text = admit(&both, &disk, &half).unwrap_err().to_string();
        assert_eq!(
            text,
            "io.read.reserve: 60M/s asked, 40M/s free of 200M/s (0/s kept for the host; writing takes 160M/s; \
             nobody holds any); io.write.reserve: 30M/s asked, 20M/s free of 100M/s (0/s kept for the host; \
             reading takes 30M/s; db holds 50M/s)"
        );
        let both = [(read, 60 << 20), (write, 20 << 20)].into();
        assert_eq!(admit(&both, &disk, &half), Ok(()));
        assert_eq!(disk.part_of_disk("8:0", &both, 1000), 500);
    }

    #[test]
    fn a_network_of_which_nobody_says_anything_has_the_usual_rate() {
        let usual = Capacity {
            usual_network: Some(1_000_000),
            ..machine()
        };
        let of = |name: &str| Resource::Inward(name.to_owned());
        assert_eq!(usual.free(&of("other"), &[]), Some(1_000_000));
        assert_eq!(usual.free(&of("lan"), &[]), Some(1_000_000_000));
    }

    #[test]
    fn every_shortage_is_told_at_once() {
        let request = [(Resource::Cpu, 3000), (Resource::Memory, 8 << 30)].into();
        let text = admit(&request, &machine(), &[]).unwrap_err().to_string();
        assert!(text.contains("cpu.reserve: 3 CPUs") && text.contains("; memory.reserve: 8G"));
    }

    #[test]
    fn what_is_asked_for_is_read_from_the_annotations_and_nothing_is_no_request() {
        let annotations = [
            ("cpu.reserve", "0.25"),
            ("io.read.reserve", "1M"),
            ("network", "lan"),
            ("network.in.reserve", "10mbit"),
        ];
        let annotations = annotations
            .map(|(key, value)| (format!("dev.bulkhead.{key}"), value.to_owned()))
            .into();
        let asked = Asked::of(&annotations).unwrap();
        assert_eq!(
            request(&asked, Some("8:0")),
            [
                (Resource::Cpu, 250),
                (Resource::Read("8:0".to_owned()), 1 << 20),
                (Resource::Inward("lan".to_owned()), 10_000_000),
            ]
            .into()
        );
        assert!(request(&Asked::default(), None).is_empty());
    }

    #[test]
    fn amounts_are_written_with_the_units_that_they_are_asked_in() {
        assert_eq!(Resource::Memory.amount(0), "0");
        assert_eq!(Resource::Memory.amount(1_610_612_736), "1.5G");
        assert_eq!(Resource::Inward(String::new()).amount(2_500_000), "2.5mbit");
        assert_eq!(Resource::Write(String::new()).amount(1 << 20), "1M/s");
        assert_eq!(Resource::Memory.amount(u64::MAX), "16383.99P");
    }
}
