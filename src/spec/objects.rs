//! Reads structures from JSON objects alone.
//!
//! A structure that is derived can be read from a list as well, member by member in the order of its declaration, and
//! serde_json lets it: `"root": ["rootfs", true]` would be a root. Each structure is asked of the reader as a map here, at
//! every level, so that the reader refuses a list. All of it is resolved when it is compiled.

use std::fmt;

use serde::de::DeserializeSeed;
use serde::de::Deserializer;
use serde::de::EnumAccess;
use serde::de::Error;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;

/// A reader, seed, visitor or access, and all that it leads to, for which a structure is an object.
#[derive(Debug)]
pub(super) struct Objects<T>(pub(super) T);

/// Who reads the members of a structure.
struct Members<V>(V);

/// Passes on what has no structures in it.
macro_rules! plain {
    ($($name:ident)*) => {
        $(fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.0.$name(visitor)
        })*
    };
}

/// Passes on what may have structures in it.
macro_rules! whole {
    ($($name:ident($($arg:ident: $kind:ty),*))*) => {
        $(fn $name<V: Visitor<'de>>(self, $($arg: $kind,)* visitor: V) -> Result<V::Value, D::Error> {
            self.0.$name($($arg,)* Objects(visitor))
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Objects<D> {
    type Error = D::Error;

    plain! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128 deserialize_u8
        deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64
        deserialize_char deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf deserialize_unit
        deserialize_identifier deserialize_ignored_any
    }

    whole! {
        deserialize_any()
        deserialize_option()
        deserialize_seq()
        deserialize_map()
        deserialize_unit_struct(name: &'static str)
        deserialize_newtype_struct(name: &'static str)
        deserialize_tuple(length: usize)
        deserialize_tuple_struct(name: &'static str, length: usize)
        deserialize_enum(name: &'static str, variants: &'static [&'static str])
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(Members(visitor))
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Members<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Objects(map))
    }
}

/// Passes on a value that is whole in itself.
macro_rules! value {
    ($($name:ident: $kind:ty),*) => {
        $(fn $name<E: Error>(self, value: $kind) -> Result<V::Value, E> {
            self.0.$name(value)
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Objects<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    value! {
        visit_bool: bool, visit_i8: i8, visit_i16: i16, visit_i32: i32, visit_i64: i64, visit_i128: i128, visit_u8: u8,
        visit_u16: u16, visit_u32: u32, visit_u64: u64, visit_u128: u128, visit_f32: f32, visit_f64: f64,
        visit_char: char, visit_str: &str, visit_borrowed_str: &'de str, visit_string: String, visit_bytes: &[u8],
        visit_borrowed_bytes: &'de [u8], visit_byte_buf: Vec<u8>
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(Objects(from))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, from: D) -> Result<V::Value, D::Error> {
        self.0.visit_newtype_struct(Objects(from))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<V::Value, A::Error> {
        self.0.visit_seq(Objects(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Objects(map))
    }

    // The configuration's choices are words, with no structures in them.
    fn visit_enum<A: EnumAccess<'de>>(self, choice: A) -> Result<V::Value, A::Error> {
        self.0.visit_enum(choice)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Objects<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(Objects(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Objects<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.0.next_key_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.0.next_value_seed(Objects(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Objects<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Objects(from))
    }
}

#[cfg(test)]
mod tests {
    use crate::spec::Spec;

    /// What is said of a document.
    fn refused(json: &str) -> String {
        Spec::parse(json.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_list_is_no_structure_at_any_level() {
        let lists = [
            (r#"{"root": ["rootfs", true]}"#, "root"),
            (r#"{"process": {"user": [1000, 1000]}}"#, "process.user"),
            (r#"{"mounts": [["/zz", "tmpfs"]]}"#, "mounts[0]"),
            (
                r#"{"linux": {"resources": {"pids": [5]}}}"#,
                "linux.resources.pids",
            ),
            (
                r#"{"hooks": {"poststop": [["/bin/true"]]}}"#,
                "hooks.poststop[0]",
            ),
            (
                r#"{"linux": {"timeOffsets": {"boottime": [1, 2]}}}"#,
                "linux.timeOffsets",
            ),
        ];
        for (json, path) in lists {
            let words = refused(json);
            let expected = format!("{path}: invalid type: sequence, expected an object at line 1");
            assert!(words.starts_with(&expected), "{words}");
        }
    }

    #[test]
    fn a_document_that_is_no_object_is_told_so() {
        for (json, found) in [
            ("[]", "sequence"),
            ("\"a\"", "string \"a\""),
            ("1", "integer `1`"),
        ] {
            let words = refused(json);
            let expected = format!("the document: invalid type: {found}, expected an object");
            assert!(words.starts_with(&expected), "{words}");
        }
    }

    #[test]
    fn a_document_that_ends_too_soon_is_told_so() {
        for json in ["", "{", r#"{"root": {"path""#, r#"{"mounts": ["#] {
            let words = refused(json);
            assert!(
                words.contains("ends too soon, at line 1 column "),
                "{words}"
            );
            assert!(!words.contains('?'), "{words}");
        }
    }

    #[test]
    fn a_key_that_is_not_known_is_named() {
        let words = refused(r#"{"linux": {"timeOffsets": {"cputime": {"secs": 1}}}}"#);
        assert!(
            words.starts_with("linux.timeOffsets.cputime: unknown"),
            "{words}"
        );
    }
}
