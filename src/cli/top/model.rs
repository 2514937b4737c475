//! What the live table says: rates between two looks, sorted as was asked for. Nothing here draws or reads.

use std::cmp::Ordering;
use std::time::Instant;

use crate::accounting::Usage;
use crate::accounting::usage::Device;
use crate::accounting::usage::Link;
use crate::accounting::usage::Pressure;
use crate::cli::figures;
use crate::spec::state::Status;

/// One look at one workspace.
#[derive(Debug, Clone)]
pub(super) struct Looked {
    pub(super) id: String,
    pub(super) at: Instant,
    pub(super) status: Status,
    /// None when nothing counts what it uses.
    pub(super) usage: Option<Usage>,
}

impl Looked {
    /// What tells it from an earlier workspace of the same name.
    fn life(&self) -> (&str, Option<&str>) {
        let created = self.usage.as_ref().map(|usage| usage.created.as_str());
        (&self.id, created)
    }
}

/// What can be sorted by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Column {
    Name,
    #[default]
    Cpu,
    Hold,
    Memory,
    Io,
    Network,
    Pressure,
    Lease,
}

impl Column {
    pub(super) const ALL: [Self; 8] = [
        Self::Name,
        Self::Cpu,
        Self::Hold,
        Self::Memory,
        Self::Io,
        Self::Network,
        Self::Pressure,
        Self::Lease,
    ];

    /// The key that sorts by it.
    pub(super) fn key(self) -> char {
        match self {
            Self::Name => 'a',
            Self::Cpu => 'c',
            Self::Hold => 'h',
            Self::Memory => 'm',
            Self::Io => 'i',
            Self::Network => 'n',
            Self::Pressure => 'p',
            Self::Lease => 'l',
        }
    }

    /// What it is called beside its key.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Cpu => "cpu",
            Self::Hold => "hold",
            Self::Memory => "mem",
            Self::Io => "io",
            Self::Network => "net",
            Self::Pressure => "psi",
            Self::Lease => "lease",
        }
    }
}

/// One line: what is known of a workspace now, and how fast it uses more.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) status: Status,
    /// Thousandths of a processor.
    pub(super) cpu_milli: Option<u64>,
    /// Milliseconds below the guarantee since the beginning.
    pub(super) hold_ms: Option<u64>,
    pub(super) memory_bytes: Option<u64>,
    /// Bytes per second.
    pub(super) read: Option<u64>,
    pub(super) written: Option<u64>,
    pub(super) received: Option<u64>,
    pub(super) sent: Option<u64>,
    /// Percent of the last ten seconds in which somebody waited for a processor, memory and block devices.
    pub(super) pressure: [Option<u64>; 3],
    pub(super) lease_s: Option<u64>,
}

/// The whole table.
#[derive(Debug, Default)]
pub(super) struct Table {
    before: Vec<Looked>,
    rows: Vec<Row>,
    pub(super) sorted: Column,
    reversed: bool,
    /// How many rows are above what is shown.
    pub(super) skipped: usize,
}

impl Table {
    /// Takes the next look at everything.
    pub(super) fn look(&mut self, now: Vec<Looked>) {
        let before = std::mem::take(&mut self.before);
        let row = |now: &Looked| {
            let mut old = before.iter();
            row(old.find(|old| old.life() == now.life()), now)
        };
        self.rows = now.iter().map(row).collect();
        self.before = now;
        self.sort();
    }

    /// Sorts by a column, the greatest first; names and what is left of a lease the least first.
    pub(super) fn sort_by(&mut self, column: Column) {
        (self.sorted, self.reversed) = (column, false);
        self.sort();
    }

    /// Turns the order around.
    pub(super) fn reverse(&mut self) {
        self.reversed = !self.reversed;
        self.sort();
    }

    /// Shows rows further down, or up.
    pub(super) fn scroll(&mut self, by: isize) {
        let last = self.rows.len().saturating_sub(1);
        self.skipped = self.skipped.saturating_add_signed(by).min(last);
    }

    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    fn sort(&mut self) {
        let (column, reversed) = (self.sorted, self.reversed);
        self.rows.sort_by(|one, other| {
            let order = compare(column, one, other);
            let order = if reversed { order.reverse() } else { order };
            order.then_with(|| one.id.cmp(&other.id))
        });
        self.scroll(0);
    }
}

fn compare(column: Column, one: &Row, other: &Row) -> Ordering {
    let most = |of: fn(&Row) -> Option<u64>| of(other).cmp(&of(one));
    let sum = |one: Option<u64>, other: Option<u64>| match (one, other) {
        (None, None) => None,
        _ => Some(one.unwrap_or_default() + other.unwrap_or_default()),
    };
    match column {
        Column::Name => one.id.cmp(&other.id),
        Column::Cpu => most(|row| row.cpu_milli),
        Column::Hold => most(|row| row.hold_ms),
        Column::Memory => most(|row| row.memory_bytes),
        Column::Io => sum(other.read, other.written).cmp(&sum(one.read, one.written)),
        Column::Network => sum(other.received, other.sent).cmp(&sum(one.received, one.sent)),
        Column::Pressure => most(|row| row.pressure.iter().copied().max().flatten()),
        Column::Lease => {
            let left = |row: &Row| row.lease_s.unwrap_or(u64::MAX);
            left(one).cmp(&left(other))
        }
    }
}

/// What happened per second between two looks; nothing is known of a first one.
fn row(before: Option<&Looked>, now: &Looked) -> Row {
    let usage = now.usage.as_ref();
    let rate = |figure: &dyn Fn(&Usage) -> Option<u64>| {
        let old = before?;
        let more = figure(usage?)?.saturating_sub(figure(old.usage.as_ref()?)?);
        let span = now.at.duration_since(old.at).as_micros();
        let per_second = u128::from(more) * 1_000_000 / span.max(1);
        u64::try_from(per_second).ok()
    };
    let device = |figure: fn(&Device) -> u64| rate(&move |usage| usage.of_devices(figure));
    let link = |figure: fn(&Link) -> u64| rate(&move |usage| usage.of_links(figure));
    let pressures = usage.map(|usage| &usage.pressure);
    let pressure = pressures.map(|all| [&all.cpu, &all.memory, &all.io]);
    let pressure = pressure.map(|all| all.map(|one| one.as_ref().map(percent)));
    Row {
        id: now.id.clone(),
        status: now.status,
        cpu_milli: rate(&|usage| Some(usage.cpu.total_us)).map(|us| us / 1000),
        hold_ms: usage.and_then(|usage| usage.cpu.hold_ms),
        memory_bytes: usage.and_then(|usage| Some(usage.memory.as_ref()?.current_bytes)),
        read: device(|device| device.read_bytes),
        written: device(|device| device.written_bytes),
        received: link(|link| link.in_bytes),
        sent: link(|link| link.out_bytes),
        pressure: pressure.unwrap_or_default(),
        lease_s: usage.and_then(|usage| Some(usage.lease.as_ref()?.remaining_s)),
    }
}

/// Whole percents.
fn percent(pressure: &Pressure) -> u64 {
    let text = format!("{:.0}", pressure.some_avg10_percent);
    text.parse().unwrap_or_default()
}

impl Row {
    /// The line as cells, in the order of the heading.
    pub(super) fn cells(&self) -> [String; 11] {
        let percent = |milli: u64| format!("{}.{}", milli / 10, milli % 10);
        let hold = self.hold_ms.map(|hold| match hold {
            0..100_000 => format!("{}.{}s", hold / 1000, hold % 1000 / 100),
            _ => figures::span(Some(hold / 1000)),
        });
        let part = |part: &Option<u64>| figures::count(*part);
        let pressure = self.pressure.each_ref().map(part).join("/");
        [
            self.id.clone(),
            letter(self.status).to_owned(),
            self.cpu_milli.map_or("-".to_owned(), percent),
            hold.unwrap_or_else(|| "-".to_owned()),
            figures::bytes(self.memory_bytes),
            figures::bytes(self.read),
            figures::bytes(self.written),
            figures::bytes(self.received),
            figures::bytes(self.sent),
            pressure,
            figures::span(self.lease_s),
        ]
    }
}

fn letter(status: Status) -> &'static str {
    match status {
        Status::Creating | Status::Created => "C",
        Status::Running => "R",
        Status::Paused => "P",
        Status::Stopped => "S",
    }
}
