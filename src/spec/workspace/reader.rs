//! Reads the types of the document from its tree, and says of what does not fit where it is and what would.
//!
//! This is a `serde` deserializer: the keys, their types and their schema all come from the one definition of the
//! types. It takes nothing for something else: no number for a text, no single value for a list.

use std::fmt;

use serde::de::DeserializeSeed;
use serde::de::Deserializer;
use serde::de::Expected;
use serde::de::IntoDeserializer;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Unexpected;
use serde::de::Visitor;
use serde::de::value::StrDeserializer;
use serde::forward_to_deserialize_any;

use super::error::Fault;
use super::error::Problem;
use super::tree::Entry;
use super::tree::Node;
use super::tree::Value;

type Result<T> = std::result::Result<T, Fault>;

impl Node {
    fn not(&self, expected: &str) -> Fault {
        Fault::value(expected, self.value.found()).at(self.offset)
    }

    fn whole<T: TryFrom<i64>>(&self, most: u64) -> Result<T> {
        let found = if let Value::Whole(number) = self.value {
            T::try_from(number).ok()
        } else {
            None
        };
        found.ok_or_else(|| self.not(&format!("a whole number from 0 to {most}")))
    }
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let read = match &self.value {
            Value::Text(text) => visitor.visit_str(text),
            Value::Whole(number) => visitor.visit_i64(*number),
            Value::Decimal(number) => visitor.visit_f64(*number),
            Value::Truth(truth) => visitor.visit_bool(*truth),
            Value::List(list) => visitor.visit_seq(Elements { list, next: 0 }),
            Value::Table(entries) => visitor.visit_map(Entries {
                entries,
                value: None,
            }),
            Value::Date(_) => return Err(self.not(&expected_by(&visitor))),
            Value::Null => visitor.visit_unit(),
        };
        read.map_err(|fault| fault.at(self.offset))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        if !matches!(self.value, Value::Truth(_)) {
            return Err(self.not("true or false"));
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_u16(self.whole(u16::MAX.into())?)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_u32(self.whole(u32::MAX.into())?)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_u64(self.whole(i64::MAX.unsigned_abs())?)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        if !matches!(self.value, Value::Text(_)) {
            return Err(self.not("text in quotation marks"));
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        if self.value == Value::Null {
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        if !matches!(self.value, Value::List(_)) {
            return Err(self.not("a list in square brackets"));
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        if !matches!(self.value, Value::Table(_)) {
            return Err(self.not("a table of keys and values"));
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        if !matches!(self.value, Value::Table(_)) {
            return Err(self.not(&format!("a table with the keys {}", fields.join(", "))));
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        let Value::Text(word) = &self.value else {
            return Err(self.not(&one_of(variants)));
        };
        let word: StrDeserializer<'_, Fault> = word.as_str().into_deserializer();
        visitor
            .visit_enum(word)
            .map_err(|fault| fault.at(self.offset))
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
        ignored_any
    }
}

fn expected_by<'de>(visitor: &impl Visitor<'de>) -> String {
    (visitor as &dyn Expected).to_string()
}

fn one_of(words: &[&str]) -> String {
    match words {
        [] => "nothing".to_owned(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// The elements of a list from one on.
struct Elements<'de> {
    list: &'de [Node],
    next: usize,
}

impl<'de> SeqAccess<'de> for Elements<'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        let Some(node) = self.list.get(self.next) else {
            return Ok(None);
        };
        let index = self.next;
        self.next += 1;
        let read = seed.deserialize(node);
        read.map(Some)
            .map_err(|fault| fault.below(&format!("[{index}]")))
    }
}

/// The entries of a table that are still to be read, and the value whose key was.
struct Entries<'de> {
    entries: &'de [Entry],
    value: Option<&'de Entry>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        let Some((entry, rest)) = self.entries.split_first() else {
            return Ok(None);
        };
        self.entries = rest;
        self.value = Some(entry);
        let key: StrDeserializer<'_, Fault> = entry.key.as_str().into_deserializer();
        seed.deserialize(key)
            .map(Some)
            .map_err(|fault| fault.at(entry.offset))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value> {
        let Some(entry) = self.value.take() else {
            return Err(Fault::here(Problem::Syntax(
                "a value without a key".to_owned(),
            )));
        };
        let read = seed.deserialize(&entry.node);
        read.map_err(|fault| fault.below(&entry.key))
    }
}

impl serde::de::Error for Fault {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self::here(Problem::Meaning(text.to_string()))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_value(found, expected)
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::value(expected, found_by(found))
    }

    fn unknown_variant(word: &str, words: &'static [&'static str]) -> Self {
        Self::value(one_of(words), format!("{word:?}"))
    }

    fn unknown_field(key: &str, keys: &'static [&'static str]) -> Self {
        let hint = nearest(key, keys).map_or_else(
            || format!("expected {}", one_of(keys)),
            |near| format!("did you mean {near}?"),
        );
        Self::here(Problem::Unknown { hint }).below(key)
    }

    fn missing_field(key: &'static str) -> Self {
        let expected = super::required(key).to_owned();
        Self::here(Problem::Missing { expected }).below(key)
    }

    fn duplicate_field(key: &'static str) -> Self {
        Self::here(Problem::Twice).below(key)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.key, self.problem)
    }
}

impl std::error::Error for Fault {}

fn found_by(found: Unexpected<'_>) -> String {
    if let Unexpected::Str(text) = found {
        return format!("{:?}", super::tree::shortened(text));
    }
    if let Unexpected::Signed(number) = found {
        return number.to_string();
    }
    if let Unexpected::Float(number) = found {
        return number.to_string();
    }
    let words = [
        (Unexpected::Seq, "a list"),
        (Unexpected::Map, "a table"),
        (Unexpected::Unit, "null"),
    ];
    let known = words.iter().find(|(one, _)| *one == found);
    known.map_or_else(|| found.to_string(), |(_, word)| (*word).to_owned())
}

/// The key that was probably meant: few letters away, for its length.
fn nearest<'a>(key: &str, keys: &[&'a str]) -> Option<&'a str> {
    let far = |known: &&&str| strsim::damerau_levenshtein(&key.to_lowercase(), known);
    let best = keys.iter().min_by_key(far)?;
    (far(&best) <= best.len().max(key.len()) / 3 + 1).then_some(*best)
}
