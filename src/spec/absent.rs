//! Reads `null` as if the property had not been written, as every runtime written in Go does.
//!
//! Engines that marshal Go structures write `"mounts": null` for an empty list; a reader that only takes lists would
//! refuse their bundles.

use serde::Deserialize;
use serde::Deserializer;

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

/// Whether a value says nothing and so needs no place in a written document.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
