//! Turns the text of a document into a tree, by the grammar of TOML or of JSON.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::MapAccess;
use serde::de::Visitor;
use serde_json::value::RawValue;
use toml::Spanned;
use toml::de::DeTable;
use toml::de::DeValue;

use super::error::Fault;
use super::error::Problem;
use super::tree::Entry;
use super::tree::Node;
use super::tree::Value;

/// How deep values may lie in one another: deeper than any document has them, and far from the end of the stack.
const DEEPEST: usize = 16;

/// Reads TOML.
pub(super) fn toml(text: &str) -> Result<Node, Fault> {
    let table = DeTable::parse(text).map_err(|error| no_toml(text, &error))?;
    from_table(table.get_ref(), 0, 0)
}

fn no_toml(text: &str, error: &toml::de::Error) -> Fault {
    let Some(span) = error.span() else {
        return Fault::here(Problem::Syntax(format!("is no TOML: {}", error.message())));
    };
    let at = span.start;
    let fault = match text
        .get(span)
        .filter(|_| error.message() == "duplicate key")
    {
        Some(key) => Fault::here(Problem::Twice).below(key),
        None => Fault::here(Problem::Syntax(format!(
            "is no TOML: {}",
            one_line(error.message())
        ))),
    };
    fault.at(at)
}

fn from_table(table: &DeTable<'_>, offset: usize, depth: usize) -> Result<Node, Fault> {
    let mut entries = Vec::new();
    for (key, value) in table {
        let name: &Cow<'_, str> = key.get_ref();
        let offset = key.span().start;
        let node = from_toml(value, depth + 1).map_err(|fault| fault.below(name).at(offset))?;
        entries.push(Entry {
            key: sound(name).map_err(|fault| fault.at(offset))?,
            offset,
            node,
        });
    }
    entries.sort_by_key(|entry| entry.offset);
    Ok(Node {
        value: Value::Table(entries),
        offset,
    })
}

fn from_toml(value: &Spanned<DeValue<'_>>, depth: usize) -> Result<Node, Fault> {
    let offset = value.span().start;
    not_too_deep(depth)?;
    let read = match value.get_ref() {
        DeValue::String(text) => Value::Text(sound(text)?),
        DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix())
            .map(Value::Whole)
            .map_err(|_| {
                Fault::value(
                    "a whole number from -2^63 to 2^63-1",
                    digits.as_str().to_owned(),
                )
            })?,
        DeValue::Float(digits) => digits
            .as_str()
            .parse()
            .map(Value::Decimal)
            .map_err(|_| Fault::value("a number", digits.as_str().to_owned()))?,
        DeValue::Boolean(truth) => Value::Truth(*truth),
        DeValue::Datetime(date) => Value::Date(date.to_string()),
        DeValue::Array(list) => {
            let nodes = list.iter().enumerate().map(|(index, inner)| {
                from_toml(inner, depth + 1).map_err(|fault| fault.below(&format!("[{index}]")))
            });
            Value::List(nodes.collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => return from_table(table, offset, depth),
    };
    Ok(Node {
        value: read,
        offset,
    })
}

/// Reads JSON.
pub(super) fn json(text: &str) -> Result<Node, Fault> {
    let whole: &RawValue = serde_json::from_str(text).map_err(|error| {
        let offset = offset_of(text, error.line(), error.column());
        Fault::here(Problem::Syntax(format!("is no JSON: {}", bare(&error)))).at(offset)
    })?;
    from_json(text, whole, 0)
}

fn from_json(text: &str, raw: &RawValue, depth: usize) -> Result<Node, Fault> {
    let inner = raw.get();
    // `raw` borrows from `text`.
    let offset = inner.as_ptr().addr() - text.as_ptr().addr();
    not_too_deep(depth).map_err(|fault| fault.at(offset))?;
    let value = match inner.as_bytes().first() {
        Some(b'{') => {
            let Members(members) = part(inner)?;
            let entries = members
                .into_iter()
                .map(|(key, raw)| member(text, &key, raw, depth));
            Value::Table(once_each(entries.collect::<Result<_, _>>()?)?)
        }
        Some(b'[') => {
            let list: Vec<&RawValue> = part(inner)?;
            let nodes = list.into_iter().enumerate().map(|(index, raw)| {
                from_json(text, raw, depth + 1).map_err(|fault| fault.below(&format!("[{index}]")))
            });
            Value::List(nodes.collect::<Result<_, _>>()?)
        }
        Some(b'"') => {
            Value::Text(sound(&part::<String>(inner)?).map_err(|fault| fault.at(offset))?)
        }
        Some(b't' | b'f') => Value::Truth(part(inner)?),
        Some(b'n') => Value::Null,
        _ => number(inner).map_err(|fault| fault.at(offset))?,
    };
    Ok(Node { value, offset })
}

fn member(text: &str, key: &str, raw: &RawValue, depth: usize) -> Result<Entry, Fault> {
    let node = from_json(text, raw, depth + 1).map_err(|fault| fault.below(key))?;
    // A key ends before the colon before its value.
    let before = text.get(..node.offset).unwrap_or_default();
    let before = before.trim_end().trim_end_matches(':').trim_end();
    let offset = before.len().saturating_sub(1);
    Ok(Entry {
        key: sound(key).map_err(|fault| fault.at(offset))?,
        offset,
        node,
    })
}

fn once_each(entries: Vec<Entry>) -> Result<Vec<Entry>, Fault> {
    let mut seen = std::collections::BTreeSet::new();
    let twice = entries
        .iter()
        .find(|entry| !seen.insert(entry.key.as_str()));
    match twice {
        Some(entry) => Err(Fault::here(Problem::Twice)
            .below(&entry.key)
            .at(entry.offset)),
        None => Ok(entries),
    }
}

fn number(text: &str) -> Result<Value, Fault> {
    if let Ok(whole) = text.parse() {
        return Ok(Value::Whole(whole));
    }
    let decimal = text.parse().ok().filter(|number: &f64| number.is_finite());
    decimal
        .filter(|_| text.contains(['.', 'e', 'E']))
        .map(Value::Decimal)
        .ok_or_else(|| Fault::value("a number from -2^63 to 2^63-1", text))
}

/// A part of JSON that is known to be sound.
fn part<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Fault> {
    serde_json::from_str(text)
        .map_err(|error| Fault::here(Problem::Syntax(format!("is no JSON: {}", bare(&error)))))
}

/// The members of a JSON object as they stand, also those that stand there twice.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(AllMembers)
    }
}

struct AllMembers;

impl<'de> Visitor<'de> for AllMembers {
    type Value = Members<'de>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}

/// A text without the NUL character, at which the kernel would cut it off.
fn sound(text: &str) -> Result<String, Fault> {
    if text.contains('\0') {
        return Err(Fault::value(
            "text without a NUL character",
            format!("{text:?}"),
        ));
    }
    Ok(text.to_owned())
}

fn not_too_deep(depth: usize) -> Result<(), Fault> {
    if depth > DEEPEST {
        let text = format!("lies more than {DEEPEST} levels deep");
        return Err(Fault::here(Problem::Syntax(text)));
    }
    Ok(())
}

/// What `serde_json` says without the place, which is told otherwise.
fn bare(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let end = text.rfind(" at line ").unwrap_or(text.len());
    text.chars().take(end).collect()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn offset_of(text: &str, line: usize, column: usize) -> usize {
    let before: usize = text
        .split_inclusive('\n')
        .take(line.saturating_sub(1))
        .map(str::len)
        .sum();
    (before + column.saturating_sub(1)).min(text.len())
}
