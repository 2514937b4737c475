//! Sums over the ledger: what was used in a span of time, by whom or when.
//!
//! Figures are cumulative within a life, so what belongs to a line is what it has more than the line before it in the
//! same life, and it belongs to the moment of that line. A sum over all lines of a life is therefore its last line,
//! exactly, however many there are between.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;
use serde::Serializer;
use serde::ser::SerializeMap;

use crate::accounting::ledger::entry::Entry;
use crate::accounting::ledger::entry::Kind;
use crate::accounting::usage::Usage;

/// What lines are put together by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Group {
    /// The name of the workspace.
    Id,
    /// The day in UTC.
    Day,
    /// The value of an annotation; empty for those without.
    Annotation(String),
    /// The wall.
    Isolation,
}

/// What is summed up.
#[derive(Debug, Clone)]
pub struct Question {
    /// Lines from this moment on.
    pub since: Option<SystemTime>,
    /// Lines before this moment.
    pub until: Option<SystemTime>,
    /// How they are put together.
    pub group: Group,
}

/// The figures that add up, by their names in JSON and CSV.
pub const FIGURES: [&str; 12] = [
    "present_s",
    "cpu_total_us",
    "cpu_user_us",
    "cpu_system_us",
    "cpu_throttled_us",
    "cpu_hold_ms",
    "cpu_on_behalf_us",
    "io_read_bytes",
    "io_written_bytes",
    "network_in_bytes",
    "network_out_bytes",
    "energy_uj",
];

/// Values in the order of [`FIGURES`]; what is not known is none.
type Figures = [Option<u64>; FIGURES.len()];

/// What was used by one group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sum {
    /// What the group has in common.
    pub group: String,
    /// Lives that it has lines of.
    pub lives: u64,
    /// Of those, how many ended in the span.
    pub ended: u64,
    /// The most memory that one of them has used at any time of its life; none where nobody knows.
    pub memory_peak_bytes: Option<u64>,
    figures: Figures,
}

impl Sum {
    /// One of [`FIGURES`]; none where it is known of no life of the group.
    #[must_use]
    pub fn figure(&self, name: &str) -> Option<u64> {
        let at = FIGURES.iter().position(|known| *known == name)?;
        self.figures[at]
    }

    /// All columns but the first by their names, as they are written.
    #[must_use]
    pub fn columns(&self) -> Vec<(&'static str, Option<u64>)> {
        let counts = [("lives", Some(self.lives)), ("ended", Some(self.ended))];
        let figures = FIGURES.into_iter().zip(self.figures);
        let peak = ("memory_peak_bytes", self.memory_peak_bytes);
        counts.into_iter().chain(figures).chain([peak]).collect()
    }

    fn grow(&mut self, more: Figures, usage: &Usage) {
        for (sum, more) in self.figures.iter_mut().zip(more) {
            *sum = more.map_or(*sum, |more| Some(sum.unwrap_or_default() + more));
        }
        let peak = usage.memory.as_ref().and_then(|memory| memory.peak_bytes);
        self.memory_peak_bytes = self.memory_peak_bytes.max(peak);
    }
}

impl Serialize for Sum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("group", &self.group)?;
        for (name, value) in self.columns() {
            if let Some(value) = value {
                map.serialize_entry(name, &value)?;
            }
        }
        map.end()
    }
}

/// Sums that grow line by line, in the order of the ledger.
#[derive(Debug)]
pub struct Sums {
    question: Question,
    lives: BTreeMap<(String, String), Life>,
    groups: BTreeMap<String, Sum>,
}

/// The last known figures of one life, and the groups that it has been counted in.
#[derive(Debug, Default)]
struct Life {
    seen: Figures,
    ended: bool,
    groups: Vec<String>,
}

impl Sums {
    /// Sums over nothing yet.
    #[must_use]
    pub fn new(question: Question) -> Self {
        Self {
            question,
            lives: BTreeMap::new(),
            groups: BTreeMap::new(),
        }
    }

    /// Adds a line.
    pub fn add(&mut self, entry: &Entry) {
        let at = time(&entry.usage.at);
        let life = self.lives.entry(entry.life()).or_default();
        let now = figures(&entry.usage);
        let more = std::array::from_fn(|at| {
            let before = life.seen[at].unwrap_or_default();
            Some(now[at]?.saturating_sub(before))
        });
        // Of what has become unknown, what was known last still holds.
        life.seen = std::array::from_fn(|at| now[at].max(life.seen[at]));
        let newly_ended = entry.kind == Kind::Ended && !life.ended;
        life.ended |= newly_ended;
        let inside = self.question.since.is_none_or(|since| at >= since)
            && self.question.until.is_none_or(|until| at < until);
        if !inside {
            return;
        }
        let name = self.question.group.of(entry);
        let sum = self.groups.entry(name.clone()).or_insert_with(|| Sum {
            group: name.clone(),
            ..Sum::default()
        });
        if !life.groups.contains(&name) {
            life.groups.push(name);
            sum.lives += 1;
        }
        sum.ended += u64::from(newly_ended);
        sum.grow(more, &entry.usage);
    }

    /// The groups, sorted by name.
    #[must_use]
    pub fn groups(self) -> Vec<Sum> {
        self.groups.into_values().collect()
    }
}

impl Group {
    fn of(&self, entry: &Entry) -> String {
        match self {
            Self::Id => entry.usage.id.to_string(),
            Self::Day => entry.usage.at.chars().take(10).collect(),
            Self::Annotation(key) => entry.annotations.get(key).cloned().unwrap_or_default(),
            Self::Isolation => entry.usage.isolation.clone(),
        }
    }
}

/// The moment of a line; what cannot be read as one was long ago.
fn time(text: &str) -> SystemTime {
    humantime::parse_rfc3339(text).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn figures(usage: &Usage) -> Figures {
    let age = time(&usage.at).duration_since(time(&usage.created));
    [
        age.ok().map(|age| age.as_secs()),
        Some(usage.cpu.total_us),
        Some(usage.cpu.user_us),
        Some(usage.cpu.system_us),
        usage.cpu.throttled_us,
        usage.cpu.hold_ms,
        usage.cpu.on_behalf.us,
        usage.of_devices(|device| device.read_bytes),
        usage.of_devices(|device| device.written_bytes),
        usage.of_links(|link| link.in_bytes),
        usage.of_links(|link| link.out_bytes),
        usage.energy.as_ref().map(|energy| energy.package_uj),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(kind: Kind, id: &str, at: &str, total_us: u64) -> Entry {
        let text = serde_json::json!({
            "version": 1, "kind": kind, "annotations": {"team": id},
            "usage": {
                "id": id, "created": "2026-01-01T23:00:00Z", "boot": "b", "at": at,
                "isolation": "container", "pressure": {},
                "cpu": {"total_us": total_us, "user_us": 0, "system_us": 0,
                    "roles": {"workload": {"total_us": total_us}},
                    "on_behalf": {"how": "unavailable"}},
            },
        });
        serde_json::from_value(text).unwrap()
    }

    fn sums(since: Option<&str>, group: Group) -> Vec<(String, u64, Option<u64>)> {
        let since = since.map(time);
        let mut sums = Sums::new(Question {
            since,
            until: None,
            group,
        });
        for entry in [
            line(Kind::Created, "a", "2026-01-01T23:00:00Z", 5),
            line(Kind::Interval, "a", "2026-01-01T23:30:00Z", 100),
            line(Kind::Created, "b", "2026-01-01T23:00:00Z", 1),
            line(Kind::Interval, "a", "2026-01-02T00:30:00Z", 250),
            line(Kind::Ended, "a", "2026-01-02T01:00:00Z", 300),
            line(Kind::Ended, "a", "2026-01-02T01:00:01Z", 300),
        ] {
            sums.add(&entry);
        }
        let groups = sums.groups().into_iter();
        groups
            .map(|sum| (sum.group.clone(), sum.ended, sum.figure("cpu_total_us")))
            .collect()
    }

    #[test]
    fn the_sum_of_a_life_is_its_last_line() {
        let expected = [("a".to_owned(), 1, Some(300)), ("b".to_owned(), 0, Some(1))];
        assert_eq!(sums(None, Group::Id), expected);
        assert_eq!(sums(None, Group::Annotation("team".to_owned())), expected);
    }

    #[test]
    fn each_day_has_what_was_used_on_it() {
        let expected = [
            ("2026-01-01".to_owned(), 0, Some(101)),
            ("2026-01-02".to_owned(), 1, Some(200)),
        ];
        assert_eq!(sums(None, Group::Day), expected);
    }

    #[test]
    fn what_was_used_before_the_span_does_not_count() {
        let expected = [("container".to_owned(), 1, Some(200))];
        let found = sums(Some("2026-01-02T00:00:00Z"), Group::Isolation);
        assert_eq!(found, expected);
    }

    #[test]
    fn what_nobody_knows_is_no_zero() {
        let mut sums = Sums::new(Question {
            since: None,
            until: None,
            group: Group::Id,
        });
        sums.add(&line(Kind::Created, "a", "2026-01-01T23:00:00Z", 5));
        let value = serde_json::to_value(&sums.groups()[0]).unwrap();
        assert_eq!(value["cpu_total_us"], 5);
        assert_eq!(value.get("network_in_bytes"), None);
        assert_eq!(value.get("memory_peak_bytes"), None);
    }
}
