//! Puts the device filter at a cgroup, and another in its place.
//!
//! The program is attached beside those of others (systemd has one of its own for every unit, which it rewrites
//! whenever it is reloaded), and all have to agree: so ours goes on deciding whatever happens to theirs. It is found
//! again by its name, and replaced without a moment in which neither is in force.

use std::os::fd::AsFd;
use std::path::Path;

use crate::defence::Defence;
use crate::enclosure::EnclosureError;
use crate::enclosure::Result;
use crate::enclosure::group::Group;
use crate::plan::cgroup::device::DeviceFilter;
use crate::sys::Errno;
use crate::sys::bpf;

/// What our programs are called.
const NAME: bpf::Name = *b"bulkhead_device\0";

/// Puts `filter` in force. If the caller may not filter at all and that is `optional`, it is remarked on instead.
pub(super) fn put(
    group: &Group,
    whole: &Path,
    filter: &DeviceFilter,
    optional: bool,
) -> Result<Option<String>> {
    if Defence::DeviceFilter.is_out() {
        return Ok(None);
    }
    let failed = |action: &'static str| {
        move |source| EnclosureError::Filter {
            action,
            group: whole.to_owned(),
            source,
        }
    };
    // What lets everything through is needed only in the place of what did not.
    let everything = filter.allows_everything();
    let before = match bpf::attached(group.descriptor(), NAME) {
        Ok(before) if before.is_empty() && everything => return Ok(None),
        Err(Errno::PERM) if optional || everything => Vec::new(),
        other => other.map_err(failed("look for"))?,
    };
    let program = match bpf::load_device_filter(&filter.program().instructions, NAME) {
        Err(Errno::PERM) if optional || everything => {
            return Ok(Some(
                "linux.resources.devices: no right to load a device filter (bpf(2)), ignoring"
                    .to_owned(),
            ));
        }
        other => other.map_err(failed("load"))?,
    };
    let (first, others) = match before.split_first() {
        Some((first, others)) => (Some(first.as_fd()), others),
        None => (None, before.as_slice()),
    };
    bpf::attach(group.descriptor(), program.as_fd(), first).map_err(failed("attach"))?;
    for other in others {
        bpf::detach(group.descriptor(), other.as_fd()).map_err(failed("detach"))?;
    }
    Ok(None)
}
