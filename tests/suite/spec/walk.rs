//! Finds every property that a type reads, by letting serde read it from nothing and watching what it asks for.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde::de::DeserializeSeed;
use serde::de::Deserializer;
use serde::de::EnumAccess;
use serde::de::Error;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::VariantAccess;
use serde::de::Visitor;
use serde::de::value::Error as WalkError;
use serde::de::value::StrDeserializer;

/// A word that every text property accepts, the stricter ones among them too.
const WORD: &str = "private";

/// The word for the one property that is read as a text and takes no other text.
const ACTION: (&str, &str) = ("linux.seccomp.defaultAction", "SCMP_ACT_ALLOW");

/// The paths of all properties that `T` reads and that have no properties of their own.
///
/// Lists add `[]` to the path when their elements have properties, maps `.*`.
pub(crate) fn properties_of<T: DeserializeOwned>() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let walk = Walk {
        path: String::new(),
        found: &mut found,
    };
    T::deserialize(walk).unwrap();
    leaves(&found)
}

/// Leaves out paths that are only the beginning of others, and marks of lists and maps at the end.
pub(crate) fn leaves(paths: &BTreeSet<String>) -> BTreeSet<String> {
    let is_parent = |path: &String| {
        let mut below = paths
            .iter()
            .filter_map(|other| other.strip_prefix(path.as_str()));
        let is_named = |rest: &str| rest.starts_with('.') && rest != ".*";
        below.any(|rest| is_named(rest.trim_start_matches("[]").trim_start_matches(".*")))
    };
    let leaves = paths.iter().filter(|path| !is_parent(path));
    let leaves = leaves.map(|path| path.trim_end_matches(".*").trim_end_matches("[]"));
    leaves.map(str::to_owned).collect()
}

/// Stands at one path and gives whatever is asked for.
struct Walk<'a> {
    path: String,
    found: &'a mut BTreeSet<String>,
}

impl Walk<'_> {
    fn word(&self) -> &'static str {
        let (path, word) = ACTION;
        if self.path == path { word } else { WORD }
    }

    fn below(&mut self, part: &str) -> Walk<'_> {
        let path = match (self.path.as_str(), part) {
            ("", part) => part.to_owned(),
            (path, "[]") => format!("{path}[]"),
            (path, part) => format!("{path}.{part}"),
        };
        self.found.insert(path.clone());
        Walk {
            path,
            found: self.found,
        }
    }
}

macro_rules! give {
    ($($asked:ident: $visit:ident $value:expr;)*) => {$(
        fn $asked<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, WalkError> {
            visitor.$visit($value)
        }
    )*};
}

impl<'de> Deserializer<'de> for Walk<'_> {
    type Error = WalkError;

    give! {
        deserialize_bool: visit_bool true;
        deserialize_i8: visit_i8 1;
        deserialize_i16: visit_i16 1;
        deserialize_i32: visit_i32 1;
        deserialize_i64: visit_i64 1;
        deserialize_u8: visit_u8 1;
        deserialize_u16: visit_u16 1;
        deserialize_u32: visit_u32 1;
        deserialize_u64: visit_u64 1;
        deserialize_f32: visit_f32 1.0;
        deserialize_f64: visit_f64 1.0;
        deserialize_char: visit_char 'c';
        deserialize_identifier: visit_str WORD;
        deserialize_bytes: visit_bytes WORD.as_bytes();
        deserialize_byte_buf: visit_bytes WORD.as_bytes();
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, WalkError> {
        visitor.visit_str(self.word())
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, WalkError> {
        visitor.visit_str(self.word())
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, WalkError> {
        Err(WalkError::custom(format!(
            "{}: anything is read here",
            self.path
        )))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, WalkError> {
        visitor.visit_unit()
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, WalkError> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, WalkError> {
        visitor.visit_unit()
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, WalkError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, WalkError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, WalkError> {
        visitor.visit_seq(Once::new(self, &["[]"]))
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, WalkError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, WalkError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, WalkError> {
        visitor.visit_map(Once::new(self, &["*"]))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, WalkError> {
        visitor.visit_map(Once::new(self, fields))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, WalkError> {
        visitor.visit_enum(First(variants[0]))
    }
}

/// Gives each of some parts once.
struct Once<'a> {
    walk: Walk<'a>,
    parts: &'static [&'static str],
    next: usize,
}

impl<'a> Once<'a> {
    fn new(walk: Walk<'a>, parts: &'static [&'static str]) -> Self {
        let next = 0;
        Self { walk, parts, next }
    }

    /// The next part that is not merely another spelling of the one before.
    fn step(&mut self) -> Option<&'static str> {
        let part = self.parts.get(self.next)?;
        self.next += 1;
        let before = self.parts.get(self.next.wrapping_sub(2));
        match before.is_some_and(|before| before.eq_ignore_ascii_case(part)) {
            true => self.step(),
            false => Some(part),
        }
    }
}

impl<'de> SeqAccess<'de> for Once<'_> {
    type Error = WalkError;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, WalkError> {
        let part = self.step();
        part.map(|part| seed.deserialize(self.walk.below(part)))
            .transpose()
    }
}

impl<'de> MapAccess<'de> for Once<'_> {
    type Error = WalkError;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, WalkError> {
        match self.step() {
            // The key of a map may be of any type, so that it has to be asked for.
            Some("*") => {
                let mut unseen = BTreeSet::new();
                let path = String::new();
                let found = &mut unseen;
                seed.deserialize(Walk { path, found }).map(Some)
            }
            Some(part) => seed.deserialize(StrDeserializer::new(part)).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, WalkError> {
        let part = self.parts[self.next - 1];
        seed.deserialize(self.walk.below(part))
    }
}

/// The first variant of an enum, which has to be without content.
struct First(&'static str);

impl<'de> EnumAccess<'de> for First {
    type Error = WalkError;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), WalkError> {
        let value = seed.deserialize(StrDeserializer::<WalkError>::new(self.0))?;
        Ok((value, self))
    }
}

impl<'de> VariantAccess<'de> for First {
    type Error = WalkError;

    fn unit_variant(self) -> Result<(), WalkError> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, _: S) -> Result<S::Value, WalkError> {
        Err(WalkError::custom("a variant with content"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, WalkError> {
        Err(WalkError::custom("a variant with content"))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, WalkError> {
        Err(WalkError::custom("a variant with content"))
    }
}
