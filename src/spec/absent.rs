//! Reads `null` as if the property had not been written, as every runtime written in Go does.
//!
//! Engines that marshal Go structures write `"mounts": null` for an empty list; a reader that only takes lists would
//! refuse their bundles.

use std::fmt;

use serde::Deserialize;
use serde::Deserializer;
use serde::de::Error;
use serde::de::Unexpected;
use serde::de::Visitor;

/// Reads a value, or its default when the document says `null`.
///
/// # Errors
///
/// Fails as the reader of `T` does.
pub(super) fn null_is_default<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// Reads a limit that callers write as -1 when there is to be none, as they do with all others.
///
/// # Errors
///
/// Fails for every other number below 0.
pub(super) fn minus_one_is_most<'de, D>(from: D) -> Result<u64, D::Error>
where
    D: Deserializer<'de>,
{
    from.deserialize_u64(Limit)
}

/// Reads a limit.
struct Limit;

impl Visitor<'_> for Limit {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0 or more, or -1 for no limit")
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<u64, E> {
        Ok(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<u64, E> {
        match value {
            -1 => Ok(u64::MAX),
            other => {
                u64::try_from(other).map_err(|_| E::invalid_value(Unexpected::Signed(other), &self))
            }
        }
    }
}

/// Whether a value says nothing and so needs no place in a written document.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
