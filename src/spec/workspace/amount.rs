//! The amounts of a document: each is written as people write it and kept as a whole number of a small unit.
//!
//! The words are those of [`crate::spec::quantity`]. Where a bare number can only mean one thing it may be written
//! without quotation marks: `reserve = 0.25`, `limit = 1048576`.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::time::Duration;

use schemars::JsonSchema;
use schemars::Schema;
use schemars::SchemaGenerator;
use schemars::json_schema;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use serde::de::Error;
use serde::de::Unexpected;
use serde::de::Visitor;

use crate::spec::asked::Publish;
use crate::spec::asked::read_addresses;
use crate::spec::quantity;
use crate::spec::user::UserWord;

/// CPUs, in thousandths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cpus(pub u64);

/// A size, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// A rate of a network, in bits per second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bits(pub u64);

/// A span of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// The addresses that a workspace must have; none are the next free ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses(pub Vec<IpAddr>);

/// A port of the host that leads to one of the workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port(pub Publish);

/// Who the program runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Who {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
}

/// The least rate of a network: a token bucket is of no use below it.
const SLOWEST: u64 = 8000;

/// A value that is written as one word.
pub(super) trait Word: Sized {
    /// What it may be, for messages.
    const EXPECTED: &'static str;
    /// What the schema calls it.
    const NAME: &'static str;
    /// Which letters it is made of.
    const PATTERN: &'static str;
    /// The JSON type that stands for it besides text, if one does.
    const NUMBER: Option<&'static str> = None;

    fn read(text: &str) -> Option<Self>;
}

impl Word for Cpus {
    const EXPECTED: &'static str = quantity::CPUS;
    const NAME: &'static str = "Cpus";
    const PATTERN: &'static str = r"^[0-9]+(\.[0-9]{1,3})?$";
    const NUMBER: Option<&'static str> = Some("number");

    fn read(text: &str) -> Option<Self> {
        quantity::cpus(text).map(Self)
    }
}

impl Word for Bytes {
    const EXPECTED: &'static str = quantity::BYTES;
    const NAME: &'static str = "Bytes";
    const PATTERN: &'static str = r"^\s*[0-9]+(\.[0-9]{1,9})?\s*([kKmMgGtTpP]?([iI]?[bB])?)\s*$";
    const NUMBER: Option<&'static str> = Some("integer");

    fn read(text: &str) -> Option<Self> {
        quantity::bytes(text).map(Self)
    }
}

impl Word for Bits {
    const EXPECTED: &'static str =
        "a rate of at least 8kbit, such as 10mbit (powers of 1000: bit, kbit, mbit, gbit)";
    const NAME: &'static str = "Bits";
    const PATTERN: &'static str = r"^\s*[0-9]+(\.[0-9]{1,9})?\s*([kKmMgG]?[bB][iI][tT])?\s*$";
    const NUMBER: Option<&'static str> = Some("integer");

    fn read(text: &str) -> Option<Self> {
        quantity::bits_per_second(text)
            .filter(|rate| *rate >= SLOWEST)
            .map(Self)
    }
}

impl Word for Span {
    const EXPECTED: &'static str = quantity::SPAN;
    const NAME: &'static str = "Span";
    const PATTERN: &'static str = r"^\s*([0-9]+\s*[a-zA-Z]+\s*)+$";

    fn read(text: &str) -> Option<Self> {
        quantity::span(text).map(Self)
    }
}

impl Word for Addresses {
    const EXPECTED: &'static str = "auto, or an IPv4 and an IPv6 address, comma between them";
    const NAME: &'static str = "Addresses";
    const PATTERN: &'static str = r"^(auto|[0-9a-fA-F.:]+(\s*,\s*[0-9a-fA-F.:]+)?)$";

    fn read(text: &str) -> Option<Self> {
        read_addresses(text).map(Self)
    }
}

impl Word for Port {
    const EXPECTED: &'static str =
        "[HOST_IP:]HOST_PORT:PORT[/tcp|/udp], such as 8080:80/tcp, and HOST_IP is not ::1";
    const NAME: &'static str = "Port";
    const PATTERN: &'static str = r"^(.+:)?[0-9]+:[0-9]+(/(tcp|udp))?$";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }
}

impl Word for Who {
    const EXPECTED: &'static str = "UID or UID:GID in decimal numbers, such as 1000:1000";
    const NAME: &'static str = "Who";
    const PATTERN: &'static str = "^[0-9]+(:[0-9]+)?$";
    const NUMBER: Option<&'static str> = Some("integer");

    fn read(text: &str) -> Option<Self> {
        let UserWord { uid, gid } = text.parse().ok()?;
        let gid = gid.unwrap_or_default();
        Some(Self { uid, gid })
    }
}

/// Reads a word, or a bare number where that has one meaning only.
struct Reads<T>(PhantomData<T>);

impl<T: Word> Visitor<'_> for Reads<T> {
    type Value = T;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(T::EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::read(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        let read = T::NUMBER.and_then(|_| T::read(&number.to_string()));
        read.ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        let read = T::NUMBER.filter(|kind| *kind == "number");
        read.and_then(|_| T::read(&number.to_string()))
            .ok_or_else(|| E::invalid_value(Unexpected::Float(number), &self))
    }
}

/// Puts a word into documents and into their schema.
macro_rules! word {
    ($type:ty) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_any(Reads(PhantomData))
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                <Self as Word>::NAME.into()
            }

            fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
                schema::<Self>()
            }
        }
    };
}

word!(Cpus);
word!(Bytes);
word!(Bits);
word!(Span);
word!(Addresses);
word!(Port);
word!(Who);

fn schema<T: Word>() -> Schema {
    match T::NUMBER {
        Some(kind) => json_schema!({
            "description": T::EXPECTED,
            "anyOf": [
                { "type": "string", "pattern": T::PATTERN },
                { "type": kind, "minimum": 0 },
            ],
        }),
        None => json_schema!({
            "description": T::EXPECTED,
            "type": "string",
            "pattern": T::PATTERN,
        }),
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&quantity::cpus_text(self.0))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        scaled(out, self.0, 1024, ["", "K", "M", "G", "T"])
    }
}

impl fmt::Display for Bits {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        scaled(out, self.0, 1000, ["bit", "kbit", "mbit", "gbit", "gbit"])
    }
}

/// A number in the largest unit that it is a whole number of.
fn scaled(
    out: &mut fmt::Formatter<'_>,
    mut number: u64,
    factor: u64,
    units: [&str; 5],
) -> fmt::Result {
    let mut unit = 0;
    let last = if units[3] == units[4] { 3 } else { 4 };
    while number != 0 && number.is_multiple_of(factor) && unit < last {
        number /= factor;
        unit += 1;
    }
    write!(out, "{number}{}", units[unit])
}

impl fmt::Display for Span {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", humantime::format_duration(self.0))
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return out.write_str("auto");
        }
        let words: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        out.write_str(&words.join(","))
    }
}

impl fmt::Display for Port {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl fmt::Display for Who {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.uid, self.gid)
    }
}
