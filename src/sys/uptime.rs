//! Which uptime of the host this is.

use std::sync::OnceLock;

use crate::sys::Result;
use crate::sys::pseudo;

/// Where the kernel says it (`random(4)`).
pub const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The kernel's id of it: this process sees no other, so it is read once.
///
/// # Errors
///
/// Fails when it cannot be read; `ENOENT` where `/proc` does not have it.
pub fn id() -> Result<String> {
    static ID: OnceLock<String> = OnceLock::new();
    if let Some(id) = ID.get() {
        return Ok(id.clone());
    }
    let id = pseudo::text(BOOT_ID)?;
    Ok(ID.get_or_init(|| id.trim_end().to_owned()).clone())
}
