//! Annotations that are properties of the unit: `org.systemd.property.NAME`, with a value in GVariant's text form.
//!
//! Of that form what properties of units have is read: flags, numbers, texts and lists of them, with the type in
//! front where it is not evident. A name that ends in `Sec` is for humans: its seconds become microseconds.

use std::collections::BTreeMap;

use crate::plan::cgroup::CgroupError;
use crate::plan::cgroup::unit::Property;
use crate::plan::cgroup::unit::Value;

/// What such an annotation begins with.
const PREFIX: &str = "org.systemd.property.";

/// Reads the properties among annotations.
pub(super) fn properties(
    annotations: &BTreeMap<String, String>,
) -> Result<Vec<Property>, CgroupError> {
    annotations
        .iter()
        .filter_map(|(key, text)| Some((key, key.strip_prefix(PREFIX)?, text)))
        .map(|(key, name, text)| {
            let wrong = || CgroupError::Annotation {
                key: key.clone(),
                text: text.clone(),
            };
            let plain = name.len() >= 3 && name.bytes().all(|byte| byte.is_ascii_alphabetic());
            let value = value(text).filter(|_| plain).ok_or_else(wrong)?;
            match name.strip_suffix("Sec").filter(|stem| !stem.ends_with('U')) {
                Some(stem) => {
                    let micros = microseconds(&value).ok_or_else(wrong)?;
                    Ok(Property::new(
                        &format!("{stem}USec"),
                        Value::UnsignedLong(micros),
                    ))
                }
                None => Ok(Property::new(name, value)),
            }
        })
        .collect()
}

/// Reads one value.
fn value(text: &str) -> Option<Value> {
    let text = text.trim();
    let (kind, rest) = match text.split_once(char::is_whitespace) {
        Some((kind, rest)) if !kind.starts_with(['\'', '"', '[']) => (kind, rest.trim()),
        _ => ("", text),
    };
    match (kind, rest) {
        ("", "true") | ("boolean" | "@b", "true") => Some(Value::Flag(true)),
        ("", "false") | ("boolean" | "@b", "false") => Some(Value::Flag(false)),
        ("string" | "@s", text) => quoted(text).map(Value::Text),
        ("int32" | "@i", number) => Some(Value::Int(integer(number)?.try_into().ok()?)),
        ("uint32" | "@u", number) => Some(Value::Unsigned(integer(number)?.try_into().ok()?)),
        ("int64" | "@x", number) => Some(Value::Long(integer(number)?.try_into().ok()?)),
        ("uint64" | "@t", number) => Some(Value::UnsignedLong(integer(number)?.try_into().ok()?)),
        ("double" | "@d", number) => number.parse().ok().map(Value::Double),
        ("@as", list) => texts(list).map(Value::Texts),
        ("@ai", list) => integers(list).map(Value::Ints),
        ("@au", list) => integers(list).map(Value::Unsigneds),
        ("@ay", list) => integers(list).map(Value::Bytes),
        ("", text) => evident(text),
        _ => None,
    }
}

/// A value whose type shows: as in GVariant, a number is an `int32`, or a `double` if it has a point.
fn evident(text: &str) -> Option<Value> {
    if text.starts_with('[') {
        let list = texts(text)
            .filter(|list| !list.is_empty())
            .map(Value::Texts);
        return list.or_else(|| integers(text).map(Value::Ints));
    }
    quoted(text)
        .map(Value::Text)
        .or_else(|| Some(Value::Int(integer(text)?.try_into().ok()?)))
        .or_else(|| {
            text.parse()
                .ok()
                .filter(|_| text.contains('.'))
                .map(Value::Double)
        })
}

fn integer(text: &str) -> Option<i128> {
    let (sign, digits) = text
        .strip_prefix('-')
        .map_or((1, text), |digits| (-1, digits));
    let number = match digits.strip_prefix("0x") {
        Some(digits) => i128::from(u64::from_str_radix(digits, 16).ok()?),
        None => i128::from(digits.parse::<u64>().ok()?),
    };
    Some(sign * number)
}

/// A text between equal quotation marks, with backslashes before what would end it.
fn quoted(text: &str) -> Option<String> {
    let mark = text.chars().next().filter(|mark| "'\"".contains(*mark))?;
    let inner = text.strip_prefix(mark)?.strip_suffix(mark)?;
    let mut out = String::new();
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => out.push(letters.next().filter(|next| "\\'\"".contains(*next))?),
            letter if letter == mark => return None,
            letter => out.push(letter),
        }
    }
    Some(out)
}

fn texts(list: &str) -> Option<Vec<String>> {
    items(list)?.into_iter().map(|item| quoted(&item)).collect()
}

fn integers<T: TryFrom<i128>>(list: &str) -> Option<Vec<T>> {
    items(list)?
        .into_iter()
        .map(|item| T::try_from(integer(&item)?).ok())
        .collect()
}

/// What stands between the commas of a list; commas between quotation marks do not count.
fn items(list: &str) -> Option<Vec<String>> {
    let inner = list.strip_prefix('[')?.strip_suffix(']')?.trim();
    if inner.is_empty() {
        return Some(Vec::new());
    }
    let mut items = vec![String::new()];
    let (mut mark, mut escaped) = (None, false);
    for letter in inner.chars() {
        match (mark, letter) {
            (None, ',') => {
                items.push(String::new());
                continue;
            }
            (None, '\'' | '"') => mark = Some(letter),
            (Some(open), letter) if open == letter && !escaped => mark = None,
            _ => {}
        }
        escaped = letter == '\\' && !escaped;
        items.last_mut()?.push(letter);
    }
    Some(
        items
            .into_iter()
            .map(|item| item.trim().to_owned())
            .collect(),
    )
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the range is looked at before"
)]
fn microseconds(seconds: &Value) -> Option<u64> {
    const MOST: f64 = 1e12;
    match seconds {
        Value::Int(seconds) => u64::try_from(*seconds).ok()?.checked_mul(1_000_000),
        Value::Unsigned(seconds) => u64::from(*seconds).checked_mul(1_000_000),
        Value::Long(seconds) => u64::try_from(*seconds).ok()?.checked_mul(1_000_000),
        Value::UnsignedLong(seconds) => seconds.checked_mul(1_000_000),
        Value::Double(seconds) if (0.0..MOST).contains(seconds) => {
            Some((seconds * 1_000_000.0) as u64)
        }
        Value::Flag(_)
        | Value::Double(_)
        | Value::Text(_)
        | Value::Texts(_)
        | Value::Ints(_)
        | Value::Bytes(_)
        | Value::Unsigneds(_)
        | Value::Pairs(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, text: &str) -> Result<Vec<Property>, CgroupError> {
        let annotations = [(format!("{PREFIX}{name}"), text.to_owned())].into();
        properties(&annotations)
    }

    fn read(text: &str) -> Option<Value> {
        one("Anything", text)
            .ok()
            .map(|mut found| found.remove(0).value)
    }

    #[test]
    fn the_type_of_a_value_shows_or_is_said() {
        assert_eq!(read("true"), Some(Value::Flag(true)));
        assert_eq!(read("5"), Some(Value::Int(5)));
        assert_eq!(read("uint64 5"), Some(Value::UnsignedLong(5)));
        assert_eq!(read("@u 0x10"), Some(Value::Unsigned(16)));
        assert_eq!(
            read("'inactive-or-failed'"),
            Some(Value::Text("inactive-or-failed".into()))
        );
        assert_eq!(
            read("['a', 'b,c']"),
            Some(Value::Texts(vec!["a".into(), "b,c".into()]))
        );
        assert_eq!(read("@as []"), Some(Value::Texts(Vec::new())));
        assert_eq!(read("[1, 2]"), Some(Value::Ints(vec![1, 2])));
    }

    #[test]
    fn seconds_become_microseconds() {
        assert_eq!(
            one("TimeoutStopSec", "1.5").unwrap(),
            [Property::new(
                "TimeoutStopUSec",
                Value::UnsignedLong(1_500_000)
            )]
        );
        assert_eq!(
            one("TimeoutStopUSec", "uint64 7").unwrap(),
            [Property::new("TimeoutStopUSec", Value::UnsignedLong(7))]
        );
    }

    #[test]
    fn a_value_that_is_none_is_refused_by_its_key() {
        let key = "org.systemd.property.After".to_owned();
        assert_eq!(
            one("After", "nonsense"),
            Err(CgroupError::Annotation {
                key,
                text: "nonsense".to_owned()
            })
        );
        assert!(one("x/y", "true").is_err());
        assert!(one("After", "'a' 'b'").is_err());
    }

    #[test]
    fn other_annotations_are_nothing_to_us() {
        let annotations = [("org.example".to_owned(), "nonsense".to_owned())].into();
        assert_eq!(properties(&annotations), Ok(Vec::new()));
    }
}
